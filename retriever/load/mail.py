"""Read e-mail (.eml): who wrote what to whom and when, attached messages and attached texts as further pages.

Knows nothing of mailboxes, and verifies no signature.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.errors import InvalidBase64LengthDefect
from email.headerregistry import HeaderRegistry
from email.message import MIMEPart
from email.utils import parseaddr, parsedate_to_datetime
from pathlib import PurePath

from retriever.load import html, markdown, table, text
from retriever.load.normal import Extract, Unreadable, Writer, fill_pages, normalise, one_line
from retriever.load.wrapping import unwrap
from retriever.schema import Heading

__all__ = ["read"]

_SHOWN = ("From", "To", "Cc", "Date")
_KNOWN = (*_SHOWN, "Subject", "Message-ID", "Received", "MIME-Version")
_ATTACHED: dict[str, Callable[[bytes], Extract]] = {
    ".txt": text.read,
    ".md": markdown.read,
    ".html": html.read,
    ".htm": html.read,
    ".csv": table.read,
    ".tsv": table.read,
}
_QUOTED = re.compile(r"(?:> ?)+")
_ATTRIBUTION = re.compile(r"\A(?:Am|On)\b.{1,300}\b(?:schrieb|wrote)\b.{0,200}:\Z")
_SIGNATURES = frozenset(("application/pkcs7-signature", "application/x-pkcs7-signature", "application/pgp-signature"))
_ENCRYPTED = frozenset(("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"))
_FIELDS = HeaderRegistry()


def _parsed(name: str, value: str) -> str:
    """Return a field as the library parses it, or as it was written where its parser stumbles."""
    try:
        return _FIELDS(name, value)
    except (LookupError, AttributeError, ArithmeticError, RecursionError):
        return value


_POLICY = policy.default.clone(header_factory=_parsed)


def read(data: bytes) -> Extract:
    """Read a message; page 1 is the message, each attached message and each attached text is a page of its own.

    Of a body in several forms the plain one is read. What it quotes of earlier messages stands below what is new. Attachments
    are named, and read where they are text.

    Raises:
        Unreadable: if it is no message, is encrypted, nested beyond all use, or its text cannot be decoded.
    """
    try:
        message = message_from_bytes(data, policy=_POLICY)
    except RecursionError as error:
        raise Unreadable(
            "its parts are nested too deeply", way_out="Save the message itself, without what carries it."
        ) from error
    if not any(name in message for name in _KNOWN):
        raise Unreadable("it is no e-mail: it has no sender, date or subject", way_out="Save it as .eml again.")
    writer = Writer()
    waiting: deque[MIMEPart] = deque([message])
    pages: list[int | None] = []
    while waiting:
        letter = _sort(waiting.popleft())
        waiting.extend(letter.messages)
        pages += letter.write(writer)
    fields = {"author": _author(message), "date": _sent(message)[:10]}
    return Extract(
        writer.text(),
        pages=fill_pages(pages, len(writer)),
        headings=tuple(writer.headings),
        title=_field(message, "Subject") or None,
        metadata={key: value for key, value in fields.items() if value},
    )


@dataclass
class _Letter:
    """One message, taken apart."""

    head: MIMEPart
    body: list[Extract] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of what is attached
    texts: list[tuple[str, Extract]] = field(default_factory=list)  # of it, those that are read
    messages: list[MIMEPart] = field(default_factory=list)

    def write(self, writer: Writer) -> Iterator[int | None]:
        """Write it, and yield where its pages begin."""
        fields = {name: _sent(self.head) if name == "Date" else _field(self.head, name) for name in _SHOWN}
        fields["Attachments"] = ", ".join(self.names)
        lines = "\n".join(f"{name}: {value}" for name, value in fields.items() if value)
        blocks = [Extract(lines), *self.body]
        subject = _field(self.head, "Subject")
        yield _page(writer, subject, 1, blocks)
        for name, extract in self.texts:
            yield _page(writer, name, 2, [extract])


def _page(writer: Writer, heading: str, level: int, blocks: Iterable[Extract]) -> int | None:
    start = writer.add(heading, level=level) if heading else None
    for block in blocks:
        if block.text:
            at = writer.add(block.text)
            start = at if start is None else start
            writer.headings.extend(
                Heading(min(level + inner.level, 6), inner.text, at + inner.start, at + inner.end) for inner in block.headings
            )
    return start


def _sort(message: MIMEPart) -> _Letter:
    letter = _Letter(message)
    for part in _parts(message):
        kind, name = part.get_content_type(), one_line(part.get_filename() or "")
        if kind == "message/rfc822":
            letter.messages.extend(part.iter_parts())
        elif name or part.get_content_disposition() == "attachment":
            if kind in _SIGNATURES or (part.get_content_maintype() == "image" and part["Content-ID"]):
                continue  # a seal, or a picture that the text shows
            letter.names.append(name or kind)
            read_attached = _ATTACHED.get(PurePath(name).suffix.lower())
            if read_attached:
                with suppress(Unreadable):
                    letter.texts.append((name, read_attached(_bytes(part))))
        elif kind == "text/html":
            letter.body.append(html.render(_text(part)))
        elif kind == "text/plain":
            letter.body.append(Extract(_new_first(_text(part))))
    return letter


def _parts(message: MIMEPart) -> Iterator[MIMEPart]:
    """Yield what a message is made of, in order, the best of each choice; messages within it are not taken apart."""
    stack = [message]
    while stack:
        part = stack.pop()
        kind = part.get_content_type()
        if kind in _ENCRYPTED:
            raise Unreadable("the message is encrypted", way_out="Open it in the mail program and save it without encryption.")
        if not part.is_multipart() or part.get_content_maintype() == "message":
            yield part
        elif kind == "multipart/alternative":
            stack += [part for part in [_best(list(part.iter_parts()))] if part]
        else:
            stack += reversed(list(part.iter_parts()))


def _best(choices: Sequence[MIMEPart]) -> MIMEPart | None:
    """Return the form to read: plain text that is not blank, else the last that is a page, else the first."""
    for choice in choices:
        if choice.get_content_type() == "text/plain" and _bytes(choice).strip():
            return choice
    pages = [part for part in choices if part.get_content_type() == "text/html" or part.get_content_maintype() == "multipart"]
    return pages[-1] if pages else next(iter(choices), None)


def _bytes(part: MIMEPart) -> bytes:
    data = part.get_payload(decode=True)
    if any(isinstance(defect, InvalidBase64LengthDefect) for defect in part.defects):
        raise Unreadable("its text is damaged (no valid base64)", way_out="Save the message again from the mail program.")
    return data if isinstance(data, bytes) else b""


def _text(part: MIMEPart) -> str:
    return text.decode(_bytes(part), part.get_content_charset())


def _new_first(source: str) -> str:
    """Return a plain body with what it quotes, and the line that says of whom, behind what is new."""
    new: list[str] = []
    old: list[str] = []
    quoting = False
    for line in normalise(source).split("\n"):
        mark = _QUOTED.match(line)
        if mark and not quoting:
            old += ["", *_attribution(new)]
        quoting = mark is not None or (quoting and not line)
        (old if quoting else new).append(line[mark.end() :] if mark else line)
    return normalise("\n\n".join(unwrap(normalise("\n".join(lines))) for lines in (new, old)))


def _attribution(lines: list[str]) -> list[str]:
    """Take the line or two off the end of `lines` that say who wrote what is quoted next."""
    end = len(lines)
    while end and not lines[end - 1]:
        end -= 1
    for count in (1, 2):
        taken = lines[max(0, end - count) : end]
        if _ATTRIBUTION.search(" ".join(taken)):
            del lines[end - count :]
            return taken
    return []


def _field(message: MIMEPart, name: str) -> str:
    return one_line(str(message[name] or ""))


def _author(message: MIMEPart) -> str:
    name, address = parseaddr(_field(message, "From"))
    return name or address


def _sent(message: MIMEPart) -> str:
    """Return when it was sent by the sender's clock, or what stands in place of a time."""
    written = _field(message, "Date")
    try:
        return f"{parsedate_to_datetime(written):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError):
        return written
