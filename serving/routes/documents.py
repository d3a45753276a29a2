"""`/v1/documents`: what is indexed, its texts and files, and how people add and remove files."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from retriever.load import source_of
from retriever.picture import WIDTHS
from retriever.schema import document_id
from serving.document_payloads import (
    DocumentPayload,
    DocumentsPayload,
    RemovedPayload,
    TextPayload,
    UploadedPayload,
    document_payload,
    documents_payload,
    text_payload,
)
from serving.documents import Documents, Sort
from serving.errors import UploadsOff
from serving.jobs.jobs import Jobs
from serving.jobs.kinds import IndexArguments, RemoveArguments
from serving.problems import problem_responses
from serving.uploads import Kept

__all__ = ["UPLOADS", "documents_router"]

UPLOADS = "/v1/documents/"
"""What the paths begin with to which files are put."""

_BLOCK = 1 << 20

_Id = Annotated[str, Path(max_length=100)]
_Offset = Annotated[int, Query(ge=0, lt=1 << 53)]
_Filter = Annotated[str | None, Query(max_length=1000)]

_OFFICE = "application/vnd.openxmlformats-officedocument."
_TYPES = {
    "pdf": "application/pdf",
    "html": "text/html",
    "markdown": "text/markdown",
    "text": "text/plain",
    "csv": "text/csv",
    "rtf": "application/rtf",
    "email": "message/rfc822",
    "docx": f"{_OFFICE}wordprocessingml.document",
    "xlsx": f"{_OFFICE}spreadsheetml.sheet",
    "pptx": f"{_OFFICE}presentationml.presentation",
    "odt": "application/vnd.oasis.opendocument.text",
}
"""Media type of each kind; any other is just bytes."""

_FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file's bytes.", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
}
_PICTURE: dict[int | str, dict[str, Any]] = {200: {"description": "The page.", "content": {"image/png": {}}}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def documents_router(documents: Documents, jobs: Jobs, *, changes: bool) -> APIRouter:
    """Return the routes of documents.

    Args:
        changes: whether files may be added and documents removed.
    """
    router = APIRouter(prefix="/v1/documents", tags=["documents"])

    # Not `async`: the framework runs them in its pool of threads, as they wait for the disk.
    @router.get("", summary="List documents", responses=problem_responses(422, 500, 503))
    def listing(
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        offset: Annotated[int, Query(ge=0, lt=1 << 53)] = 0,
        query: Annotated[str, Query(max_length=1000, description="Words of the title, name or folder.")] = "",
        sort: Sort = "title",
        kind: _Filter = None,
        language: _Filter = None,
        folder: _Filter = None,
    ) -> DocumentsPayload:
        only = {"kind": kind, "language": language, "folder": folder}
        return documents_payload(documents.page(limit=limit, offset=offset, query=query, sort=sort, only=only))

    @router.get("/{document}", summary="Show a document", responses=problem_responses(404, 422, 500, 503))
    def show(document: _Id) -> DocumentPayload:
        return document_payload(documents.entry(document), documents.get(document))

    @router.get(
        "/{document}/text",
        summary="Read a document's text",
        description="At most 200,000 characters at once: go on from the `end` that comes back.",
        responses=problem_responses(404, 422, 500, 503),
    )
    def text(document: _Id, start: _Offset = 0, end: _Offset | None = None) -> TextPayload:
        return text_payload(documents.get(document), start, end)

    @router.get(
        "/{document}/file",
        summary="Get a document's file, as it was indexed",
        response_class=FileResponse,
        responses=_FILE | problem_responses(404, 409, 422, 500, 503),
    )
    def file(document: _Id) -> FileResponse:
        found, path = documents.file(document)
        kind = found.metadata.get("kind", "")
        return FileResponse(
            path,
            media_type=_TYPES.get(kind, "application/octet-stream"),
            filename=found.metadata.get("name") or path.name,
            # A file is anybody's: nothing of it may run as a page of this server.
            content_disposition_type="inline" if kind == "pdf" else "attachment",
            headers={"ETag": f'"{found.content_hash}"', "Content-Security-Policy": "sandbox; default-src 'none'"},
        )

    @router.get(
        "/{document}/pages/{page}.png",
        summary="See a page of a PDF as it is printed",
        description="What stands from `start` to `end` in the document's text is marked.",
        response_class=Response,
        responses=_PICTURE | problem_responses(404, 409, 422, 500, 503),
    )
    def picture(
        document: _Id,
        page: Annotated[int, Path(ge=1, lt=1 << 31)],
        start: _Offset | None = None,
        end: _Offset | None = None,
        width: Annotated[int, Query(ge=WIDTHS.start, lt=WIDTHS.stop)] = 1000,
    ) -> Response:
        return Response(documents.picture(document, page, start=start, end=end, width=width), media_type="image/png")

    @router.put(
        "/{path:path}",
        status_code=202,
        summary="Add a file, or replace it",
        description="The body is the file. Once this is answered the file is kept; a job makes it searchable, and tells "
        "whether it can be read.",
        openapi_extra=_BODY,
        responses=problem_responses(403, 413, 415, 422, 500, 503, 507),
    )
    async def add(path: str, request: Request) -> UploadedPayload:
        _check(changes)
        # Before anything is sent: a file for which there is no job would lie there unread.
        await run_in_threadpool(jobs.check)
        kept = await _received(documents, path, request)
        source = source_of(kept.path)
        job = await run_in_threadpool(jobs.start, "index", IndexArguments(paths=[str(kept.path)]))
        return UploadedPayload(
            name=kept.path.name,
            path=kept.name,
            bytes=kept.size,
            replaced=kept.replaced,
            document=document_id(source),
            job=job.id,
        )

    @router.delete(
        "/{document}",
        status_code=202,
        summary="Remove a document",
        description="An uploaded file is deleted, any other is kept. A job takes the document out of what is searched.",
        responses=problem_responses(403, 404, 422, 500, 503, 507),
    )
    def remove(document: _Id) -> RemovedPayload:
        _check(changes)
        source = documents.source(document)
        jobs.check()
        # The file first: if this process is killed before the job stands, the document is still listed, to be removed again.
        deleted = documents.uploads.delete(source)
        job = jobs.start("remove", RemoveArguments(documents=[document]))
        return RemovedPayload(document=document, job=job.id, file="deleted" if deleted else "kept")

    return router


async def _received(documents: Documents, name: str, request: Request) -> Kept:
    """Write the body to the disk as it comes, in pieces that do not hold up others.

    Raises:
        ClientDisconnect: the client went away in the middle of it; nothing is left.
        UploadRefused, UploadNotKept: see `Uploads`.
    """
    upload = await run_in_threadpool(documents.uploads.begin, name)
    try:
        waiting = bytearray()
        async for piece in request.stream():
            waiting += piece
            if len(waiting) >= _BLOCK:
                await run_in_threadpool(upload.write, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(upload.write, bytes(waiting))
        return await run_in_threadpool(upload.keep)
    finally:
        upload.close()


def _check(changes: bool) -> None:
    if not changes:
        raise UploadsOff(
            "Files cannot be added here, nor documents removed.",
            way_out="The settings `uploads` and `jobs` must both be true on the server that owns the store.",
        )
