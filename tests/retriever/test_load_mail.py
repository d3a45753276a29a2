"""E-mail: what was written, by whom, to whom and when; what hangs on it; and how it is refused."""

from __future__ import annotations

from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.load.mail import read
from retriever.load.normal import Extract, Unreadable, normalise

HEAD = "From: Eva Weber <eva@example.org>\nTo: alle@example.org\nDate: Fri, 03 May 2024 14:22:00 +0200\nSubject: Kantine\n"


def announcement() -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "Kantine: neue Preise ab Juli – Größe"
    message["From"] = "Jörg Müller <jm@example.org>"
    message["To"] = "alle@example.org, Ärzte <arzt@example.org>"
    message["Cc"] = "br@example.org"
    message["Date"] = "Fri, 03 May 2024 14:22:00 +0200"
    message.set_content("Ab dem 1. Juli kostet das Menü 6,50 €.\n")
    message.add_alternative("<p>Ab dem 1. Juli kostet das Menü <b>6,50 €</b>.</p>", subtype="html")
    return message


def headings(extract: Extract) -> list[tuple[int, str]]:
    assert all(extract.text[h.start : h.end] == h.text for h in extract.headings)
    return [(heading.level, heading.text) for heading in extract.headings]


def test_a_message_is_read_as_a_person_reads_it() -> None:
    extract = read(announcement().as_bytes())
    assert extract.text == (
        "Kantine: neue Preise ab Juli – Größe\n\n"
        "From: Jörg Müller <jm@example.org>\nTo: alle@example.org, Ärzte <arzt@example.org>\nCc: br@example.org\n"
        "Date: 2024-05-03 14:22\n\n"
        "Ab dem 1. Juli kostet das Menü 6,50 €."
    )
    assert extract.title == "Kantine: neue Preise ab Juli – Größe"
    assert headings(extract) == [(1, extract.title)]
    assert extract.pages == (0,)
    assert extract.metadata == {"author": "Jörg Müller", "date": "2024-05-03"}


def test_what_hangs_on_it_is_named_and_read_where_it_is_text() -> None:
    message = announcement()
    message.add_attachment(
        "Gericht;Preis\nMenü;6,50\n".encode(), maintype="text", subtype="csv", filename="Preise für März.csv"
    )
    message.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="plan.pdf")
    message.add_attachment(b"\0\1", maintype="application", subtype="octet-stream", filename="kaputt.txt")
    inner = EmailMessage()
    inner["Subject"], inner["From"] = "Vorschlag", "br@example.org"
    inner.set_content("<h2>Preise</h2><p>Bitte unter 7 €.", subtype="html")
    message.add_attachment(inner)
    extract = read(message.as_bytes())
    assert "Attachments: Preise für März.csv, plan.pdf, kaputt.txt\n" in extract.text
    assert [extract.text[start:].split("\n\n")[:2] for start in extract.pages[1:]] == [
        ["Preise für März.csv", "Gericht: Menü | Preis: 6,50"],
        ["Vorschlag", "From: br@example.org"],
    ]
    assert headings(extract)[1:] == [(2, "Preise für März.csv"), (1, "Vorschlag"), (3, "Preise")]


def test_quoted_history_stands_below_what_is_new() -> None:
    body = (
        "\nHallo Jörg,\n\nAm 02.05.2024 um 10:00 schrieb Jörg Müller\n<jm@example.org>:\n> Was kostet das Menü?\n>\n> > Alt\n"
        "Sechs Euro fünfzig.\n\n> Und ab wann?\n\nAb Juli: siehe\nAushang.\n"
    )
    assert read((HEAD + body).encode()).text.split("14:22\n\n")[1] == (
        "Hallo Jörg,\n\nSechs Euro fünfzig.\n\nAb Juli: siehe\nAushang.\n\n"
        "Am 02.05.2024 um 10:00 schrieb Jörg Müller <jm@example.org>:\nWas kostet das Menü?\n\nAlt\n\nUnd ab wann?"
    )


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nGr=F6=DFe", "Größe"),
        ("Content-Type: text/plain; charset=no-such\nContent-Transfer-Encoding: quoted-printable\n\nGr=F6=DFe", "Größe"),
        ("Content-Type: text/plain; charset=us-ascii\nContent-Transfer-Encoding: 8bit\n\nGröße", "Größe"),
        ("Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\nR3LDtsOfZQ==", "Größe"),
        ("Content-Type: text/html\n\n<title>x</title><p>Größe", "Größe"),
        (
            "Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain\n\n \n"
            "--b\nContent-Type: text/html\n\n<p>Größe\n--b\nContent-Type: text/calendar\n\nBEGIN\n--b--",
            "Größe",
        ),
        ("Content-Type: multipart/mixed; boundary=b; charset*0*\n\n--b\n\neins\n--b--", "eins"),
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\neins\n--b\n\nzwei\n--b--", "eins\n\nzwei"),
        ("Content-Type: multipart/mixed; boundary=b\n\n--c\n\nnie\n", None),
        ("Content-Type: multipart/alternative; boundary=b\n\n--b--", None),
        ("", None),
    ],
)
def test_a_body_is_read_whatever_its_form(part: str, text: str | None) -> None:
    extract = read((HEAD + part).encode())
    assert extract.text.partition("14:22")[2] == ("" if text is None else "\n\n" + text)


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ("Subject: =?utf-8?q?Gr=C3=B6=C3=9Fe?=", "Größe\n\nFrom"),
        ("Subject: =?no-such?q?Gr=F6?= =?utf-8?b?w6Q", "Gr"),
        ("Subject:", "From"),
        ("Date: gestern", "Date: gestern"),
        ("Date: Fri, 99 May 2024 14:22:00 +0200", "Date: Fri, 99 May"),
        ("Date: Mon, 1 Jan 99999999999999 10:00:00 +0000", "Date: Mon, 1 Jan 99999999999999"),
        ("To: ,,;:<>, =?x?=", "To: "),
        ("To: a@", "To: a@"),
        ("Cc: Alle :;;", "Cc: Alle :;;"),
        ("To: " + "(" * 5000, "To: (((("),
        ("Content-Type: text/plain; charset*0*", "Text"),
        ("Content-Disposition: attachment; filename*0*", "Attachments: text/plain"),
        ("Content-Type: nichts; =;;\nContent-Disposition: =?", "From"),
    ],
)
def test_damaged_fields_are_shown_as_well_as_they_can_be(fields: str, shown: str) -> None:
    assert shown in read(f"{fields}\nFrom: eva@example.org\n\nText".encode()).text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("Nur ein Text.\nOhne Kopf.", "no e-mail"),
        ("\n\nText", "no e-mail"),
        (HEAD + "Content-Transfer-Encoding: base64\n\nabcde", "damaged"),
        (HEAD + "Content-Transfer-Encoding: base64\n\nAAECAwQF", "binary"),
        (HEAD + "Content-Type: application/pkcs7-mime; smime-type=enveloped-data\n\nMII", "encrypted"),
        (HEAD + "Content-Type: multipart/encrypted; boundary=b\n\n--b\n\nx\n--b--", "encrypted"),
        (
            HEAD + "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(10_000)),
            "nested too deeply",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(source: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as caught:
        read(source.encode())
    assert caught.value.way_out


def test_seals_and_pictures_in_the_text_are_no_attachments() -> None:
    message = EmailMessage()
    message["From"] = "eva@example.org"
    message.set_content("Text")
    message.add_attachment(b"x", maintype="application", subtype="pkcs7-signature", filename="smime.p7s")
    message.add_attachment(b"x", maintype="image", subtype="png", filename="logo.png", cid="<logo>")
    message.add_attachment(b"x", maintype="image", subtype="png", filename="foto.png")
    assert "Attachments: foto.png\n" in read(message.as_bytes()).text


FIELDS = ["From", "To", "Cc", "Date", "Subject", "Content-Type", "Content-Transfer-Encoding", "Content-Disposition"]
VALUES = st.text(alphabet='a@<>,;:="()?\\[].1 ü', max_size=25) | st.sampled_from(
    [
        "multipart/mixed; boundary=b",
        "multipart/alternative; boundary=b",
        "message/rfc822",
        "text/html",
        "base64",
        "attachment; filename=a.csv",
    ]
)


@given(
    st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), max_size=6),
    st.lists(
        st.sampled_from(["--b", "--b--", "Subject: x", "", "> y", "text", "abcde", "Content-Type: message/rfc822"]), max_size=12
    ),
)
def test_any_fields_are_a_message_or_a_refusal(fields: list[tuple[str, str]], lines: list[str]) -> None:
    source = "From: eva@example.org\n" + "".join(f"{name}: {value}\n" for name, value in fields) + "\n" + "\n".join(lines)
    try:
        extract = read(source.encode())
    except Unreadable:
        return
    headings(extract)
    assert normalise(extract.text) == extract.text
    assert list(extract.pages) == sorted(extract.pages)
