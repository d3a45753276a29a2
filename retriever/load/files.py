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
from retriever.load import html, markdown, pdf, text
from retriever.load.normal import Extract, Unreadable, one_line
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
}
"""Suffix, lower case, to the kind of file that it says."""

_READERS: Mapping[str, Callable[[bytes], Extract]] = {
    "pdf": pdf.read,
    "html": html.read,
    "markdown": markdown.read,
    "text": text.read,
}
"""What reads each kind, raising `Unreadable` for a file that it cannot; heavy parsers are imported when first needed."""

_BLOCK = 1 << 20


def discover(paths: Sequence[Path]) -> list[Path | LoadError]:
    """Return the files at and below `paths`, sorted within each folder, each file once.

    Hidden files and folders are skipped unless named in `paths`. Links are followed; a folder is visited once, so links
    in a circle end. A path that is missing or a folder that cannot be listed yields a `LoadError` in its place.
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
        if not name.startswith("."):
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


def load(path: Path, *, source: str | None = None, max_bytes: int) -> Document:
    """Return the file at `path` as a document.

    Args:
        path: of a regular file; its suffix says what kind it is.
        source: what the document is known by; the resolved absolute path by default.
        max_bytes: a larger file is refused before it is read.

    Raises:
        LoadError: if the file cannot become a document; nothing else is raised for what is in a file.
    """
    # Another program's name may hold lone surrogates, which no store takes.
    source = source_of(path) if source is None else _clean(source)
    kind = KINDS.get(path.suffix.lower())
    try:
        _check_regular(path, source)
        if kind is None:
            known = ", ".join(sorted(KINDS))
            raise LoadError(source, f"files of kind '{_clean(path.suffix)}' are not read", way_out=f"Known kinds: {known}.")
        data = _read(path, source, max_bytes)
    except OSError as error:
        raise _unreadable(source, error) from error
    if not data:
        raise LoadError(source, "the file is empty")
    extract = _extract(data, kind, source)
    if not extract.text.strip():
        raise _no_text(kind, source)
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
        metadata={**own, "kind": kind, "folder": _clean(Path(os.path.realpath(path)).parent.name), "name": name},
    )


def path_title(name: str) -> str:
    """Return a file's name as a title.

    >>> path_title("reisekosten_2024.txt")
    'reisekosten_2024'
    """
    return one_line(Path(name).stem) or name


def _clean(text: str) -> str:
    return os.fsencode(text).decode("utf-8", "replace")


def _check_regular(path: Path, source: str) -> None:
    # Before opening: to open a pipe waits for a writer, and to open a device may do something.
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise LoadError(source, "this is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise LoadError(source, "this is no regular file, but a pipe, socket or device")


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


def _extract(data: bytes, kind: str, source: str) -> Extract:
    is_pdf = pdf.is_pdf(data)
    if is_pdf and kind != "pdf" and data.lstrip().startswith(b"%PDF-"):
        raise LoadError(source, "the file is a PDF, its name says otherwise", way_out="Rename it to end in .pdf.")
    if kind == "pdf" and not is_pdf:
        raise LoadError(source, "the file is no PDF, its name says otherwise", way_out="Rename it, or export it again.")
    try:
        return _READERS[kind](data)
    except Unreadable as error:
        raise LoadError(source, error.reason, way_out=error.way_out) from error
    except (ValueError, LookupError, RecursionError, MemoryError) as error:
        # The parsers are other people's, and files are anybody's: whatever a file makes them raise ends that file only.
        raise LoadError(source, f"it could not be parsed ({type(error).__name__}: {error})") from error


def _no_text(kind: str, source: str) -> LoadError:
    if kind == "pdf":
        return LoadError(
            source, "the PDF holds no text, only images, it seems", way_out="Run text recognition (OCR) over it first."
        )
    return LoadError(source, "the file holds no text")


def _unreadable(source: str, error: OSError) -> LoadError:
    if isinstance(error, FileNotFoundError):
        return LoadError(source, "there is no such file or folder")
    if isinstance(error, PermissionError):
        return LoadError(source, "no permission to read it", way_out="Let this user read it.")
    return LoadError(source, f"it cannot be read ({error.strerror or error})")
