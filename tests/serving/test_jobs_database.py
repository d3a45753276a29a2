"""A job database that cannot be used says so, and how to mend it; and nobody else is told anything."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from retriever.errors import SettingsError
from retriever.settings import Settings
from serving.errors import JobMissing, JobsUnavailable
from serving.jobs.jobs import Jobs
from serving.jobs.kinds import IndexArguments
from serving.run import run

PASSWORD = "do-not-tell-4711"
WORK = IndexArguments(paths=["/a"])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", port=0)


@pytest.fixture
def jobs(settings: Settings) -> Iterator[Jobs]:
    opened = Jobs(settings)
    yield opened
    opened.close()


def test_nothing_is_made_before_it_is_needed(jobs: Jobs, settings: Settings) -> None:
    assert jobs.attended() is False
    with pytest.raises(JobMissing):
        jobs.get("no id at all")
    assert not settings.data_dir.exists()
    assert jobs.newest(10) == []
    assert (settings.data_dir / "jobs.sqlite").exists()


def test_a_file_that_is_no_database(jobs: Jobs, settings: Settings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "jobs.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(JobsUnavailable, match=r"jobs\.sqlite cannot be used.*Move it away"):
        jobs.newest(1)
    # A server says so at its start, not when the first job comes.
    with pytest.raises(JobsUnavailable, match=r"jobs\.sqlite"):
        run(settings, open_pipeline=lambda _: Closable())


class Closable:
    closed = False

    def check(self) -> None:
        pass

    def close(self) -> None:
        Closable.closed = True

    search = ask = None  # type: ignore[var-annotated]


def test_a_database_of_a_newer_version_is_left_alone(jobs: Jobs, settings: Settings) -> None:
    jobs.start("index", WORK)
    jobs.close()
    file = settings.data_dir / "jobs.sqlite"
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(JobsUnavailable, match="newer version"):
        jobs.newest(1)


def test_a_database_that_is_damaged_inside(jobs: Jobs, settings: Settings) -> None:
    jobs.start("index", WORK)
    jobs.close()
    with closing(sqlite3.connect(settings.data_dir / "jobs.sqlite")) as database:
        database.execute("PRAGMA journal_mode=DELETE")
        database.execute("DROP TABLE workflow_status")
    with pytest.raises(JobsUnavailable, match="workflow_status"):
        jobs.newest(1)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JobsUnavailable, match="can be written"):
        Jobs(Settings(data_dir=tmp_path / "file" / "data")).newest(1)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_full_disk(jobs: Jobs, settings: Settings) -> None:
    jobs.start("index", WORK)
    jobs.close()
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from retriever.settings import Settings; from serving.jobs.jobs import Jobs\n"
        "from serving.jobs.kinds import IndexArguments\n"
        "jobs = Jobs(Settings(data_dir=Path(sys.argv[1])))\n"
        "jobs.check()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from serving.errors import JobsUnavailable\n"
        "try: jobs.start('index', IndexArguments(paths=['/a' * 1000]))\n"
        "except JobsUnavailable as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, settings.data_dir], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert "cannot be used" in done.stdout
    assert "disk" in done.stdout
    assert "INSERT" not in done.stdout
    assert len(jobs.newest(10)) == 1


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://u:{}@h/d", "sqlite:///x", "postgresql://u:{}@h:port/d", "postgresql://u:{}@h"]
)
def test_an_address_that_is_none_does_not_tell_the_password(tmp_path: Path, url: str) -> None:
    jobs = Jobs(Settings(data_dir=tmp_path, jobs_database=SecretStr(url.format(PASSWORD))))
    with pytest.raises(SettingsError, match="jobs_database") as caught:
        jobs.newest(1)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("offline", [True, False])
def test_a_database_server_that_does_not_answer(tmp_path: Path, offline: bool) -> None:
    url = f"postgresql://user:{PASSWORD}@127.0.0.1:1/beleg"
    jobs = Jobs(Settings(data_dir=tmp_path, jobs_database=SecretStr(url), offline=offline))
    with pytest.raises(JobsUnavailable, match="jobs_database") as caught:
        jobs.newest(1)
    assert PASSWORD not in str(caught.value)
    assert jobs.attended() is None


def test_offline_means_the_job_database_too() -> None:
    # Its driver connects in C, where no audit hook sees it.
    program = (
        "from retriever.offline import OfflineError, go_offline; go_offline()\n"
        "from pathlib import Path; from retriever.settings import Settings; from serving.jobs.jobs import Jobs\n"
        "try: Jobs(Settings(data_dir=Path('/nowhere'), offline=True, jobs_database='postgresql://u@8.8.8.8/d')).newest(1)\n"
        "except OfflineError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "offline is set" in done.stdout


def test_many_at_once(jobs: Jobs) -> None:
    started: list[str] = []
    threads = [threading.Thread(target=lambda: started.append(jobs.start("index", WORK).id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(started)) == 8
    assert [job.id for job in jobs.newest(8)] == sorted(started, reverse=True)


def test_a_job_of_a_kind_from_a_later_version_is_shown(jobs: Jobs, settings: Settings) -> None:
    job = jobs.start("index", WORK).id
    jobs.close()
    with closing(sqlite3.connect(settings.data_dir / "jobs.sqlite")) as database:
        later = job.replace("index", "train")
        database.execute("UPDATE workflow_status SET workflow_uuid = ?", [later])
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
            if table != "workflow_status" and "workflow_uuid" in columns:
                database.execute(f"UPDATE {table} SET workflow_uuid = ?", [later])
            if "inputs" in columns:
                database.execute(f"UPDATE {table} SET inputs = replace(inputs, '\"index\"', '\"train\"')")
        database.commit()
    (found,) = jobs.newest(1)
    assert (found.id, found.kind, found.status) == (later, "train", "queued")
    assert jobs.cancel(later).status == "cancelled"


def test_carrying_out_a_job_connects_to_nobody_and_prints_nothing(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.sendto', 'socket.bind', 'socket.getaddrinfo'):\n"
        "        print(event, arguments, flush=True)\n"
        "sys.addaudithook(watch)\n"
        "import time; from pathlib import Path; from retriever.settings import Settings\n"
        "from serving.jobs.jobs import Jobs; from serving.jobs.kinds import IndexArguments\n"
        "from serving.jobs.worker import JobWorker\n"
        "settings = Settings(data_dir=Path(sys.argv[1])); jobs = Jobs(settings)\n"
        "worker = JobWorker(settings, jobs, module='fake_beleg', poll_s=0.05)\n"
        "worker.start(); job = jobs.start('index', IndexArguments(paths=['/a'])).id\n"
        "until = time.monotonic() + 20\n"
        "while jobs.get(job).status != 'done' and time.monotonic() < until: time.sleep(0.02)\n"
        "print(jobs.get(job).status); worker.stop(); jobs.close()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-W", "error", "-c", program, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert (done.stdout, done.stderr) == ("done\n", "")
