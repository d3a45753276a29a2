"""A server that answers as Beleg does, from canned values that a test changes: slow, cut short, overloaded, full of markup."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from PIL import Image, ImageDraw
from starlette.responses import JSONResponse, Response, StreamingResponse

from serving.ui import ui_router

LINE = "Für Fahrten mit dem eigenen Pkw werden 0,30 Euro je gefahrenem Kilometer erstattet 🚗."
TRAVEL = "\n\n".join(
    [
        "Reisekostenrichtlinie 🧾",
        "Diese Richtlinie regelt, welche Kosten einer Dienstreise erstattet werden. 🧳 Sie gilt seit dem 1. Februar 2025.",
        *(
            f"1.{n} Absatz\n\nJede Dienstreise wird vor ihrem Beginn beantragt, Fall {n}. " + "Das gilt auch hier. " * 12
            for n in range(1, 40)
        ),
        "2.3 Pkw",
        LINE + " Wer weitere dienstlich reisende Personen mitnimmt, erhält je Person und Kilometer zusätzlich 0,02 Euro.",
        *(f"3.{n} Absatz\n\nBelege werden aufbewahrt, Fall {n}. " + "Das gilt auch dort. " * 12 for n in range(1, 40)),
        "Ende der Richtlinie.",
    ]
)
NASTY = '<img src=x onerror="window.hacked=1"> & <script>window.hacked=1</script>'

_UPLOADS_OFF = {"type": "urn:beleg:uploads-off", "detail": "Files cannot be added here, nor documents removed."}


def document(name: str, text: str, **more: Any) -> dict[str, Any]:
    """Return a document as the fake keeps it."""
    kind = name.rpartition(".")[2]
    one = {
        "document": f"{abs(hash(name)):016x}"[:16],
        "source": f"handbuch/{name}",
        "title": more.pop("title", text.split("\n")[0]),
        "name": name,
        "folder": "handbuch",
        "kind": {"md": "markdown", "txt": "text"}.get(kind, kind),
        "language": "de",
        "date": "2025-02-01",
        "pages": None,
        "chunks": 14,
        "characters": len(text),
        "uploaded": False,
    }
    return {**one, **more, "text": text}


def place(of: dict[str, Any], quoted: str, page: int | None = None) -> dict[str, Any]:
    """Return a quote of a document."""
    start = of["text"].index(quoted)
    found = {key: of[key] for key in ("document", "source", "title")}
    return {**found, "page": page, "start": start, "end": start + len(quoted), "text": quoted}


def hit(of: dict[str, Any], text: str, page: int | None = None) -> dict[str, Any]:
    """Return a passage of a document."""
    return {**place(of, text, page), "score": 0.9, "dense": 0.6, "keyword": 8.4, "reranked": None}


@dataclass
class Fake:
    """What the server says; tests change it. `asked`, `said` and `put` are what it was sent.

    Attributes:
        held: it has read the question, sent the tokens, and sends nothing more until this is False.
        ends: how a stream ends: with everything (`done`), an `error`, nothing more (`silent`), or the connection (`cut`).
        overloaded: how many questions are turned away before one is let in.
        unchangeable: it takes no files, and removes none.
    """

    documents: list[dict[str, Any]] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    suggestions: list[dict[str, Any]] = field(default_factory=list)
    held: bool = False
    ends: str = "done"
    overloaded: int = 0
    problem: tuple[int, dict[str, Any]] | None = None
    upload_fails: bool = False
    unchangeable: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)
    put: list[tuple[str, bytes]] = field(default_factory=list)

    @classmethod
    def usual(cls) -> Fake:
        """Return one that proves an answer with two quotes."""
        travel = document("reisekostenrichtlinie.pdf", TRAVEL, title="Reisekostenrichtlinie", pages=4)
        notes = document(
            "notizen.md",
            f"# Notizen\n\n{NASTY}\n\nEin Satz 🎈 mit Zeichen. Belege sind binnen sechs Wochen einzureichen.",
            title=f"Notizen {NASTY}",
        )
        stock = document(
            "ersatzteile.xlsx",
            "Artikel: WB-20417 | Preis: 12,50 €",
            title="Ersatzteile",
            language="und",
            pages=2,
            folder="einkauf",
            date=None,
            uploaded=True,
        )
        slides = document(
            "safety.pptx",
            "Safety at work\n\nWear gloves.",
            title="Safety at work",
            language="en",
            pages=12,
            folder="einkauf",
            date="2024-06-30",
        )
        car = place(travel, LINE, 3)
        weeks = place(notes, "Ein Satz 🎈 mit Zeichen. Belege sind binnen sechs Wochen einzureichen.")
        answer = {
            "answer": "0,30 Euro je gefahrenem Kilometer",
            "abstained": False,
            "reason": None,
            "quotes": [car, weeks],
            "hits": [hit(travel, LINE, 3), hit(notes, NASTY), hit(stock, "WB-20417", 1), hit(slides, "Wear gloves.", 7)],
            "reasoning": "",
            "notes": [],
            "release": "a41be5d2c9f07318",
            "timings": {"search": 0.0121, "read": 3.4077},
            "query": "",
            "cached": False,
        }
        raw = f"Die Richtlinie nennt den Satz.\nPassage 1: ##begin_quote##{LINE}##end_quote##\n<ANSWER>: {answer['answer']}"
        suggestions = [
            {"question": "Was gilt bei einer Dienstreise?", "document": travel["document"], "title": "Reisekostenrichtlinie"},
            {"question": "Which gloves do I wear?", "document": slides["document"], "title": "Safety at work"},
        ]
        return cls([travel, notes, stock, slides], answer, [raw[at : at + 5] for at in range(0, len(raw), 5)], suggestions)

    def abstain(self, reason: str, says: str) -> None:
        """Let it withhold its answer."""
        self.answer = {**self.answer, "answer": says, "abstained": True, "reason": reason, "quotes": []}
        self.tokens = []


def create_app(fake: Fake) -> FastAPI:
    """Return the page, and an API behind it that says what `fake` holds."""
    app = FastAPI()
    app.include_router(ui_router())

    @app.post("/v1/ask")
    async def ask(request: Request) -> Response:
        question = await request.json()
        fake.asked.append(question)
        if fake.problem:
            return _problem(*fake.problem)
        if fake.overloaded:
            fake.overloaded -= 1
            return _problem(503, {"type": "urn:beleg:overloaded", "detail": "8 questions wait."}, {"Retry-After": "2"})
        return StreamingResponse(_events(fake, question), media_type="text/event-stream")

    @app.post("/v1/feedback", status_code=201)
    async def feedback(request: Request) -> dict[str, str]:
        fake.said.append(await request.json())
        return {"time": "2026-11-21T15:30:12Z"}

    @app.get("/v1/suggestions")
    async def suggestions() -> dict[str, Any]:
        return {"questions": fake.suggestions}

    @app.get("/readyz")
    async def readyz() -> Response:
        missing = {"type": "urn:beleg:index-missing", "detail": "Nothing has been indexed yet."}
        return JSONResponse({"status": "ok"}) if fake.documents else _problem(503, missing)

    @app.get("/v1/documents")
    async def listing(
        query: str = "",
        kind: str = "",
        language: str = "",
        folder: str = "",
        sort: str = "title",
        limit: int = 50,
        offset: int = 0,
    ) -> dict[str, Any]:
        wanted = {"kind": kind, "language": language, "folder": folder}
        found = [one for one in fake.documents if all(value in ("", one[key]) for key, value in wanted.items())]
        found = [one for one in found if query.casefold() in f"{one['title']} {one['source']}".casefold()]
        found.sort(key=lambda one: str(one.get(sort.lstrip("-")) or ""), reverse=sort.startswith("-"))
        facets: dict[str, dict[str, int]] = {key: {} for key in wanted}
        for one in fake.documents:
            for key in wanted:
                facets[key][one[key]] = facets[key].get(one[key], 0) + 1
        return {"documents": [_shown(one) for one in found[offset : offset + limit]], "total": len(found), "facets": facets}

    @app.get("/v1/documents/{key}")
    async def one(key: str) -> Response:
        found = _find(fake, key)
        return JSONResponse({**_shown(found), "headings": _headings(found), "metadata": {}}) if found else _gone()

    @app.get("/v1/documents/{key}/text")
    async def text(key: str, start: int = 0, end: int = 10**9) -> Response:
        found = _find(fake, key)
        if not found:
            return _gone()
        whole = found["text"]
        end = min(end, len(whole))
        pages = [len(whole) * n // found["pages"] for n in range(found["pages"])] if found["kind"] == "pdf" else []
        about = {key: found[key] for key in ("document", "title", "source", "kind")}
        return JSONResponse(
            {
                **about,
                "start": start,
                "end": end,
                "length": len(whole),
                "text": whole[start:end],
                "pages": pages,
                "headings": _headings(found),
            }
        )

    @app.get("/v1/documents/{key}/pages/{page}.png")
    async def picture(key: str, page: int, width: int = 1000) -> Response:
        drawn = Image.new("RGB", (width, width * 14 // 10), "white")
        pen = ImageDraw.Draw(drawn)
        for row in range(40):
            pen.rectangle(
                (
                    width // 10,
                    width // 10 + row * width // 33,
                    width * 9 // 10 - (row % 5) * width // 20,
                    width // 10 + row * width // 33 + width // 90,
                ),
                fill="#d8d8d8" if row != 12 else "#ffd84d",
            )
        data = io.BytesIO()
        drawn.save(data, "PNG")
        return Response(data.getvalue(), media_type="image/png")

    @app.put("/v1/documents/{path:path}", status_code=202)
    async def put(path: str, request: Request) -> Response:
        if fake.unchangeable:
            return _problem(403, _UPLOADS_OFF)
        fake.put.append((path, await request.body()))
        if path.endswith(".exe"):
            return _problem(
                415,
                {
                    "type": "urn:beleg:kind",
                    "detail": "Files of the kind .exe are not read.",
                    "way_out": "Read are .pdf, .docx, .md.",
                },
            )
        kept = document(path, "Neu\n\nText.", title=path, uploaded=True, pages=2 if path.endswith(".pdf") else None)
        if not fake.upload_fails:
            fake.documents.append(kept)
        about = {"name": kept["name"], "path": path, "document": kept["document"]}
        accepted = {**about, "bytes": 4, "replaced": False, "job": "index-1"}
        return JSONResponse(accepted, 202)

    @app.delete("/v1/documents/{key}", status_code=202)
    async def delete(key: str) -> Response:
        if fake.unchangeable:
            return _problem(403, _UPLOADS_OFF)
        fake.documents = [one for one in fake.documents if one["document"] != key]
        return JSONResponse({"document": key, "job": "forget-1", "file": "deleted"}, 202)

    @app.get("/v1/jobs/{job}")
    async def job(job: str) -> dict[str, Any]:
        return {"id": job, "status": "done", "error": None}

    @app.get("/v1/jobs/{job}/documents")
    async def outcomes(job: str) -> dict[str, Any]:
        failed = {"status": "failed", "reason": "The PDF is encrypted.", "way_out": "Save it without a password."}
        added = {"status": "added", "reason": "", "way_out": ""}
        done = [{"source": f"handbuch/{path}", "chunks": 3, **(failed if fake.upload_fails else added)} for path, _ in fake.put]
        return {"documents": done, "total": len(done)}

    return app


async def _events(fake: Fake, question: dict[str, Any]) -> AsyncIterator[bytes]:
    answer = {**fake.answer, "query": fake.answer["query"] or question["question"]}
    yield _event("hits", {"hits": answer["hits"]})
    for token in fake.tokens:
        yield _event("token", {"text": token})
    while fake.held:
        await asyncio.sleep(0.02)
    if fake.ends == "silent":
        return
    if fake.ends == "cut":
        # Less than the chunked encoding promised: what a browser sees when a server dies.
        raise ConnectionResetError
    if fake.ends == "error":
        yield _event(
            "error", {"type": "urn:beleg:engine", "status": 502, "detail": "The model failed.", "way_out": "Look at the log."}
        )
        return
    for quote in answer["quotes"]:
        yield _event("quote", quote)
    yield _event("answer", answer)
    yield _event("done", {})


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _problem(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"title": "", "status": status, "way_out": "", **body}, status, headers)


def _gone() -> Response:
    return _problem(404, {"type": "urn:beleg:document-missing", "detail": "There is no such document."})


def _find(fake: Fake, key: str) -> dict[str, Any] | None:
    return next((one for one in fake.documents if one["document"] == key), None)


def _shown(one: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key != "text"}


def _headings(one: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    at = 0
    for line in one["text"].split("\n"):
        if line and (at == 0 or line[0].isdigit()):
            found.append({"level": 1 if at == 0 else 2, "text": line, "start": at, "end": at + len(line)})
        at += len(line) + 1
    return found


@contextlib.contextmanager
def serving(fake: Fake, port: int = 0) -> Iterator[str]:
    """Serve the fake on this machine; yields its address."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()
        config = uvicorn.Config(create_app(fake), log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
