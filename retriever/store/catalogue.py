"""What a list of the documents says of each one, read without their texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from retriever.store.database import Database

__all__ = ["Catalogue", "Listed"]


class Listed(NamedTuple):
    """A current document, as lists show it.

    Attributes:
        revision: its version.
        kind: with `folder`, `name` and `date`, of its metadata; empty if that does not have it.
        pages: 0 for kinds without pages.
        characters: length of its text.
    """

    revision: int
    title: str
    document: str
    source: str
    language: str
    kind: str
    folder: str
    name: str
    date: str
    pages: int
    characters: int


class Catalogue(Database):
    """The store's list of documents; see `Store`."""

    def listed(self, document: str | None = None) -> list[Listed]:
        """Return all current documents, in no order; or only the one of that id."""
        # Word for word the expressions of that index: any other would be computed from the document, and so read all of it.
        one = "WHERE retired IS NULL AND document = ?"
        every = "INDEXED BY documents_listed WHERE retired IS NULL"
        rows = self._read(
            "SELECT revision, title, document, source, language, json_extract(metadata, '$.kind'), "
            "json_extract(metadata, '$.folder'), json_extract(metadata, '$.name'), json_extract(metadata, '$.date'), "
            f"json_array_length(pages), length(text) FROM documents {every if document is None else one}",
            () if document is None else (document,),
        )
        return [Listed(*row[:5], *(value or "" for value in row[5:9]), *row[9:]) for row in rows]

    def chunk_numbers(self, versions: Sequence[int]) -> dict[int, int]:
        """Return into how many chunks each of these versions was cut, when it was cut last."""
        rows = self._read(
            "SELECT revision, count(*) FROM chunks WHERE revision IN (SELECT value FROM json_each(?)) "
            "GROUP BY revision, chunking ORDER BY max(id)",
            (json.dumps(versions),),
        )
        return {revision: chunks for revision, chunks in rows}  # noqa: C416 - rows are tuples of anything

    def source_of(self, document: str) -> str | None:
        """Return what a document came by, also of one that was removed; None if it has never been there."""
        rows = self._read("SELECT source FROM documents WHERE document = ? ORDER BY revision DESC LIMIT 1", (document,))
        return next((str(source) for (source,) in rows), None)
