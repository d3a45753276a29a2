"""What is indexed, as it is listed, read and seen over HTTP; files are only given as they were indexed, and run nowhere."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest

from reader.errors import Overloaded
from retriever.errors import LoadError
from retriever.load import content_hash, load
from retriever.schema import Chunk, Document, document_id
from retriever.settings import Settings
from retriever.store import IndexedChunk, Store
from serving import examples
from serving.document_payloads import DocumentsPayload, RemovedPayload, UploadedPayload
from serving.documents import Documents

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook"
MARKUP = "<img src=x onerror=alert(1)>\"'.html"
NOTES = "# Ärger 🧾 mit Übersichten\n\nDie Maße stehen hier. 🧾 Sie gelten.\n\n## Zweitens\n\nEnde."


def put(store: Store, document: Document, chunks: int = 1) -> None:
    pieces = [IndexedChunk(Chunk(document.id, 0, 4, document.text[:4]), ("x",), f"{document.id} {at}") for at in range(chunks)]
    vectors = {piece.key: np.ones(2, np.float32) for piece in pieces}
    store.put(document, pieces, loader="1", chunking="c", encoder="e", vectors=vectors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with four documents, and their files beside it."""
    root = tmp_path_factory.mktemp("documents")
    files = root / "files"
    files.mkdir()
    (files / "Prüfung & Maße.md").write_text(NOTES, encoding="utf-8")
    (files / MARKUP).write_text("<title>Zoo &lt;script&gt;</title><script>alert(1)</script><p>Tiere.", encoding="utf-8")
    shutil.copy(HANDBOOK / "reisekostenrichtlinie.pdf", files / "reise.pdf")
    uploaded = root / "data" / "uploads" / "hr" / "plan.txt"
    uploaded.parent.mkdir(parents=True)
    uploaded.write_text("Plan\n\nEs bleibt alles, wie es ist.", encoding="utf-8")
    dates = {"reise.pdf": "2024-03-01", "plan.txt": "2025-06-30", MARKUP: ""}
    with Store(root / "data") as store:
        for number, path in enumerate([*sorted(files.iterdir()), uploaded], start=1):
            loaded = load(path, max_bytes=1 << 24)
            date = dates.get(path.name, "2023-01-01")
            metadata = {**loaded.metadata, "date": date} if date else {k: v for k, v in loaded.metadata.items() if k != "date"}
            put(store, replace(loaded, metadata=metadata), chunks=number)
    return root


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[Store]:
    with Store(folder / "data") as opened:
        yield opened


@pytest.fixture(scope="module")
def client(serving: Callable[..., Any], folder: Path) -> Iterator[httpx.Client]:
    with serving(settings=Settings(data_dir=folder / "data")) as running:
        yield running.client


@pytest.fixture
def ids(store: Store) -> dict[str, str]:
    return {item.name: item.document for item in store.listed()}


def names(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["name"] for item in response.json()["documents"]]


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.json()["type"] == f"urn:beleg:{slug}"
    return dict(response.json())


# -- lists ------------------------------------------------------------------------------------------------------------


def test_all_documents(client: httpx.Client, folder: Path) -> None:
    found = client.get("/v1/documents").json()
    # As a person sorts them: Ä stands with A.
    assert [item["title"] for item in found["documents"]] == [
        "Ärger 🧾 mit Übersichten",
        "Plan",
        "Reisekostenrichtlinie",
        "Zoo <script>",
    ]
    assert found["total"] == 4
    assert found["facets"]["kind"] == {"markdown": 1, "html": 1, "pdf": 1, "text": 1}
    assert found["facets"]["folder"] == {"files": 3, "hr": 1}
    assert set(found["facets"]["language"]) >= {"de"}
    plan = found["documents"][1]
    assert plan == {
        "document": plan["document"],
        "source": str(folder.resolve() / "data/uploads/hr/plan.txt"),
        "title": "Plan",
        "name": "plan.txt",
        "folder": "hr",
        "kind": "text",
        "language": "de",
        "date": "2025-06-30",
        "pages": None,
        "chunks": 4,
        "characters": 34,
        "uploaded": True,
    }
    reise = found["documents"][2]
    assert (reise["kind"], reise["uploaded"], reise["date"]) == ("pdf", False, "2024-03-01")
    assert reise["pages"] > 1


def test_a_part_of_the_list(client: httpx.Client) -> None:
    everything = names(client.get("/v1/documents"))
    assert names(client.get("/v1/documents?limit=2")) == everything[:2]
    page = client.get("/v1/documents?limit=2&offset=3&kind=").json()
    assert (page["documents"], page["total"]) == ([], 0)
    page = client.get("/v1/documents?limit=2&offset=3").json()
    assert (len(page["documents"]), page["total"]) == (1, 4)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("ubersicht", ["Prüfung & Maße.md"]),
        ("ÜBERSICHT", ["Prüfung & Maße.md"]),
        ("masse ärger", ["Prüfung & Maße.md"]),
        ("REISE", ["reise.pdf"]),
        ("<script>", [MARKUP]),
        ("plan hr", ["plan.txt"]),
        ("plan files", []),
        ("%", []),
        ("' OR 1=1 --", []),
        (" ", ["Prüfung & Maße.md", "plan.txt", "reise.pdf", MARKUP]),
    ],
)
def test_words_of_title_name_or_folder(client: httpx.Client, query: str, found: list[str]) -> None:
    response = client.get("/v1/documents", params={"query": query})
    assert names(response) == found
    assert response.json()["total"] == len(found)
    # To narrow down further, people need to see what there is.
    assert sum(response.json()["facets"]["kind"].values()) == 4


def test_filters(client: httpx.Client) -> None:
    assert names(client.get("/v1/documents?kind=pdf")) == ["reise.pdf"]
    assert names(client.get("/v1/documents?folder=hr&language=de")) == ["plan.txt"]
    assert names(client.get("/v1/documents?folder=hr&kind=pdf")) == []


def test_orders(client: httpx.Client) -> None:
    # What has no date stands last, whichever way.
    assert names(client.get("/v1/documents?sort=date")) == ["Prüfung & Maße.md", "reise.pdf", "plan.txt", MARKUP]
    assert names(client.get("/v1/documents?sort=-date")) == ["plan.txt", "reise.pdf", "Prüfung & Maße.md", MARKUP]
    assert names(client.get("/v1/documents?sort=pages"))[0] == "reise.pdf"


@pytest.mark.parametrize(
    "asked", ["limit=0", "limit=1001", "offset=-1", "sort=size", "query=" + "x" * 1001, f"offset={1 << 60}"]
)
def test_lists_that_cannot_be(client: httpx.Client, asked: str) -> None:
    problem(client.get(f"/v1/documents?{asked}"), 422, "invalid-request")


def test_nothing_is_indexed(serve: Callable[..., Any], fake: Any, tmp_path: Path) -> None:
    client = serve(fake, settings=Settings(data_dir=tmp_path / "none")).client
    assert client.get("/v1/documents").json() == {
        "documents": [],
        "total": 0,
        "facets": {"kind": {}, "language": {}, "folder": {}},
    }


def test_a_newer_version_takes_the_place_of_the_old_one(serve: Callable[..., Any], fake: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    client = serve(fake, settings=Settings(data_dir=tmp_path / "data")).client
    with Store(tmp_path / "data") as store:
        for text in ("Eins.", "Zwei und mehr."):
            file.write_text(text, encoding="utf-8")
            put(store, load(file, max_bytes=100))
            (item,) = client.get("/v1/documents").json()["documents"]
            assert item["characters"] == len(text)
        store.remove(item["source"])
    assert client.get("/v1/documents").json()["total"] == 0
    problem(client.get(f"/v1/documents/{item['document']}"), 404, "document-missing")


# -- one document -----------------------------------------------------------------------------------------------------


def test_one_document(client: httpx.Client, ids: dict[str, str]) -> None:
    found = client.get(f"/v1/documents/{ids['Prüfung & Maße.md']}").json()
    text = client.get(f"/v1/documents/{ids['Prüfung & Maße.md']}/text").json()["text"]
    assert [(item["level"], item["text"]) for item in found["headings"]] == [(1, "Ärger 🧾 mit Übersichten"), (2, "Zweitens")]
    assert all(text[item["start"] : item["end"]] == item["text"] for item in found["headings"])
    assert found["metadata"]["name"] == found["name"] == "Prüfung & Maße.md"
    assert found["characters"] == len(text)


def test_a_span_counts_code_points(client: httpx.Client, ids: dict[str, str]) -> None:
    path = f"/v1/documents/{ids['Prüfung & Maße.md']}/text"
    whole = client.get(path).json()
    text = whole["text"]
    assert (whole["start"], whole["end"], whole["length"], whole["kind"]) == (0, len(text), len(text), "markdown")
    start = text.index("Sie gelten.")  # after two characters that are two units each in UTF-16
    part = client.get(path, params={"start": start, "end": start + 11}).json()
    assert part["text"] == "Sie gelten."
    assert (part["start"], part["end"], part["length"]) == (start, start + 11, len(text))
    assert part["headings"] == whole["headings"]


@pytest.mark.parametrize(
    ("start", "end", "expected"), [(0, 0, (0, 0)), (5, 3, (5, 5)), (10**6, None, (64, 64)), (60, 10**9, (60, 64))]
)
def test_spans_are_brought_within_the_text(
    client: httpx.Client, ids: dict[str, str], start: int, end: int | None, expected: tuple[int, int]
) -> None:
    asked = {"start": start} if end is None else {"start": start, "end": end}
    path = f"/v1/documents/{ids['Prüfung & Maße.md']}/text"
    length = client.get(path).json()["length"]
    found = client.get(path, params=asked).json()
    assert (found["start"], found["end"]) == tuple(min(length, offset) if offset != 64 else length for offset in expected)
    assert len(found["text"]) == found["end"] - found["start"]


def test_a_long_text_comes_in_parts(serve: Callable[..., Any], fake: Any, tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_text("🧾 Wort. " * 60_000, encoding="utf-8")
    document = load(file, max_bytes=1 << 24)
    with Store(tmp_path / "data") as store:
        put(store, document)
    client = serve(fake, settings=Settings(data_dir=tmp_path / "data")).client
    text, end = "", 0
    while end < len(document.text):
        part = client.get(f"/v1/documents/{document.id}/text", params={"start": end}).json()
        assert len(part["text"]) <= 200_000
        text, end = text + part["text"], part["end"]
    assert text == document.text


def test_the_pages_of_a_text(client: httpx.Client, ids: dict[str, str], store: Store) -> None:
    found = client.get(f"/v1/documents/{ids['reise.pdf']}/text?start=10&end=20").json()
    document = store.document(ids["reise.pdf"])
    assert document is not None
    assert tuple(found["pages"]) == document.pages


@pytest.mark.parametrize("what", ["", "/text", "/file", "/pages/1.png"])
@pytest.mark.parametrize("document", ["0" * 16, "..", "%2e%2e", "a%00b", "'", "x" * 100, "%F0%9F%A7%BE"])
def test_documents_that_there_are_not(client: httpx.Client, document: str, what: str) -> None:
    response = client.get(f"/v1/documents/{document}{what}")
    assert response.status_code == 404, response.text
    assert response.json()["status"] == 404


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_pdf_is_shown(client: httpx.Client, ids: dict[str, str], folder: Path) -> None:
    response = client.get(f"/v1/documents/{ids['reise.pdf']}/file")
    assert response.status_code == 200
    assert response.content == (folder / "files/reise.pdf").read_bytes()
    assert response.headers["content-type"] == "application/pdf"
    assert response.headers["content-disposition"] == 'inline; filename="reise.pdf"'


def test_anything_else_is_saved_and_runs_nowhere(client: httpx.Client, ids: dict[str, str], folder: Path) -> None:
    response = client.get(f"/v1/documents/{ids[MARKUP]}/file")
    assert response.content == (folder / "files" / MARKUP).read_bytes()
    disposition = response.headers["content-disposition"]
    assert disposition.startswith("attachment; filename*=utf-8''")
    assert unquote(disposition.removeprefix("attachment; filename*=utf-8''")) == MARKUP
    assert not set('<>"') & set(disposition)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"] == "sandbox; default-src 'none'"
    umlauts = client.get(f"/v1/documents/{ids['Prüfung & Maße.md']}/file").headers["content-disposition"]
    assert umlauts == "attachment; filename*=utf-8''Pr%C3%BCfung%20%26%20Ma%C3%9Fe.md"


def test_a_part_of_a_file(client: httpx.Client, ids: dict[str, str], folder: Path) -> None:
    path = f"/v1/documents/{ids['reise.pdf']}/file"
    response = client.get(path, headers={"Range": "bytes=10-19"})
    assert (response.status_code, response.content) == (206, (folder / "files/reise.pdf").read_bytes()[10:20])
    # Another version than the one that the client has a part of is sent whole.
    other = client.get(path, headers={"Range": "bytes=10-19", "If-Range": '"another"'})
    assert (other.status_code, other.headers["etag"]) == (200, response.headers["etag"])


@pytest.fixture
def own(serve: Callable[..., Any], fake: Any, tmp_path: Path) -> tuple[httpx.Client, Path, str]:
    """A server with one document, and the file that it came by."""
    file = tmp_path / "notes.txt"
    file.write_text("Dreißig Tage.", encoding="utf-8")
    document = load(file, max_bytes=100)
    with Store(tmp_path / "data") as store:
        put(store, document)
    return serve(fake, settings=Settings(data_dir=tmp_path / "data")).client, file, f"/v1/documents/{document.id}"


def test_a_file_that_has_changed(own: tuple[httpx.Client, Path, str]) -> None:
    client, file, path = own
    assert client.get(f"{path}/file").status_code == 200
    file.write_text("Vierzig Tage.", encoding="utf-8")  # as long as before
    found = problem(client.get(f"{path}/file"), 409, "file-changed")
    assert "beleg index" in found["way_out"]
    assert client.get(f"{path}/text").json()["text"].startswith("Dreißig")


def test_a_file_that_is_gone(own: tuple[httpx.Client, Path, str]) -> None:
    client, file, path = own
    file.unlink()
    problem(client.get(f"{path}/file"), 404, "file-missing")
    file.mkdir()
    problem(client.get(f"{path}/file"), 404, "file-missing")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes in folders")
def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(own: tuple[httpx.Client, Path, str]) -> None:
    client, file, path = own
    file.unlink()
    os.mkfifo(file)
    problem(client.get(f"{path}/file"), 404, "file-missing")


def test_a_link_in_place_of_a_file_leads_to_nothing_else(own: tuple[httpx.Client, Path, str], tmp_path: Path) -> None:
    client, file, path = own
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    file.unlink()
    file.symlink_to(tmp_path / "secret")
    problem(client.get(f"{path}/file"), 409, "file-changed")


# -- pictures ---------------------------------------------------------------------------------------------------------


def test_a_page_as_it_is_printed(client: httpx.Client, ids: dict[str, str]) -> None:
    path = f"/v1/documents/{ids['reise.pdf']}"
    plain = client.get(f"{path}/pages/1.png?width=300")
    assert plain.headers["content-type"] == "image/png"
    assert plain.content.startswith(b"\x89PNG")
    assert int.from_bytes(plain.content[16:20], "big") == 300
    marked = client.get(f"{path}/pages/1.png", params={"width": 300, "start": 0, "end": 20})
    assert marked.status_code == 200
    assert marked.content != plain.content


def test_pages_that_there_are_not(client: httpx.Client, ids: dict[str, str]) -> None:
    problem(client.get(f"/v1/documents/{ids['reise.pdf']}/pages/99.png"), 404, "file-missing")
    problem(client.get(f"/v1/documents/{ids['plan.txt']}/pages/1.png"), 404, "file-missing")
    for asked in ("0.png", "-1.png", "x.png", "1.png?width=1", "1.png?width=100000", "1.png?start=-1"):
        problem(client.get(f"/v1/documents/{ids['reise.pdf']}/pages/{asked}"), 422, "invalid-request")


def endless(path: Path) -> Document:
    """Write a small PDF that takes very long to draw."""
    curves = b"0 0 m 600 800 0 800 600 0 c b*\n" * 20_000
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(curves), curves),
    )
    data = b"".join(b"%d 0 obj\n%s\nendobj\n" % numbered for numbered in enumerate(objects, 1))
    path.write_bytes(b"%PDF-1.4\n" + data + b"trailer\n<</Root 1 0 R/Size 5>>\nstartxref\n0\n%%EOF")
    text, pages, metadata = "Endless", (0,), {"kind": "pdf"}
    return Document(document_id(str(path)), str(path), text, text, "en", content_hash(path), pages, metadata=metadata)


def test_whoever_asks_for_one_picture_too_many_is_told_at_once(tmp_path: Path) -> None:
    slow = endless(tmp_path / "endless.pdf")
    with Store(tmp_path / "data") as store:
        put(store, slow)

    def draw(width: int) -> bytes:
        return documents.picture(slow.id, 1, start=None, end=None, width=width)

    with closing(Documents(Settings(data_dir=tmp_path / "data"))) as documents, ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(draw, width) for width in range(1000, 1005)]
        told, waiting = wait(asked, return_when=FIRST_COMPLETED)
        documents.close()
        assert [type(one.exception()) for one in told] == [Overloaded]
        assert [type(one.exception()) for one in waiting] == [LoadError] * 4
        # Their places are free again, although there is nobody left to draw.
        for width in range(1000, 1006):
            with pytest.raises(LoadError, match="has ended"):
                draw(width)


# -- removing ---------------------------------------------------------------------------------------------------------


def test_a_file_of_somebody_elses_folder_is_kept(own: tuple[httpx.Client, Path, str]) -> None:
    client, file, path = own
    response = client.delete(path)
    assert response.status_code == 202, response.text
    assert response.json()["file"] == "kept"
    assert file.exists()
    job = client.get(f"/v1/jobs/{response.json()['job']}").json()
    assert (job["kind"], job["arguments"]) == ("remove", {"documents": [path.rpartition("/")[2]]})


@pytest.mark.parametrize("document", ["0" * 16, "..", "%2e%2e%2fetc", "uploads"])
def test_what_is_not_there_cannot_be_removed(client: httpx.Client, document: str, folder: Path) -> None:
    assert client.delete(f"/v1/documents/{document}").status_code in (404, 405)
    assert (folder / "data/uploads/hr/plan.txt").exists()


# -- the description --------------------------------------------------------------------------------------------------


def test_the_description(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    one = "/v1/documents/{document}"
    paths = {"/v1/documents", one, f"{one}/text", f"{one}/file", f"{one}/pages/{{page}}.png", "/v1/documents/{path}"}
    assert {path for path in document["paths"] if path.startswith("/v1/documents")} == paths
    body = document["paths"]["/v1/documents/{path}"]["put"]["requestBody"]["content"]
    assert list(body) == ["application/octet-stream"]
    assert "image/png" in document["paths"][f"{one}/pages/{{page}}.png"]["get"]["responses"]["200"]["content"]
    assert set(document["paths"][one]) == {"get", "delete"}


def test_the_examples_are_valid() -> None:
    for payload, example in (
        (DocumentsPayload, examples.DOCUMENTS),
        (UploadedPayload, examples.UPLOADED),
        (RemovedPayload, examples.REMOVED),
    ):
        assert json.loads(payload.model_validate(example).model_dump_json()) == example
