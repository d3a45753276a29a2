"""Read plain text: find its encoding, refuse what is no text, split it at form feeds.

Also decodes the bytes of the other textual kinds. Knows nothing of markup.
"""

from __future__ import annotations

import codecs
import re

from retriever.load.normal import Extract, Unreadable, Writer, fill_pages, normalise, one_line
from retriever.load.wrapping import unwrap

__all__ = ["NotText", "decode", "read"]

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_TITLE_LENGTH = 120
# More control characters than this share, and it is no text: a terminal log with a few escapes still is.
_MAX_CONTROLS = 0.05
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


class NotText(Unreadable):
    """The bytes are not text in an encoding that can be told."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, way_out="Save it as UTF-8 text if it is one.")


def decode(data: bytes, declared: str | None = None) -> str:
    """Return `data` as text.

    A byte order mark decides; else UTF-8 if the bytes are valid; else what the file declares; else Windows-1252, which
    no detector told better for German and English (docs/log.md).

    Args:
        data: a whole file.
        declared: the encoding that the file names itself, if any.

    Raises:
        NotText: for binary data, and for text that no encoding fits.
    """
    text = _by_mark(data)
    if text is None:
        if b"\0" in data:
            raise NotText("it is binary, not text")
        text = _by_bytes(data, declared)
    if len(_CONTROLS.findall(text)) > _MAX_CONTROLS * len(text):
        raise NotText("it is binary, not text")
    return text


def _by_mark(data: bytes) -> str | None:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    return None


def _by_bytes(data: bytes, declared: str | None) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    # A few damaged bytes in a UTF-8 file must not turn all its umlauts into gibberish.
    if sum(character > "\x7f" for character in text) > 3 * damaged:
        return text
    return _decode(data, declared) or _decode(data, "cp1252") or _refuse()


def _decode(data: bytes, name: str | None) -> str | None:
    # Browsers read these names as Windows-1252, and files are written for browsers.
    if name and name.lower() in {"iso-8859-1", "latin-1", "latin1", "ascii", "us-ascii"}:
        name = "cp1252"
    try:
        return data.decode(name) if name else None
    except (LookupError, ValueError):  # UnicodeDecodeError is a ValueError; unknown names are LookupErrors
        return None


def _refuse() -> str:
    raise NotText("it is no text in UTF-8, UTF-16 or Windows-1252")


def read(data: bytes) -> Extract:
    r"""Read plain text; form feeds are page breaks, and only with them there are pages.

    >>> read(b"eins\fzwei").pages
    (0, 6)
    """
    sheets = decode(data).split("\f")
    writer = Writer()
    starts: list[int | None] = []
    for sheet in sheets:
        text = unwrap(normalise(sheet))
        starts.append(writer.add(text) if text else None)
    text = writer.text()
    first = one_line(text[: 4 * _TITLE_LENGTH].partition("\n")[0])
    pages = fill_pages(starts, len(writer)) if len(sheets) > 1 else ()
    return Extract(text, pages=pages, title=first if 0 < len(first) <= _TITLE_LENGTH else None)
