"""Tell by its bytes what a file is, whatever its name says. Knows nothing of how files are read."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass

__all__ = ["ENDS", "Signature", "recognise"]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a file's bytes say it is.

    Attributes:
        name: with its article, as in "the file is …".
        suffix: that its name should have, if it is of a kind that is read.
        way_out: what its owner can do about a file that is not read.
        locked: whether it is what its name says, behind a password.
    """

    name: str
    suffix: str = ""
    way_out: str = ""
    locked: bool = False


_IMAGE = "Put the picture into a PDF if it is a scanned page."
_UNPACK = "Unpack it, and index the files in it."
_LEAVE_OUT = "Leave it out: it holds no document."

_HTML = Signature("a web page", ".html")
_PDF = Signature("a PDF", ".pdf")
_STARTS = (
    (b"%PDF-", _PDF),
    (b"{\\rtf", Signature("rich text (RTF)", ".rtf")),
    (b"\x89PNG\r\n\x1a\n", Signature("a PNG image", way_out=_IMAGE)),
    (b"\xff\xd8\xff", Signature("a JPEG image", way_out=_IMAGE)),
    (b"II*\0", Signature("a TIFF image", way_out=_IMAGE)),
    (b"MM\0*", Signature("a TIFF image", way_out=_IMAGE)),
    (b"GIF87a", Signature("a GIF image", way_out=_IMAGE)),
    (b"GIF89a", Signature("a GIF image", way_out=_IMAGE)),
    (b"\x1f\x8b", Signature("a gzip archive", way_out=_UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", Signature("a 7z archive", way_out=_UNPACK)),
    (b"Rar!\x1a\x07", Signature("a RAR archive", way_out=_UNPACK)),
    (b"\x7fELF", Signature("a program", way_out=_LEAVE_OUT)),
    (b"SQLite format 3\0", Signature("an SQLite database", way_out="Export its tables as CSV.")),
)
# How the names of the parts begin that say what an Office container is.
_PARTS = (
    (b"word/document", Signature("a Word document", ".docx")),
    (b"xl/workbook", Signature("an Excel workbook", ".xlsx")),
    (b"ppt/presentation", Signature("a PowerPoint presentation", ".pptx")),
)
# What the first entry of the other ones says, uncompressed.
_MIMETYPES = (
    (b"mimetypeapplication/vnd.oasis.opendocument.text", Signature("an OpenDocument text", ".odt")),
    (
        b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
        Signature("an OpenDocument spreadsheet", way_out="Save it as .xlsx."),
    ),
    (b"mimetypeapplication/vnd.oasis.opendocument.presentation", Signature("OpenDocument slides", way_out="Save it as .pptx.")),
    (b"mimetypeapplication/epub+zip", Signature("an e-book (EPUB)", way_out="Convert it to PDF or HTML.")),
)
_ZIP = Signature("a ZIP archive", way_out=_UNPACK)
# Streams of the older container, by the UTF-16 names in its directory. A locked new document is wrapped in an old container.
_OLE = (
    ("EncryptedPackage", Signature("locked", way_out="Save a copy without one, and index that.", locked=True)),
    ("WordDocument", Signature("a Word document of the old format (.doc)", way_out="Open it in Word and save it as .docx.")),
    (
        "PowerPoint Document",
        Signature("slides of the old format (.ppt)", way_out="Open it in PowerPoint and save it as .pptx."),
    ),
    ("Workbook", Signature("a workbook of the old format (.xls)", way_out="Open it in Excel and save it as .xlsx.")),
    ("__substg1.0_", Signature("an Outlook message (.msg)", way_out="Open it in Outlook and save it as .eml.")),
    ("", Signature("a file of an old Office format", way_out="Open it and save it in a format of today, or as PDF.")),
)
_OLE_MARK = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf\s*)?(?:<\?xml[^>]*>\s*)?(?:<!--.{0,500}?-->\s*)?<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_TAR_MARK, _TAR_AT = b"ustar", 257
_HEAD = 2048

ENDS = 1 << 16
"""So many bytes at the beginning and at the end of a file are enough for most kinds."""


def recognise(data: bytes) -> Signature | None:
    r"""Return what the bytes of a file, or its two ends, say it is, or None where only its name can tell.

    >>> recognise(b"\x89PNG\r\n\x1a\n").name, recognise(b"<!DOCTYPE html><p>").suffix, recognise("Übersicht".encode())
    ('a PNG image', '.html', None)
    """
    if data.startswith(_OLE_MARK):
        return next(found for name, found in _OLE if name.encode("utf-16-le") in data)
    if data.startswith((b"PK\3\4", b"PK\5\6")):
        return _zipped(data)
    if data.startswith(b"MZ") and b"\0" in data[:64]:
        return Signature("a program for Windows", way_out=_LEAVE_OUT)
    if data.startswith(_TAR_MARK, _TAR_AT) and b"\0" in data[:_TAR_AT]:
        return Signature("a tar archive", way_out=_UNPACK)
    head = data[:_HEAD].lstrip()
    if _HTML_START.match(head):
        return _HTML
    return next((found for mark, found in _STARTS if head.startswith(mark)), None)


def _zipped(data: bytes) -> Signature | None:
    ends = data[:ENDS] + data[-ENDS:]
    try:
        names = [name.encode() for name in zipfile.ZipFile(io.BytesIO(data)).namelist()]
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        # Cut off, or the two ends of something larger. Names stand in it as they are, though not only its own: slides may have
        # a workbook in them.
        names = []
    for part, found in _PARTS:
        if any(name.startswith(part) for name in names) or (not names and part in ends):
            return found
    # What was cut off is nobody's archive: whoever reads its kind can say more.
    return next((found for name, found in _MIMETYPES if name in ends), _ZIP if b"PK\5\6" in ends else None)
