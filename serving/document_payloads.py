"""Documents as they go over the wire. `beleg documents … --json` prints the same payloads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from retriever.schema import Document
from serving import examples
from serving.documents import Entry, Page
from serving.payloads import well_formed

__all__ = [
    "DocumentPayload",
    "DocumentsPayload",
    "FacetsPayload",
    "HeadingPayload",
    "ListedPayload",
    "RemovedPayload",
    "TextPayload",
    "UploadedPayload",
    "document_payload",
    "documents_payload",
    "text_payload",
]

_LONGEST_TEXT = 200_000

_Out = Annotated[str, BeforeValidator(well_formed)]


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class ListedPayload(_Payload):
    """A document. `uploaded` says that its file is in Beleg's own folder; `date` and `pages` are null where there are none."""

    document: str
    source: _Out
    title: _Out
    name: _Out
    folder: _Out
    kind: str
    language: str
    date: str | None
    pages: int | None
    chunks: int
    characters: int
    uploaded: bool


class FacetsPayload(_Payload):
    """How many documents there are of each, all of them counted."""

    kind: dict[str, int]
    language: dict[str, int]
    folder: dict[str, int]


class DocumentsPayload(_Payload):
    """Some of the documents; `total` counts all that were asked for."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.DOCUMENTS]})

    documents: list[ListedPayload]
    total: int
    facets: FacetsPayload


class HeadingPayload(_Payload):
    """A heading; `level` 1 is the highest. Offsets count Unicode code points in the document's text, `end` exclusive."""

    level: int
    text: _Out
    start: int
    end: int


class DocumentPayload(ListedPayload):
    """A document, with its headings and all that its file says of itself."""

    headings: list[HeadingPayload]
    metadata: dict[str, str]


class TextPayload(_Payload):
    """A part of a document's text, and where in the whole of it pages and headings begin.

    `length` is that of the whole. Offsets count Unicode code points, `end` is exclusive.
    """

    document: str
    title: _Out
    source: _Out
    kind: str
    start: int
    end: int
    length: int
    text: _Out
    pages: list[int]
    headings: list[HeadingPayload]


class UploadedPayload(_Payload):
    """A file that is kept, and the job that makes it searchable. `document` is the id that it has, or will have."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.UPLOADED]})

    name: str
    path: str
    bytes: int
    replaced: bool
    document: str
    job: str


class RemovedPayload(_Payload):
    """The job that removes a document, and whether its file was deleted.

    A file that was not uploaded is kept; the next `beleg index` of its folder brings the document back.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.REMOVED]})

    document: str
    job: str
    file: Literal["deleted", "kept"]


def documents_payload(page: Page) -> DocumentsPayload:
    """Return a part of the list as it is sent."""
    return DocumentsPayload.model_validate(page)


def document_payload(entry: Entry, document: Document) -> DocumentPayload:
    """Return a document as it is sent."""
    return DocumentPayload(
        **ListedPayload.model_validate(entry).model_dump(),
        headings=_headings(document),
        metadata=dict(document.metadata),
    )


def text_payload(document: Document, start: int, end: int | None) -> TextPayload:
    """Return the text from `start` to `end`, brought within the document and within what is sent at once."""
    length = len(document.text)
    start = min(start, length)
    end = min(length if end is None else max(start, end), length, start + _LONGEST_TEXT)
    return TextPayload(
        document=document.id,
        title=document.title,
        source=document.source,
        kind=document.metadata.get("kind", ""),
        start=start,
        end=end,
        length=length,
        text=document.text[start:end],
        pages=list(document.pages),
        headings=_headings(document),
    )


def _headings(document: Document) -> list[HeadingPayload]:
    return [HeadingPayload.model_validate(heading) for heading in document.headings]
