"""Files that are handed over: kept whole or not at all, wherever the sender says they go, and whatever he does meanwhile."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from retriever.load import KINDS
from retriever.schema import document_id
from retriever.settings import Settings
from serving.errors import UploadRefused
from serving.uploads import checked_name

HERE = Path(__file__).parent
MIB = 1 << 20

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def server(serve: Callable[..., Any], fake: Any, data: Path) -> Any:
    return serve(fake, settings=Settings(data_dir=data, max_file_mb=8))


def files(data: Path) -> dict[str, bytes]:
    """Return all that is left below the folder of uploads, half-written files included."""
    folder = data / "uploads"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    found = dict(response.json())
    assert found["type"] == f"urn:beleg:{slug}"
    return found


def jobs(server: Any) -> list[dict[str, Any]]:
    return list(server.client.get("/v1/jobs").json()["jobs"])


@contextmanager
def connected(url: str, head: str) -> Iterator[socket.socket]:
    """Send the head of a request as it is, which no client library would."""
    host, port = httpx.URL(url).host, httpx.URL(url).port
    with socket.create_connection((host, port or 80), timeout=20) as raw:
        raw.sendall(f"{head}\r\nHost: {host}:{port}\r\n\r\n".encode())
        yield raw


def status_of(raw: socket.socket) -> int:
    return int(raw.recv(65536).split()[1])


# -- as a user --------------------------------------------------------------------------------------------------------


def test_a_file_is_kept_and_then_indexed(server: Any, data: Path) -> None:
    response = server.client.put("/v1/documents/hr/leave.txt", content=b"Thirty days.")
    assert response.status_code == 202, response.text
    path = data.resolve() / "uploads/hr/leave.txt"
    (job,) = jobs(server)
    assert response.json() == {
        "name": "leave.txt",
        "path": "hr/leave.txt",
        "bytes": 12,
        "replaced": False,
        "document": document_id(path.as_posix()),
        "job": job["id"],
    }
    assert (job["kind"], job["arguments"]) == ("index", {"paths": [str(path)], "prune": False})
    assert files(data) == {"hr/leave.txt": b"Thirty days."}


def test_a_newer_file_takes_the_place_of_an_older_one(server: Any, data: Path) -> None:
    assert not server.client.put("/v1/documents/a.txt", content=b"old").json()["replaced"]
    assert server.client.put("/v1/documents/a.txt", content=b"new").json()["replaced"]
    assert files(data) == {"a.txt": b"new"}
    assert len(jobs(server)) == 2


def test_accents_are_composed(server: Any, data: Path) -> None:
    name = unicodedata.normalize("NFD", "Büro & Maß/Müll <b>100 %</b>.txt")
    response = server.client.put(f"/v1/documents/{quote(name)}", content=b"x")
    assert response.status_code == 202, response.text
    # Of a slash, even an encoded one, a path is made.
    assert set(files(data)) == {unicodedata.normalize("NFC", name)}


def test_a_file_larger_than_other_bodies_may_be(server: Any, data: Path) -> None:
    content = os.urandom(3 * MIB)
    assert server.client.put("/v1/documents/a.pdf", content=content).status_code == 202
    assert server.client.put("/v1/documents/b.pdf", content=iter([content, content])).status_code == 202
    assert files(data) == {"a.pdf": content, "b.pdf": content * 2}
    assert server.client.post("/v1/search", content=content).status_code == 413


def test_a_file_that_never_became_a_document_can_be_removed(server: Any, data: Path) -> None:
    document = server.client.put("/v1/documents/broken.pdf", content=b"no PDF").json()["document"]
    response = server.client.delete(f"/v1/documents/{document}")
    assert response.status_code == 202, response.text
    assert response.json()["file"] == "deleted"
    assert files(data) == {}
    problem(server.client.delete(f"/v1/documents/{document}"), 404, "document-missing")


# -- what is refused --------------------------------------------------------------------------------------------------


ELSEWHERE = [
    "../escaped.txt",
    "a/../../escaped.txt",
    "a/..",
    "..%2Fescaped.txt",
    "%2e%2e/%2e%2e/escaped.txt",
    "%2Fetc/escaped.txt",
    "/etc/escaped.txt",
    "..%5Cescaped.txt",
    "a//b.txt",
    "a/./b.txt",
    "a/%20/b.txt",
    ".hidden.txt",
    ".incoming/a.txt",
    "a/.b/c.txt",
    "nul%00.txt",
    "line%E2%80%A8break.txt",
    "bell%07.txt",
    "half%ED%A0%80.txt",
    "latin%FC.txt",
    f"{'ü' * 101}.txt",
    f"{'a/' * 500}b.txt",
]


def test_names_that_could_lead_elsewhere(server: Any, data: Path) -> None:
    for name in ELSEWHERE:
        target = f"/v1/documents/{quote(name, safe='/%.')}"
        with connected(server.url, f"PUT {target} HTTP/1.1\r\nContent-Length: 1\r\nConnection: close") as raw:
            raw.sendall(b"x")
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        assert answer.split()[1] == b"422", (name, answer)
        assert b"urn:beleg:upload-refused" in answer
    assert not files(data)
    assert not [path for path in data.parent.rglob("*") if "escaped" in path.name]


@pytest.mark.parametrize("name", ["line\nbreak.txt", "\ud800.txt", "a\r.txt", "", "/", "..", "a/", "x" * 201 + ".txt"])
def test_names_that_no_route_takes(name: str) -> None:
    with pytest.raises(UploadRefused):
        checked_name(name)


def test_kinds_that_are_not_read(server: Any, data: Path) -> None:
    for name in ("setup.exe", "archive.tar.gz", "README", "a.pdf.", "hr/pdf"):
        # Such a client sends all of it before it looks at what came back.
        found = problem(server.client.put(f"/v1/documents/{name}", content=bytes(4 * MIB)), 415, "kind-unknown")
        assert all(suffix in found["way_out"] for suffix in KINDS)
    problem(server.client.put("/v1/documents/a.exe", content=bytes(9 * MIB)), 413, "body-too-large")
    assert not files(data)


def test_an_empty_file(server: Any, data: Path) -> None:
    server.client.put("/v1/documents/a.txt", content=b"good")
    problem(server.client.put("/v1/documents/a.txt"), 422, "upload-refused")
    assert files(data) == {"a.txt": b"good"}


def test_a_file_where_a_folder_is_wanted(server: Any, data: Path) -> None:
    server.client.put("/v1/documents/a.txt", content=b"x")
    server.client.put("/v1/documents/b.txt/c.txt", content=b"x")
    problem(server.client.put("/v1/documents/a.txt/d.txt", content=b"x"), 422, "upload-refused")
    problem(server.client.put("/v1/documents/b.txt", content=b"x"), 422, "upload-refused")
    assert files(data) == {"a.txt": b"x", "b.txt/c.txt": b"x"}


def test_two_gigabytes_are_refused_before_they_come(server: Any, data: Path) -> None:
    with connected(server.url, "PUT /v1/documents/a.pdf HTTP/1.1\r\nContent-Length: 2147483648") as raw:
        assert status_of(raw) == 413
    assert not files(data)


def test_a_body_that_grows_too_large(server: Any, data: Path) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(12):
            yield bytes(MIB)

    problem(server.client.put("/v1/documents/a.pdf", content=endless()), 413, "body-too-large")
    assert not files(data)


@pytest.mark.parametrize("off", [{"uploads": False}, {"jobs": False}])
def test_where_documents_cannot_be_changed(serve: Callable[..., Any], fake: Any, data: Path, off: dict[str, bool]) -> None:
    client = serve(fake, settings=Settings(data_dir=data, **off)).client
    found = problem(client.put("/v1/documents/a.txt", content=b"x"), 403, "uploads-off")
    assert "`uploads`" in found["way_out"]
    problem(client.delete(f"/v1/documents/{'0' * 16}"), 403, "uploads-off")
    assert not files(data)


def test_nothing_is_kept_that_no_job_could_read(server: Any, data: Path) -> None:
    data.mkdir()
    (data / "jobs.sqlite").write_bytes(b"this is no database" * 100)
    problem(server.client.put("/v1/documents/a.txt", content=b"x"), 503, "jobs-unavailable")
    assert not files(data)


def test_no_job_over_http_removes_documents(server: Any) -> None:
    wanted = {"kind": "remove", "arguments": {"documents": ["0" * 16]}}
    found = problem(server.client.post("/v1/jobs", json=wanted), 422, "job-refused")
    assert "DELETE" in found["way_out"]


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_a_client_that_hangs_up_leaves_nothing(server: Any, data: Path, eventually: Any, framing: str) -> None:
    server.client.put("/v1/documents/a.txt", content=b"good")
    with connected(server.url, f"PUT /v1/documents/a.txt HTTP/1.1\r\n{framing}") as raw:
        raw.sendall(b"3\r\nbad\r\n")
        assert eventually(lambda: len(files(data)) == 2)
    assert eventually(lambda: files(data) == {"a.txt": b"good"})
    assert len(jobs(server)) == 1


def test_slow_clients_hold_up_nobody(server: Any, data: Path, eventually: Any) -> None:
    slow = []
    for number in range(60):  # more than there are threads
        host, port = httpx.URL(server.url).host, httpx.URL(server.url).port
        raw = socket.create_connection((host, port or 80), timeout=20)
        raw.sendall(f"PUT /v1/documents/{number}.txt HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\na".encode())
        slow.append(raw)
    assert eventually(lambda: len(files(data)) == 60)
    assert server.client.put("/v1/documents/quick.txt", content=b"x").status_code == 202
    assert server.client.get("/v1/documents").status_code == 200
    slow[0].sendall(b"b")
    assert status_of(slow[0]) == 202
    for raw in slow:
        raw.close()
    assert eventually(lambda: files(data) == {"quick.txt": b"x", "0.txt": b"ab"})


def test_of_many_at_once_one_wins_whole(server: Any, data: Path) -> None:
    def put(letter: str) -> bool:
        pieces = iter([letter.encode() * 100_000] * 5)
        response = httpx.put(f"{server.url}/v1/documents/a.txt", content=pieces, timeout=60)
        assert response.status_code == 202, response.text
        return bool(response.json()["replaced"])

    with ThreadPoolExecutor(8) as pool:
        replaced = list(pool.map(put, "abcdefgh"))
    (content,) = files(data).values()
    assert len(content) == 500_000
    assert len(set(content)) == 1
    assert replaced.count(False) == 1
    assert len(jobs(server)) == 8


def test_a_full_disk(server: Any, data: Path) -> None:
    server.client.put("/v1/documents/a.txt", content=b"good")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, limits[1]))
    try:
        found = problem(server.client.put("/v1/documents/a.txt", content=bytes(6 * MIB)), 507, "upload-not-kept")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "full" in found["detail"]
    assert files(data) == {"a.txt": b"good"}
    assert len(jobs(server)) == 1


@contextmanager
def process(data: Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Run a server that carries out its jobs."""
    command = [sys.executable, "-W", "error", HERE / "jobs_server.py", data, data.parent, "quick_beleg", ""]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BELEG_")}
    environment["PYTHONPATH"] = os.pathsep.join((str(HERE), str(HERE.parent / "retriever")))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            with httpx.Client(base_url=server.stdout.readline().strip(), timeout=60) as client:
                yield server, client
        finally:
            server.terminate()
            server.wait(60)


def ended(client: httpx.Client, job: str) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while (found := client.get(f"/v1/jobs/{job}").json())["status"] in ("queued", "running"):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert found["status"] == "done", found
    return dict(found)


def test_a_killed_server_loses_nothing_that_it_has_acknowledged(data: Path, eventually: Any) -> None:
    """From the upload to the removal, with the real commands at work."""
    text = "# Urlaub 🧾\n\nJeder hat dreißig Tage Urlaub im Jahr."
    with process(data) as (server, client):
        head = "PUT /v1/documents/half.txt HTTP/1.1\r\nContent-Length: 100"
        with connected(str(client.base_url), head) as raw:
            raw.sendall(b"half of it")
            assert eventually(lambda: len(files(data)) == 1)
            sent = client.put("/v1/documents/hr/urlaub.md", content=text.encode()).json()
            server.send_signal(signal.SIGKILL)
            server.wait()
    assert len(files(data)) == 2
    with process(data) as (server, client):
        assert set(files(data)) == {"hr/urlaub.md"}
        ended(client, sent["job"])
        (told,) = client.get(f"/v1/jobs/{sent['job']}/documents").json()["documents"]
        assert told["status"] in ("added", "unchanged")
        assert told["source"] == str(data.resolve() / "uploads/hr/urlaub.md")
        (listed,) = client.get("/v1/documents").json()["documents"]
        assert (listed["document"], listed["uploaded"], listed["language"]) == (sent["document"], True, "de")
        assert client.get(f"/v1/documents/{sent['document']}/file").content == text.encode()

        # Sent twice, removed, and sent again before any job had time to run: the last word counts.
        client.put("/v1/documents/hr/urlaub.md", content=text.encode() + b" 2")
        removed = client.delete(f"/v1/documents/{sent['document']}").json()
        assert removed["file"] == "deleted"
        last = client.put("/v1/documents/hr/urlaub.md", content=text.encode() + b" 3").json()
        assert not last["replaced"]
        ended(client, removed["job"])
        ended(client, last["job"])
        assert client.get(f"/v1/documents/{sent['document']}/text").json()["text"].endswith(" 3")

        removed = client.delete(f"/v1/documents/{sent['document']}").json()
        assert ended(client, removed["job"])["progress"]["documents"]["done"] == 1
        assert files(data) == {}
        assert client.get("/v1/documents").json()["total"] == 0
        problem(client.delete(f"/v1/documents/{sent['document']}"), 404, "document-missing")
