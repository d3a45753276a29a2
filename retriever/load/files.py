"""Find files, and make one file a document or say why it cannot be one.

Knows which reader takes which kind of file; knows nothing of how they read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from retriever.errors import LoadError
from retriever.load import docx, html, mail, markdown, odt, pdf, pptx, rtf, table, text, xlsx
from retriever.load.dates import iso_date, iso_day
from retriever.load.normal import Extract, Unreadable, one_line
from retriever.load.ocr import LANGUAGES
from retriever.load.signature import ENDS, Signature, recognise
from retriever.schema import Document, document_id

__all__ = ["KINDS", "content_hash", "discover", "load"]

KINDS = {
    ".pdf": "pdf",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".csv": "csv",
    ".tsv": "csv",
    ".rtf": "rtf",
    ".eml": "email",
    ".docx": "docx",
    ".docm": "docx",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".pptx": "pptx",
    ".pptm": "pptx",
    ".odt": "odt",
}
"""Suffix, lower case, to the kind of file that it says."""

_READERS: Mapping[str, Callable[[bytes], Extract]] = {
    "html": html.read,
    "markdown": markdown.read,
    "text": text.read,
    "csv": table.read,
    "rtf": rtf.read,
    "email": mail.read,
    "docx": docx.read,
    "xlsx": xlsx.read,
    "pptx": pptx.read,
    "odt": odt.read,
}
"""What reads each kind but PDF, or raises `Unreadable`; heavy parsers are imported when first needed."""

# Their bytes may be about anything, a web page's source too.
_ABOUT_ANYTHING = frozenset(("html", "markdown", "text"))
_SAVE_ANEW = "Open the file in the program that made it and save it anew, or as PDF."
_BLOCK = 1 << 20


def discover(paths: Sequence[Path]) -> list[Path | LoadError]:
    """Return the files at and below `paths`, sorted within each folder, each file once.

    Hidden files and folders, and the marks of open Office files, are skipped unless named in `paths`. Links are followed; a
    folder is visited once, so links in a circle end. A path that is missing or a folder that cannot be listed yields a
    `LoadError` in its place.
    """
    found: list[Path | LoadError] = []
    seen: set[str] = set()
    for path in paths:
        for item in _below(path, set()):
            key = item.source if isinstance(item, LoadError) else os.path.realpath(item)
            if key not in seen:
                seen.add(key)
                found.append(item)
    return found


def _below(path: Path, visited: set[tuple[int, int]]) -> Iterator[Path | LoadError]:
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            yield path
            return
        if (status.st_dev, status.st_ino) in visited:
            return
        visited.add((status.st_dev, status.st_ino))
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        yield _unreadable(source_of(path), error)
        return
    for name in names:
        if not name.startswith((".", "~$")):  # Word and Excel leave "~$…" beside what they have open
            yield from _below(path / name, visited)


def source_of(path: Path) -> str:
    """Return what a file is known by: its resolved absolute path, with bytes that are no UTF-8 replaced."""
    return _clean(Path(os.path.realpath(path)).as_posix())


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal, without holding the file in memory.

    Raises:
        LoadError: if it cannot be read.
    """
    try:
        _check_regular(path, source_of(path))
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise _unreadable(source_of(path), error) from error
    return digest.hexdigest()


def load(path: Path, *, source: str | None = None, max_bytes: int, ocr: str = LANGUAGES) -> Document:
    """Return the file at `path` as a document.

    Args:
        path: of a regular file; its suffix says what kind it is.
        source: what the document is known by; the resolved absolute path by default.
        max_bytes: a larger file is refused before it is read.
        ocr: languages in which scanned pages are recognised, see `retriever.load.ocr`; empty does not.

    Raises:
        LoadError: if the file cannot become a document; nothing else is raised for what is in a file.
    """
    # Another program's name may hold lone surrogates, which no store takes.
    source = source_of(path) if source is None else _clean(source)
    suffix = _clean(path.suffix.lower())
    try:
        status = _check_regular(path, source)
        kind = KINDS.get(suffix)
        if kind is None:
            raise _refusal(path, suffix, source)
        data = _read(path, source, max_bytes)
    except OSError as error:
        raise _unreadable(source, error) from error
    if not data:
        raise LoadError(source, "the file is empty", way_out="Leave it out, or see where its content went.")
    _check_content(data, kind, suffix, source)
    extract = _extract(data, kind, source, ocr)
    if not extract.text.strip():
        raise LoadError(source, "the file holds no text", way_out="Leave it out, or save it again with its text.")
    from retriever.load.language import detect

    name = _clean(path.name)
    own = {key: value for key, value in extract.metadata.items() if key}
    return Document(
        id=document_id(source),
        source=source,
        title=extract.title or (extract.headings[0].text if extract.headings else path_title(name)),
        text=extract.text,
        language=detect(extract.text),
        content_hash=hashlib.sha256(data).hexdigest(),
        pages=extract.pages,
        headings=extract.headings,
        metadata={
            **own,
            "date": iso_date(own.get("date", "")) or iso_day(status.st_mtime),
            "kind": kind,
            "folder": _clean(Path(os.path.realpath(path)).parent.name),
            "name": name,
        },
    )


def path_title(name: str) -> str:
    """Return a file's name as a title.

    >>> path_title("reisekosten_2024.txt")
    'reisekosten_2024'
    """
    return one_line(Path(name).stem) or name


def _clean(text: str) -> str:
    return os.fsencode(text).decode("utf-8", "replace")


def _check_regular(path: Path, source: str) -> os.stat_result:
    # Before opening: to open a pipe waits for a writer, and to open a device may do something.
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise LoadError(source, "this is a folder", way_out="Name it to `beleg index`, which reads the files in it.")
    if not stat.S_ISREG(status.st_mode):
        raise LoadError(source, "this is no regular file, but a pipe, socket or device", way_out="Leave it out.")
    return status


def _read(path: Path, source: str, max_bytes: int) -> bytes:
    size = path.stat().st_size
    data = b""
    if size <= max_bytes:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)  # it may have grown since
        size = len(data)
    if size > max_bytes:
        raise LoadError(source, f"the file is larger than {max_bytes:,} bytes", way_out="Raise the limit, or split the file.")
    return data


def _refusal(path: Path, suffix: str, source: str) -> LoadError:
    """Return why a file with a suffix that says no known kind is not read: what it is may say what helps."""
    with path.open("rb") as file:
        ends = file.read(ENDS)
        file.seek(max(len(ends), path.stat().st_size - ENDS))
        found = recognise(ends + file.read(ENDS))
    if found and found.suffix:
        return _misnamed(found, suffix, source)
    way_out = found.way_out if found else f"Known kinds: {', '.join(sorted(KINDS))}."
    named = f"of kind '{suffix}'" if suffix else "whose name has no ending"
    return LoadError(source, f"files {named} are not read", way_out=way_out)


def _misnamed(found: Signature, suffix: str, source: str) -> LoadError:
    if found.locked:
        return LoadError(source, "the file needs a password", way_out=found.way_out)
    says = f"its name says {suffix}" if suffix else "its name has no ending"
    return LoadError(
        source, f"the file is {found.name}, {says}", way_out=found.way_out or f"Rename it to end in {found.suffix}."
    )


def _check_content(data: bytes, kind: str, suffix: str, source: str) -> None:
    """Refuse a file whose bytes say that it is something else than its name does."""
    if kind == "pdf" and pdf.is_pdf(data):
        return
    found = recognise(data)
    actual = KINDS.get(found.suffix) if found else None
    if found and actual != kind and not (actual == "html" and kind in _ABOUT_ANYTHING):
        raise _misnamed(found, suffix, source)
    if kind == "pdf":
        raise LoadError(source, "the file is no PDF, its name says otherwise", way_out="Rename it, or export it again.")


def _extract(data: bytes, kind: str, source: str, ocr: str) -> Extract:
    try:
        return pdf.read(data, ocr) if kind == "pdf" else _READERS[kind](data)
    except Unreadable as error:
        raise LoadError(source, error.reason, way_out=error.way_out) from error
    except (ValueError, LookupError, RecursionError, MemoryError) as error:
        # The parsers are other people's, and files are anybody's: whatever a file makes them raise ends that file only.
        raise LoadError(source, f"it could not be parsed ({type(error).__name__}: {error})", way_out=_SAVE_ANEW) from error


def _unreadable(source: str, error: OSError) -> LoadError:
    if isinstance(error, FileNotFoundError):
        return LoadError(
            source, "there is no such file or folder", way_out="See whether the path is right, and the disk there."
        )
    if isinstance(error, PermissionError):
        return LoadError(source, "no permission to read it", way_out="Let this user read it.")
    return LoadError(
        source, f"it cannot be read ({error.strerror or error})", way_out="See whether its disk is there and well."
    )
