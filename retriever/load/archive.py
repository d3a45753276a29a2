"""Open the ZIP container of an Office file, and refuse one that could harm the library which reads it.

Knows nothing of what is in it, nor of how it is read.
"""

from __future__ import annotations

import copy
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.parsers import expat

from retriever.load.normal import Unreadable

__all__ = ["open_office", "parse_xml", "refusing"]

# A parsed tree takes up to twenty times its XML: more than this is more than a worker may hold anyway.
_MAX_BYTES = 512 << 20
# Deflate makes zeros a thousand times smaller. A sheet of empty formatted rows gets to fifty.
_MAX_RATIO = 200
_HARMLESS = 32 << 20  # whatever the ratio
_MAX_MEMBERS = 50_000
_BLOCK = 1 << 16
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, NotImplementedError)


def open_office(data: bytes) -> zipfile.ZipFile:
    """Return the container of an Office file, all of whose members were found harmless.

    Every member was unpacked once, in pieces: none holds more than its header says, all together stay within bounds, and
    no XML comes with a DTD.

    Raises:
        Unreadable: for an encrypted, damaged or malicious one.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        _check_directory(archive)
        room = min(_MAX_BYTES, max(_HARMLESS, _MAX_RATIO * len(data)))
        for info in archive.infolist():
            room -= _unpack(archive, info, room)
    except Unreadable:
        raise
    except _BROKEN_ZIP as error:
        raise Unreadable(
            f"the file is damaged or not complete ({error})", way_out="Fetch it again, or open it and save it anew."
        ) from error
    return archive


def parse_xml(data: bytes) -> Any:
    """Return the root element of an Office file's member; entities stay unresolved and nothing outside is read."""
    from lxml import etree

    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))


@contextmanager
def refusing(program: str) -> Iterator[None]:
    """Raise `Unreadable` in place of whatever a library makes of a file that it does not understand.

    Args:
        program: what the owner of the file would open it with.
    """
    try:
        yield
    except (Unreadable, MemoryError):
        raise
    except RecursionError as error:
        raise Unreadable("it is nested too deeply", way_out=f"Open it in {program} and save it anew.") from error
    except Exception as error:
        # These libraries document no errors: a part that is missing or malformed ends in whatever came first.
        raise Unreadable(
            f"the file is damaged ({type(error).__name__}: {error})", way_out=f"Open it in {program} and save it anew."
        ) from error


def _bomb(why: str) -> Unreadable:
    return Unreadable(f"it looks made to bring its reader down: {why}", way_out="If it is what it should be, split it.")


def _check_directory(archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise _bomb(f"it has {len(members):,} members")
    for info in members:
        if info.flag_bits & _ENCRYPTED:
            raise Unreadable("the file needs a password", way_out="Save a copy without one, and index that.")
        if info.compress_type not in _METHODS:
            raise Unreadable("it is packed in a way that Office does not use", way_out="Open it and save it anew.")


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, room: int) -> int:
    """Return how many bytes a member holds in truth, having looked at all of them."""
    # zipfile stops at the size that the header claims, but only after having unpacked everything: it must not know it.
    open_ended = copy.copy(info)
    open_ended.file_size = room + 2 * _BLOCK
    doctype = _DoctypeCheck()
    size = 0
    with archive.open(open_ended) as member:
        while block := member.read(_BLOCK):
            size += len(block)
            if size > room:
                raise _bomb("unpacked it is many times larger than it may be")
            doctype.feed(block)
    if size != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename} is not as long as it should be")
    return size


class _DoctypeCheck:
    """Reads the beginning of an XML file and refuses one with a DTD written out in it; what is no XML is let through."""

    def __init__(self) -> None:
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._root
        self._written_out = False
        self._done = False

    def feed(self, block: bytes) -> None:
        """Look at what comes next, until the root element has begun."""
        try:
            if not self._done:
                self._parser.Parse(block, False)
        except (expat.ExpatError, LookupError):  # the latter for an encoding that nobody knows
            self._done = True

    def _doctype(self, *declaration: object) -> None:
        # Old OpenOffice files name a DTD in their manifest, which is never loaded; one that stands there declares entities.
        self._written_out = bool(declaration[-1])

    def _root(self, name: str, _: object) -> None:
        # Drawing programs do write one into the pictures that people put into documents, and nobody reads those.
        if self._written_out and name.rpartition(":")[2] != "svg":
            raise _bomb("its XML has a DTD, which no Office program writes")
        self._done = True
