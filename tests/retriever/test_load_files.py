"""Finding files, and every way in which a file is refused."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retriever import load as package
from retriever.errors import LoadError
from retriever.load import content_hash, discover, load
from retriever.load.normal import normalise
from retriever.schema import Document, document_id

LIMIT = 1_000_000


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refusal(path: Path, max_bytes: int = LIMIT) -> LoadError:
    with pytest.raises(LoadError) as caught:
        load(path, source="S", max_bytes=max_bytes)
    assert caught.value.source == "S"
    return caught.value


def test_a_file_becomes_a_document(tmp_path: Path) -> None:
    data = "# Urlaub\n\nDer Urlaubsanspruch beträgt dreißig Tage im Jahr.\n".encode()
    path = write(tmp_path, "urlaub.md", data)
    document = load(path, max_bytes=LIMIT)
    assert document.source == path.resolve().as_posix()
    assert document.id == document_id(document.source)
    assert document.text == "Urlaub\n\nDer Urlaubsanspruch beträgt dreißig Tage im Jahr."
    assert (document.title, document.language) == ("Urlaub", "de")
    assert document.content_hash == hashlib.sha256(data).hexdigest() == content_hash(path)
    assert document.metadata == {"kind": "markdown", "folder": tmp_path.name, "name": "urlaub.md"}
    assert document.page_at(0) is None


def test_the_caller_may_name_the_source(tmp_path: Path) -> None:
    document = load(write(tmp_path, "a.txt", b"text"), source="hochgeladen/a.txt", max_bytes=LIMIT)
    assert (document.source, document.id) == ("hochgeladen/a.txt", document_id("hochgeladen/a.txt"))


def test_front_matter_cannot_pose_as_the_files_own_kind(tmp_path: Path) -> None:
    document = load(write(tmp_path, "a.md", b"---\nkind: pdf\nteam: x\n---\nText"), max_bytes=LIMIT)
    assert document.metadata["kind"] == "markdown"
    assert document.metadata["team"] == "x"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b" \n\t\xc2\xa0\n", "holds no text"),
        ("a.html", b"<script>x</script><p hidden>x</p>", "holds no text"),
        ("a.txt", b"MZ\0\0\1", "binary"),
        ("a.docx", b"PK\3\4", "'.docx' are not read Known kinds: .htm"),
        ("a.exe", b"MZ", "'.exe' are not read"),
        ("ohne", b"text", "not read"),
        ("a.pdf", b"<html>Sitzung abgelaufen</html>", "no PDF"),
        ("a.pdf", b"%PDF-1.7 and nothing", "damaged"),
        ("a.txt", b"%PDF-1.7 and nothing", "Rename it to end in .pdf"),
    ],
)
def test_what_is_no_document_is_refused_with_the_reason(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    assert words in str(refusal(write(tmp_path, name, data))).replace(". ", " ")


def test_a_file_over_the_limit_is_refused_and_one_at_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"12345678")
    assert "larger than 7 bytes" in str(refusal(path, max_bytes=7))
    assert load(path, max_bytes=8).text == "12345678"


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    assert "no such file" in str(refusal(tmp_path / "weg.txt"))
    (tmp_path / "ordner.txt").mkdir()
    assert "a folder" in str(refusal(tmp_path / "ordner.txt"))
    os.mkfifo(tmp_path / "rohr.txt")
    assert "no regular file" in str(refusal(tmp_path / "rohr.txt"))
    with pytest.raises(LoadError):
        content_hash(tmp_path / "rohr.txt")
    with pytest.raises(LoadError):
        content_hash(tmp_path / "weg.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"geheim")
    path.chmod(0)
    assert "no permission" in str(refusal(path))


def test_a_name_that_is_no_utf8_gives_a_source_that_can_be_stored(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xfcro.txt"))
    path.write_bytes(b"text")
    document = load(path, max_bytes=LIMIT)
    (document.source + document.title + document.metadata["name"]).encode("utf-8")


def holds(document: Document) -> None:
    assert document.text.strip()
    assert normalise(document.text) == document.text
    assert all(document.text[h.start : h.end] == h.text for h in document.headings)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), name=st.sampled_from(["x.txt", "x.md", "x.html", "x.pdf"]))
def test_any_bytes_are_a_document_or_a_refusal(tmp_path: Path, data: bytes, name: str) -> None:
    if name == "x.pdf":
        data = b"%PDF-1.4\n" + data
    try:
        document = load(write(tmp_path, name, data), max_bytes=LIMIT)
    except LoadError as error:
        message, again = str(error), str(pickle.loads(pickle.dumps(error)))
    else:
        message = again = ""
        holds(document)
    assert message == again


def test_discovery_is_sorted_skips_hidden_and_survives_circles(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    one, two = write(tmp_path, "a.txt", b"1"), write(tmp_path / "b", "c.md", b"2")
    hidden = write(tmp_path, ".geheim.txt", b"3")
    write(tmp_path / ".git", "x.txt", b"4")
    (tmp_path / "b" / "kreis").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "z.txt").symlink_to(one)
    assert discover([tmp_path]) == [one, two]
    assert discover([two, tmp_path, hidden]) == [two, one, hidden]


def test_discovery_names_what_is_missing_and_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"1")
    missing, found = discover([tmp_path / "weg", path])
    assert isinstance(missing, LoadError)
    assert "no such file" in missing.reason
    assert found == path


def test_what_is_exported_is_there() -> None:
    assert all(hasattr(package, name) for name in package.__all__)
