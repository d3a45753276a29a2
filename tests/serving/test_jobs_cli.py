"""`beleg jobs` with the real `beleg index` behind it: what people type, and what programs read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from serving.cli import jobs
from serving.errors import JobConflict, JobMissing

Beleg = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


@contextmanager
def server(data: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    here = Path(__file__).parent
    command = [sys.executable, here / "jobs_server.py", data, data.parent, "beleg", ""]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.terminate()
            process.wait(60)


def test_a_server_is_killed_in_the_middle_and_every_document_is_done_once(
    beleg: Beleg, beleg_environment: Callable[[Mapping[str, str]], dict[str, str]], tmp_path: Path
) -> None:
    data, files = tmp_path / "data", tmp_path / "files"
    files.mkdir()
    for number in range(8):
        lines = [f"Absatz {number} {line}: Die Pauschale {number * line} gilt." for line in range(2)]
        (files / f"{number:02}.txt").write_text("\n\n".join(lines), encoding="utf-8")
    (files / "empty.txt").write_bytes(b"")

    started = beleg("jobs", "index", "files", "--prune", "--json", cwd=tmp_path, data_dir=data)
    assert started.returncode == 0, started.stderr
    job = json.loads(started.stdout)["id"]
    # Nobody carries it out yet, and that is said.
    listed = beleg("jobs", "list", data_dir=data)
    assert job in listed.stdout
    assert "queued" in listed.stdout
    assert "beleg serve" in listed.stderr

    environment = beleg_environment({})
    journal = data / "jobs" / f"{job}.jsonl"
    with server(data, environment) as first:
        until = time.monotonic() + 120
        while not journal.exists() or '"total"' not in journal.read_text(encoding="utf-8"):
            assert time.monotonic() < until
            time.sleep(0.05)
        first.kill()
        first.wait()
    with server(data, environment):
        done = beleg("jobs", "wait", job, data_dir=data)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "8 done, 1 failed" in done.stdout

    shown = json.loads(beleg("jobs", "show", job, "--failed", "--json", data_dir=data).stdout)
    assert (shown["status"], shown["left_out"]) == ("done", True)
    assert shown["arguments"] == {"paths": [str(files)], "prune": True}
    assert [Path(item["source"]).name for item in shown["documents"]] == ["empty.txt"]
    events = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines() if line]
    added = [event["source"] for event in events if event["event"] == "outcome" and event["status"] == "added"]
    assert len(added) == len(set(added)) == 8
    assert "empty.txt" in beleg("jobs", "show", job, "--failed", data_dir=data).stdout


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """Run `beleg jobs` in this process, which is quicker; what `beleg` makes of errors is tested elsewhere."""
    environment = {name: None for name in os.environ if name.startswith("BELEG_")} | {"BELEG_DATA_DIR": str(tmp_path / "data")}
    return lambda *arguments: CliRunner().invoke(jobs, arguments, env=environment)


def test_what_cannot_be_done(run: Callable[..., Result]) -> None:
    assert isinstance(run("show", "index-20261121-153012-abcd").exception, JobMissing)
    assert isinstance(run("cancel", "../x").exception, JobMissing)
    assert "There are no jobs." in run("list").output
    for arguments, said in [(("index", "missing"), "missing"), (("index",), "PATHS"), (("rebuild", "--margin", "2"), "margin")]:
        result = run(*arguments)
        assert result.exit_code == 2
        assert said in result.output


def test_cancelling_waiting_and_resuming(run: Callable[..., Result]) -> None:
    job = json.loads(run("rebuild", "--chunk-tokens", "64", "--encoder", ".", "--json").stdout)["id"]
    second = run("rebuild").exception
    assert isinstance(second, JobConflict)
    assert job in second.message
    assert f"{job} cancelled" in run("cancel", job).output
    waited = run("wait", job)
    assert (waited.exit_code, "cancelled" in waited.output) == (1, True)
    assert json.loads(run("wait", job, "--json").stdout)["status"] == "cancelled"
    resumed = run("resume", job)
    assert f"{job} queued" in resumed.stdout
    assert "beleg serve" in resumed.stderr
    shown = json.loads(run("show", job, "--json").stdout)
    assert shown["arguments"] == {"chunk_tokens": 64, "encoder": str(Path.cwd())}
    assert [item["id"] for item in json.loads(run("list", "--json").stdout)["jobs"]] == [job]


@pytest.mark.parametrize(
    ("typed", "arguments"),
    [
        (("rollback",), {}),
        (("rollback", "--reader"), {"which": "reader"}),
        (("rollback", "--index"), {"which": "index"}),
        (
            ("train", "reader", "reader-raft-smollm2", "--set", "adapter.type=lora", "--name", "law"),
            {"model": "reader", "recipe": "reader-raft-smollm2", "set": ["adapter.type=lora"], "name": "law"},
        ),
        (("export", "law"), {"candidate": "law", "quantize": []}),
        (("export", "law", "--quantize", "q8_0", "--quantize", "f16"), {"candidate": "law", "quantize": ["q8_0", "f16"]}),
        (("promote", "law", "--file", "model-f16.gguf"), {"candidate": "law", "file": "model-f16.gguf", "unmerged": False}),
        (("promote", "law", "--unmerged"), {"candidate": "law", "unmerged": True}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_typed_is_what_is_queued(
    run: Callable[..., Result], typed: tuple[str, ...], arguments: dict[str, object]
) -> None:
    job = json.loads(run(*typed, "--json").stdout)
    assert job["kind"] == typed[0]
    assert job["arguments"] == arguments
