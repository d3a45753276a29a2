"""Jobs as a client and an adversary meet them: over HTTP, with processes that are killed and servers that come and go."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from retriever.journal import Journal
from retriever.settings import Settings
from serving.errors import JobConflict
from serving.jobs.jobs import JobFolder, Jobs
from serving.jobs.kinds import PromoteArguments, RebuildArguments, RollbackArguments, TrainArguments

HERE = Path(__file__).parent
OVER = ("done", "failed", "cancelled")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


@dataclass
class Service:
    """A server process, and what its jobs leave in its data folder."""

    process: subprocess.Popen[str]
    client: httpx.Client
    data: Path
    documents: Path

    def start(self, *names: str, **arguments: Any) -> str:
        response = self.client.post("/v1/jobs", json={"kind": "index", "arguments": {"paths": list(names), **arguments}})
        assert response.status_code == 202, response.text
        assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
        return str(response.json()["id"])

    def job(self, job: str) -> dict[str, Any]:
        response = self.client.get(f"/v1/jobs/{job}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def until(self, job: str, *statuses: str, within_s: float = 60) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while (found := self.job(job))["status"] not in statuses:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found

    def ended(self, job: str) -> dict[str, Any]:
        return self.until(job, *OVER)

    def counts(self, job: str) -> tuple[int, ...]:
        return tuple(self.job(job)["progress"]["documents"].values())

    def runs(self, job: str) -> list[int]:
        """Return the ids of the processes that worked on a job."""
        file = self.data / "jobs" / f"{job}.runs"
        return [int(line.split()[0]) for line in file.read_text().splitlines()] if file.exists() else []

    def stored(self, job: str) -> list[str]:
        file = self.data / "jobs" / f"{job}.stored"
        return [Path(line).name for line in file.read_text().splitlines()] if file.exists() else []

    def running(self, job: str, stored: int = 0, runs: int = 1) -> int:
        """Wait until a job's process has stored something; return the process's id."""
        deadline = time.monotonic() + 60
        while len(self.runs(job)) < runs or len(self.stored(job)) < stored or self.job(job)["status"] != "running":
            assert time.monotonic() < deadline, self.job(job)
            time.sleep(0.02)
        return self.runs(job)[-1]


def alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(process: int, within_s: float = 30) -> bool:
    deadline = time.monotonic() + within_s
    while alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def served(data: Path, *, module: str = "fake_beleg", database: str = "", quiet: bool = True) -> Iterator[Service]:
    documents = data.parent / "documents"
    documents.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BELEG_")}
    with subprocess.Popen(
        [sys.executable, "-W", "error", HERE / "jobs_server.py", data, documents, module, database],
        env={**environment, "PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, process.stderr and process.stderr.read()
            with httpx.Client(base_url=url, timeout=20) as client:
                yield Service(process, client, data, documents)
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                _, said = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        # Everything that it says is meant for people: no tracebacks, no banners, no warnings of libraries.
        for line in said.splitlines() if quiet else ():
            assert re.search(r" (INFO|WARNING|ERROR) serving\.", line), said


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Any]:
    return lambda **more: served(tmp_path / "data", **more)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with served(tmp_path_factory.mktemp("jobs") / "data") as running:
        yield running


def problem(response: httpx.Response, status: int, slug: str) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == f"urn:beleg:{slug}"
    return str(response.json()["detail"])


# -- the way of a job -------------------------------------------------------------------------------------------------


def test_a_job_from_start_to_end(service: Service) -> None:
    job = service.start("a", "sub/b", "fail-c", prune=True)
    assert re.fullmatch(r"index-\d{8}-\d{6}-[0-9a-f]{4}", job)
    found = service.ended(job)
    assert (found["status"], found["left_out"], found["error"]) == ("done", True, None)
    assert found["kind"] == "index"
    assert found["arguments"]["prune"] is True
    assert found["arguments"]["paths"][1] == str(service.documents / "sub" / "b")
    assert found["created"] <= found["started"] <= found["ended"]
    assert found["created"].endswith("Z")
    assert found["progress"]["documents"] == {"queued": 0, "done": 2, "skipped": 0, "failed": 1}
    assert found["result"] == {"kind": "index", "documents": 2}
    runs = (service.data / "jobs" / f"{job}.runs").read_text()
    assert runs.split(maxsplit=1)[1].startswith("index --prune -- ")

    listed = service.client.get(f"/v1/jobs/{job}/documents").json()
    assert listed["total"] == 3
    assert [item["status"] for item in listed["documents"]] == ["added", "added", "failed"]
    failed = service.client.get(f"/v1/jobs/{job}/documents", params={"status": "failed"}).json()
    assert failed["total"] == 1
    assert failed["documents"][0] | {"source": ""} == {
        "source": "",
        "status": "failed",
        "chunks": 0,
        "reason": "it is broken",
        "way_out": "Mend it.",
    }
    page = service.client.get(f"/v1/jobs/{job}/documents", params={"limit": 1, "offset": 1}).json()
    assert [Path(item["source"]).name for item in page["documents"]] == ["b"]
    assert page["total"] == 3


def test_jobs_run_one_after_the_other_and_are_listed_newest_first(service: Service) -> None:
    jobs = [service.start("slow-1") for _ in range(3)]
    assert jobs == sorted(jobs)
    deadline = time.monotonic() + 60
    while True:
        listed = service.client.get("/v1/jobs", params={"limit": 3}).json()["jobs"]
        assert [job["id"] for job in listed] == jobs[::-1]
        assert sum(job["status"] == "running" for job in listed) <= 1
        if all(job["status"] == "done" for job in listed):
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert all(len(service.runs(job)) == 1 for job in jobs)


def test_indexing_goes_on_while_the_index_is_rebuilt(service: Service) -> None:
    hanging = service.start("hang")
    service.running(hanging)
    rebuild = service.client.post("/v1/jobs", json={"kind": "rebuild", "arguments": {"chunk_tokens": 64, "margin": 0.1}})
    found = service.ended(rebuild.json()["id"])
    assert found["status"] == "done"
    runs = (service.data / "jobs" / f"{found['id']}.runs").read_text()
    assert runs.split(maxsplit=1)[1] == "rebuild --chunk-tokens=64 --margin=0.1\n"
    assert service.job(hanging)["status"] == "running"
    service.client.post(f"/v1/jobs/{hanging}/cancel")


def test_of_two_rebuilds_the_second_is_refused_and_told_why(serve: Callable[..., Any], tmp_path: Path) -> None:
    # No worker: what is queued stays queued.
    jobs = Jobs(Settings(data_dir=tmp_path / "data"))
    try:
        with ThreadPoolExecutor(8) as pool:

            def start(_: int) -> str:
                try:
                    return jobs.start("rebuild", RebuildArguments()).id
                except JobConflict as error:
                    return f"refused for {error.message}"

            started = list(pool.map(start, range(8)))
        (first,) = [item for item in started if not item.startswith("refused")]
        assert all(first in item for item in started)
        rollback = jobs.start("rollback", RollbackArguments())
        # As one that was killed after its swap, before that was checkpointed: done again, it would undo itself.
        file = JobFolder(tmp_path / "data").file(rollback.id, ".jsonl")
        file.parent.mkdir()
        with Journal(file) as journal:
            journal.tell("result", generation="g1")
        jobs.cancel(first)
        second = jobs.start("rebuild", RebuildArguments())
        with pytest.raises(JobConflict, match=second.id):
            jobs.resume(first)
        jobs.cancel(second.id)
        assert jobs.resume(first).status == "queued"
        with pytest.raises(JobConflict, match=first):  # one that was resumed counts as well
            jobs.start("rebuild", RebuildArguments())
        assert jobs.attended() is False
    finally:
        jobs.close()
    with serve() as service:
        assert service.ended(first)["status"] == "done"
        assert service.ended(rollback.id)["result"] == {"generation": "g1"}
        assert service.runs(rollback.id) == []
        assert service.job(second.id)["status"] == "cancelled"


# -- requests that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "kind"),
        ({"kind": "bake"}, "kind"),
        ({"kind": "export"}, "arguments.candidate"),
        ({"kind": "export", "arguments": {"candidate": "x", "quantize": ["--out"]}}, "arguments.quantize.0"),
        ({"kind": "index"}, "arguments.paths"),
        ({"kind": "index", "arguments": {"paths": []}}, "arguments.paths"),
        ({"kind": "index", "arguments": {"paths": "a"}}, "arguments.paths"),
        ({"kind": "index", "arguments": {"paths": ["a", 1]}}, "arguments.paths.1"),
        ({"kind": "index", "arguments": {"paths": ["a\0b"]}}, "arguments.paths.0"),
        ({"kind": "index", "arguments": {"paths": ["a"], "prune": "yes"}}, "arguments.prune"),
        ({"kind": "index", "arguments": {"paths": ["a"], "prnue": True}}, "arguments.prnue"),
        ({"kind": "rebuild", "arguments": {"chunk_tokens": 1}}, "arguments.chunk_tokens"),
        ({"kind": "rebuild", "arguments": {"margin": 2}}, "arguments.margin"),
        ({"kind": "rollback", "arguments": {"to": "yesterday"}}, "arguments.to"),
        ({"kind": "rollback", "priority": 1}, "priority"),
        ({"kind": "train", "arguments": {"recipe": "retriever"}}, "arguments.model"),
        ({"kind": "train", "arguments": {"model": "writer", "recipe": "x"}}, "arguments.model"),
        ({"kind": "train", "arguments": {"model": "retriever"}}, "arguments.recipe"),
        ({"kind": "train", "arguments": {"model": "retriever", "recipe": "x", "set": ["trainer.epochs"]}}, "arguments.set.0"),
        ({"kind": "train", "arguments": {"model": "retriever", "recipe": "x", "set": ["--help=1"]}}, "arguments.set.0"),
        ({"kind": "train", "arguments": {"model": "retriever", "recipe": "x", "limit": 0}}, "arguments.limit"),
        ({"kind": "train", "arguments": {"model": "retriever", "recipe": "x", "name": "../x"}}, "arguments.name"),
        ({"kind": "rollback", "arguments": {"which": "both"}}, "arguments.which"),
        ({"kind": "promote"}, "arguments.candidate"),
        ({"kind": "promote", "arguments": {"candidate": "x", "file": "../x"}}, "arguments.file"),
        ({"kind": "promote", "arguments": {"candidate": "x", "unmerged": "yes"}}, "arguments.unmerged"),
        ({"kind": "promote", "arguments": {"candidate": "x", "override": " "}}, "arguments.override"),
        ({"kind": "promote", "arguments": {"candidate": "x", "dry_run": True}}, "arguments.dry_run"),
    ],
    ids=str,
)
def test_a_job_that_is_none(service: Service, body: dict[str, Any], field: str) -> None:
    response = service.client.post("/v1/jobs", json=body)
    problem(response, 422, "invalid-request")
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_only_files_below_the_folder_can_be_read(service: Service, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (service.documents / "inside").mkdir()
    for name, target in {"leaving": outside, "staying": service.documents / "inside", "loop": Path("loop")}.items():
        (service.documents / name).symlink_to(target)
    beside = f"{service.documents}-beside"
    for path in [
        "/etc",
        "..",
        "../documents/../x",
        "inside/../../x",
        "leaving",
        "leaving/a",
        str(outside),
        beside,
        "~/../../x/..",
    ]:
        response = service.client.post("/v1/jobs", json={"kind": "index", "arguments": {"paths": ["inside", path]}})
        if path.startswith("~"):  # no shell is asked what that means: it is a name like any other
            assert response.status_code in (202, 422)
            continue
        assert "arguments.paths.1" in problem(response, 422, "job-refused")
        assert "relative to that folder" in response.json()["way_out"]
    questions = {"kind": "rebuild", "arguments": {"questions": "/etc/passwd"}}
    assert "arguments.questions" in problem(service.client.post("/v1/jobs", json=questions), 422, "job-refused")
    for path in ["inside", "staying", "staying/..", ".", "inside/../x", "loop", str(service.documents / "inside"), "--prune"]:
        job = service.start(path)
        (given,) = service.ended(job)["arguments"]["paths"]
        assert Path(given).is_relative_to(service.documents)


@pytest.mark.parametrize(
    ("kind", "arguments", "field"),
    [
        ("train", {"recipe": "../recipe.yaml"}, "arguments.recipe"),
        ("train", {"recipe": "/etc/passwd"}, "arguments.recipe"),
        ("train", {"recipe": "r", "set": ["trainer.epochs=1", "base_model=/etc"]}, "arguments.set.1"),
        ("train", {"recipe": "r", "set": ["data.train=[x]"]}, "arguments.set.0"),
        ("train", {"recipe": "r", "set": ["trainer=x"]}, "arguments.set.0"),
        ("train", {"recipe": "r", "set": ["negatives.cross_encoder=/etc"]}, "arguments.set.0"),
        ("train", {"recipe": "r", "set": ["negatives.cross_encoder=package:x"]}, "arguments.set.0"),
        ("train", {"recipe": "r", "set": ['negatives.cross_encoder="\\x2fetc"']}, "arguments.set.0"),
        ("train", {"recipe": "r", "set": ["negatives.cross_encoder=~"]}, "arguments.set.0"),
        ("train", {"recipe": "r", "set": ["adapter.path=/etc"]}, "arguments.set.0"),
        ("export", {"candidate": "../x"}, "arguments.candidate"),
        ("export", {"candidate": ".."}, "arguments.candidate"),
        ("promote", {"candidate": "../x"}, "arguments.candidate"),
        ("promote", {"candidate": ".."}, "arguments.candidate"),
        ("promote", {"candidate": "/"}, "arguments.candidate"),
        ("promote", {"candidate": "x", "questions": "/etc/passwd"}, "arguments.questions"),
    ],
    ids=str,
)
def test_training_and_promotion_reach_no_other_files(
    service: Service, kind: str, arguments: dict[str, Any], field: str
) -> None:
    given = {"model": "retriever", **arguments} if kind == "train" else arguments
    response = service.client.post("/v1/jobs", json={"kind": kind, "arguments": given})
    assert field in problem(response, 422, "job-refused")


def test_training_and_promotion_become_command_lines(service: Service) -> None:
    def ran(kind: str, **arguments: Any) -> str:
        response = service.client.post("/v1/jobs", json={"kind": kind, "arguments": arguments})
        assert response.status_code == 202, response.text
        job = service.ended(response.json()["id"])
        assert (job["status"], job["result"]["kind"]) == ("done", kind)
        return (service.data / "jobs" / f"{job['id']}.runs").read_text().split(maxsplit=1)[1].strip()

    assert ran("train", model="retriever", recipe="retriever") == "train retriever -- retriever"
    set_ = ["trainer.epochs=3", "trainer.learning_rate=1e-5", "negatives.mine=[keyword, dense]"]
    here = service.documents
    assert ran("train", model="reranker", recipe="slow.yaml", set=set_, limit=5, name="auf-Probe_1") == (
        f"train reranker --set={set_[0]} --set={set_[1]} --set={set_[2]} --limit=5 --name=auf-Probe_1 -- {here}/slow.yaml"
    )
    set_ = ["adapter.type=lora", "quantization.bits=4"]
    assert ran("train", model="reader", recipe="reader-raft-smollm2", set=set_) == (
        f"train reader --set={set_[0]} --set={set_[1]} -- reader-raft-smollm2"
    )
    assert ran("export", candidate="reader-1.2") == "export -- reader-1.2"
    assert ran("export", candidate="./tuned", quantize=["q8_0", "Q4_K_M"]) == (
        f"export --quantize=q8_0 --quantize=Q4_K_M -- {here}/tuned"
    )
    assert ran("promote", candidate="retriever-1.2") == "promote -- retriever-1.2"
    assert ran("promote", candidate="reader", file="model-q8_0.gguf") == "promote --file=model-q8_0.gguf -- reader"
    assert ran("promote", candidate="reader", unmerged=True) == "promote --unmerged -- reader"
    assert ran("rollback", which="reader") == "rollback --reader"
    assert ran("promote", candidate="./tuned", override="--dry-run ü", questions="nothing") == (
        f"promote --override=--dry-run ü --questions={here}/nothing -- {here}/tuned"
    )


def test_one_promotion_at_a_time(tmp_path: Path) -> None:
    jobs = Jobs(Settings(data_dir=tmp_path / "data"))
    try:
        first = jobs.start("promote", PromoteArguments(candidate="a"))
        with pytest.raises(JobConflict, match=first.id):
            jobs.start("promote", PromoteArguments(candidate="b"))
        # Trainings wait for each other.
        train = TrainArguments(model="retriever", recipe="r")
        assert jobs.start("train", train).id != jobs.start("train", train).id
    finally:
        jobs.close()


def test_no_folder_no_files(running: Any) -> None:
    # This server has no setting `documents`; and it does not make a database merely because it was asked.
    response = running.client.post("/v1/jobs", json={"kind": "index", "arguments": {"paths": ["a"]}})
    problem(response, 422, "job-refused")
    assert "documents" in response.json()["way_out"]


@pytest.mark.parametrize(
    "job", ["index-20261121-153012-abcd", "x", "%2e%2e", "%00", "%ff", "index-20261121-153012-abcd%2f..", "a" * 5000]
)
def test_no_such_job(service: Service, job: str) -> None:
    for method, path in [("GET", ""), ("GET", "/documents"), ("POST", "/cancel"), ("POST", "/resume")]:
        response = service.client.request(method, f"/v1/jobs/{job}{path}")
        assert response.status_code in (404, 405)
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "offset=-1", "status=lost", "limit=x"])
def test_a_page_that_is_none(service: Service, query: str) -> None:
    job = service.start("a")
    problem(service.client.get(f"/v1/jobs/{job}/documents?{query}"), 422, "invalid-request")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites_are_turned_away(service: Service, site: str) -> None:
    job = service.start("a")
    for path in (f"/v1/jobs/{job}/cancel", f"/v1/jobs/{job}/resume"):
        problem(service.client.post(path, headers={"Sec-Fetch-Site": site}), 403, "cross-site")
    service.ended(job)


# -- processes that fail ----------------------------------------------------------------------------------------------


def test_a_killed_process_is_started_again_and_goes_on(service: Service) -> None:
    job = service.start("a", "b", "kill-1", "torn-1", "c")
    found = service.ended(job)
    assert (found["status"], found["left_out"]) == ("done", False)
    assert service.stored(job) == ["a", "b", "kill-1", "torn-1", "c"]
    assert service.counts(job) == (0, 5, 0, 0)
    assert len(service.runs(job)) == 3


def test_a_process_that_crashes_again_and_again_fails_with_the_signal_s_name(service: Service) -> None:
    job = service.start("crash")
    found = service.ended(job)
    assert found["status"] == "failed"
    assert "SIGSEGV" in found["error"]["message"]
    assert len(service.runs(job)) == 3
    assert found["progress"]["documents"]["queued"] == 1


def test_what_is_temporary_is_tried_again(service: Service) -> None:
    job = service.start("busy-1")
    assert service.ended(job)["status"] == "done"
    assert len(service.runs(job)) == 2
    assert service.job(job)["error"] is None


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("wrong", {"message": "The model is damaged.", "way_out": "Fetch it again."}),
        ("broken", {"message": "ModuleNotFoundError: No module named 'torch'", "way_out": None}),
        ("usage", {"message": "No such option: --colour", "way_out": None}),
    ],
)
def test_what_is_not_temporary_fails_at_once_with_its_reason(service: Service, name: str, error: dict[str, Any]) -> None:
    job = service.start(name)
    found = service.ended(job)
    assert found["status"] == "failed"
    assert found["error"]["message"] == error["message"]
    assert found["error"]["way_out"] == (error["way_out"] or f"All that it printed is in {service.data}/jobs/{job}.log.")
    assert len(service.runs(job)) == 1


def test_a_job_whose_checkpoint_the_disk_refuses_is_not_lost(serve: Callable[..., Any]) -> None:
    refuse = "BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
    of_an_attempt = f"CREATE TRIGGER refuse BEFORE INSERT ON operation_outputs {refuse}"
    of_the_end = f"CREATE TRIGGER refuse BEFORE UPDATE ON workflow_status WHEN NEW.status IN ('SUCCESS', 'ERROR') {refuse}"
    with serve(quiet=False) as service:
        for trigger in (of_an_attempt, of_the_end):
            with closing(sqlite3.connect(service.data / "jobs.sqlite", isolation_level=None)) as database:
                database.execute(trigger)
                job = service.start("a", "b")
                service.running(job, stored=2)
                time.sleep(0.5)
                assert service.job(job)["status"] in ("running", "queued")
                database.execute("DROP TRIGGER refuse")
            assert service.ended(job)["status"] == "done"
            assert service.stored(job) == ["a", "b"]


# -- cancel and resume ----------------------------------------------------------------------------------------------------


def test_cancelling_a_running_job_ends_its_process_and_resuming_goes_on(service: Service) -> None:
    job = service.start("a", "once-1", "b")
    process = service.running(job, stored=1)
    response = service.client.post(f"/v1/jobs/{job}/cancel")
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    assert gone(process)
    assert service.job(job)["status"] == "cancelled"
    assert service.client.post(f"/v1/jobs/{job}/cancel").status_code == 200
    assert service.stored(job) == ["a"]
    assert service.counts(job) == (2, 1, 0, 0)

    response = service.client.post(f"/v1/jobs/{job}/resume")
    assert response.status_code == 202
    assert service.ended(job)["status"] == "done"
    assert service.stored(job) == ["a", "once-1", "b"]
    assert service.counts(job) == (0, 3, 0, 0)
    assert service.job(job)["progress"]["documents"]["done"] == 3
    for path in ("cancel", "resume"):
        assert job in problem(service.client.post(f"/v1/jobs/{job}/{path}"), 409, "job-conflict")


def test_cancelling_and_resuming_at_once_never_runs_it_twice_at_a_time(service: Service) -> None:
    job = service.start("a", "once-1", "b")
    first = service.running(job, stored=1)
    service.client.post(f"/v1/jobs/{job}/cancel")
    service.client.post(f"/v1/jobs/{job}/resume")
    assert service.ended(job)["status"] == "done"
    assert not alive(first)
    assert service.stored(job) == ["a", "once-1", "b"]


def test_cancelling_a_queued_job(service: Service) -> None:
    hanging = service.start("hang")
    service.running(hanging)
    queued = service.start("a")
    assert service.job(queued)["status"] == "queued"
    assert problem(service.client.post(f"/v1/jobs/{queued}/resume"), 409, "job-conflict").startswith(queued)
    assert service.client.post(f"/v1/jobs/{queued}/cancel").json()["status"] == "cancelled"
    service.client.post(f"/v1/jobs/{hanging}/cancel")
    after = service.start("b")
    assert service.ended(after)["status"] == "done"
    assert service.runs(queued) == []
    assert service.client.post(f"/v1/jobs/{queued}/resume").status_code == 202
    assert service.ended(queued)["status"] == "done"


def test_a_process_that_does_not_listen_is_killed(service: Service) -> None:
    job = service.start("deaf")
    process = service.running(job)
    service.client.post(f"/v1/jobs/{job}/cancel")
    assert gone(process)


def test_a_failed_job_is_tried_anew(service: Service) -> None:
    job = service.start("wrong")
    assert service.ended(job)["status"] == "failed"
    assert service.client.post(f"/v1/jobs/{job}/resume").status_code == 202
    assert service.ended(job)["status"] == "failed"
    assert len(service.runs(job)) == 2


# -- servers that come and go ---------------------------------------------------------------------------------------------


def test_the_next_server_goes_on_with_a_job_when_one_is_told_to_stop(serve: Callable[..., Any]) -> None:
    with serve() as service:
        job = service.start("a", "b", "once-1", "c")
        behind = service.start("d")
        process = service.running(job, stored=2)
        service.process.terminate()
        assert service.process.wait(60) == 0
        assert gone(process)
        assert service.stored(job) == ["a", "b"]
    with serve() as service:
        assert service.ended(job)["status"] == "done"
        assert service.ended(behind)["status"] == "done"
        assert service.stored(job) == ["a", "b", "once-1", "c"]
        assert service.counts(job) == (0, 4, 0, 0)
        assert len(service.runs(job)) == 2


def test_of_two_servers_one_works_and_the_other_takes_over(serve: Callable[..., Any]) -> None:
    with serve() as first, serve() as second:
        jobs = [second.start("a"), first.start("b", "once-1")]
        assert second.ended(jobs[0])["status"] == "done"
        process = second.running(jobs[1], stored=1)
        assert int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]) == first.process.pid
        first.process.kill()
        assert second.ended(jobs[1])["status"] == "done"
        assert second.stored(jobs[1]) == ["b", "once-1"]
        assert second.ended(second.start("c"))["status"] == "done"


def test_an_orphan_is_not_worked_beside(serve: Callable[..., Any]) -> None:
    with serve() as service:
        job = service.start("a", "deaf")
        orphan = service.running(job, stored=1)
        service.process.kill()
        service.process.wait()
        os.kill(orphan, signal.SIGSTOP)  # it cannot even notice that it shall end
        with serve() as second:
            second.running(job)
            time.sleep(0.7)
            assert second.runs(job) == [orphan]
            os.kill(orphan, signal.SIGKILL)
            assert second.running(job, runs=2) != orphan
            second.client.post(f"/v1/jobs/{job}/cancel")
