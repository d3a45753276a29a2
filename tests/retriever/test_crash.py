"""Indexing is killed at many points: what was stored stays right, and the next run finishes as if nothing had happened."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from retriever.chunk import ChunkSize
from retriever.fill import Maker
from retriever.index.base import Generation
from retriever.index.embedded import EmbeddedGenerations
from retriever.ingest import Ingest
from retriever.live import Live
from retriever.load import source_of
from retriever.search import Mode, Searcher
from retriever.store import Store

HERE = Path(__file__).parent
SIZE = ChunkSize(10, 3)
"""As in `indexing_program.py`."""

WORDS = ["Reise", "Kosten", "Beleg", "Frist", "Urlaub", "Antrag", "Auto", "Bahn", "Hotel", "Essen", "Tarif", "DSH-2"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


def write_files(folder: Path, numbers: Sequence[int], *, seed: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        dice = random.Random(f"{seed} {number}")
        sentences = [f"{' '.join(dice.choices(WORDS, k=8))} {number}-{line}." for line in range(25)]
        (folder / f"f{number:02}.txt").write_text(f"Datei {number}\n\n" + "\n\n".join(sentences))


def start(data: Path, files: Path, *options: str) -> subprocess.Popen[str]:
    root = HERE.parents[1]
    return subprocess.Popen(
        [sys.executable, HERE / "indexing_program.py", data, files, *options],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_and_kill(process: subprocess.Popen[str], when: Callable[[list[str]], bool]) -> list[str]:
    """Kill the program as soon as what it said meets a condition. Return what it said."""
    said: list[str] = []
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.strip())
            if when(said):
                process.kill()
        process.wait(30)
    assert (said[-1] == "done") == (when is never), "it was not killed where it should have been"
    return said


def never(said: list[str]) -> bool:
    return False


def stored(said: Sequence[str]) -> int:
    return sum(line in ("added", "changed", "removed") for line in said)


def count(number: int) -> Callable[[list[str]], bool]:
    return lambda said: stored(said) == number


def step(name: str) -> Callable[[list[str]], bool]:
    return lambda said: said[-1] == name


def chunking(fakes: ModuleType) -> str:
    return Maker(fakes.FakeEncoder(), SIZE).stamp.chunking


def live(store: Store, data: Path) -> Generation | None:
    return EmbeddedGenerations(store, data / "index").live()


def searcher_of(store: Store, data: Path, fakes: ModuleType) -> Searcher:
    return Live(EmbeddedGenerations(store, data / "index"), fakes.encoders(fakes.FakeEncoder()), alpha=0.5).searcher()


def check_what_is_there(data: Path, fakes: ModuleType) -> int:
    """Assert what must hold at any moment. Return the number of current documents."""
    with Store(data) as store:
        known = store.known()
        # Whole, with a vector for each chunk: an entry without one is an error.
        entries = list(store.entries(store.current(store.revision()), chunking=chunking(fakes), encoder="fake-1"))
        passages = store.passages([entry.row for entry in entries])
        assert (len(known), len(passages)) == store.count(store.revision(), chunking(fakes))
        assert len(passages) == len(entries)
        spans = sorted((passage.source, passage.start, passage.end) for passage in passages.values())
        assert len(set(spans)) == len(spans)
        assert {source for source, _, _ in spans} == set(known)
        if live(store, data):
            for hit in searcher_of(store, data, fakes).search("Hotel Bahn", limit=5, merge=False):
                document = store.document_born(hit.revision)
                assert document is not None
                assert hit.text == document.text[hit.start : hit.end] != ""
        return len(known)


def everything(data: Path, fakes: ModuleType, mode: Mode) -> list[list[tuple[float, str, int, str]]]:
    """Return all hits of some queries. Ties are sorted by place, since chunk ids follow the order of events."""
    queries = ["Reise nach Antrag", "DSH-2", "17-3", "Hotel Essen Frist 4-11"]
    with Store(data) as store:
        searcher = searcher_of(store, data, fakes)
        assert searcher.index.revision == store.revision()
        return [
            sorted(
                (-round(hit.score, 5), Path(hit.source).name, hit.start, hit.text)
                for hit in searcher.search(query, limit=5000, mode=mode, merge=False)
            )
            for query in queries
        ]


def ingest(data: Path, files: Path, fakes: ModuleType, *, prune: bool = False) -> None:
    with Store(data) as store:
        maker, generations = Maker(fakes.FakeEncoder(), SIZE), EmbeddedGenerations(store, data / "index")
        Ingest(store, generations, maker, "fake-1", max_bytes=100_000, timeout_s=20, prune=prune).run([files])


def check_like_a_clean_run(data: Path, files: Path, clean: Path, fakes: ModuleType) -> None:
    ingest(clean, files, fakes)
    check_what_is_there(data, fakes)
    with Store(data) as store, Store(clean) as other:
        assert store.known() == other.known()
        assert set(store.known()) == {source_of(path) for path in files.iterdir()}
        counts = [one.count(one.revision(), chunking(fakes)) for one in (store, other)]
        assert counts[0] == counts[1]
    for mode in ("fused", "dense", "keyword"):  # by rank, ties count in the order of chunk ids, which may differ
        ours, theirs = everything(data, fakes, mode), everything(clean, fakes, mode)
        assert [len(hits) for hits in ours] == [len(hits) for hits in theirs]
        assert ours == theirs
    assert len([path for path in (data / "index").iterdir() if path.name.startswith(".")]) == 0


def test_killed_at_every_stage(tmp_path: Path, fakes: ModuleType) -> None:
    files, data = tmp_path / "files", tmp_path / "data"
    write_files(files, range(40))
    there = 0
    for when in [step("encode"), *map(count, (1, 2, 7, 4, 9)), *map(step, ("encode", "build", "vectors", "publish"))]:
        run_and_kill(start(data, files), when)
        now = check_what_is_there(data, fakes)
        assert now >= there
        there = now
    assert there == 40
    with Store(data) as store:
        assert live(store, data) is None
    run_and_kill(start(data, files), step("published"))
    with Store(data) as store:
        assert live(store, data) is not None
    said = run_and_kill(start(data, files), never)
    assert said == ["unchanged"] * 40 + ["collect", "done"]
    check_like_a_clean_run(data, files, tmp_path / "clean", fakes)

    # Now with a live generation to keep: some files change, some go, some come.
    write_files(files, range(12), seed=1)
    write_files(files, range(40, 45))
    for number in range(20, 25):
        (files / f"f{number:02}.txt").unlink()
    with Store(data) as store:
        shown, before = live(store, data), everything_of_generation(store, data, fakes)
        for when in [count(3), step("removed"), step("vectors"), step("publish")]:
            run_and_kill(start(data, files, "--prune"), when)
            check_what_is_there(data, fakes)
            assert live(store, data) == shown
            assert everything_of_generation(store, data, fakes) == before
    run_and_kill(start(data, files, "--prune"), step("collect"))
    with Store(data) as store:
        assert live(store, data) != shown
    said = run_and_kill(start(data, files, "--prune"), never)
    assert said == ["unchanged"] * 40 + ["collect", "done"]
    check_like_a_clean_run(data, files, tmp_path / "clean-again", fakes)


def everything_of_generation(store: Store, data: Path, fakes: ModuleType) -> list[tuple[str, float]]:
    searcher = searcher_of(store, data, fakes)
    return [(hit.text, hit.score) for hit in searcher.search("Hotel Bahn", limit=5000, merge=False)]


def test_killed_at_random_times(tmp_path: Path, fakes: ModuleType) -> None:
    files, data = tmp_path / "files", tmp_path / "data"
    write_files(files, range(30))
    dice = random.Random(3)
    for _ in range(4):
        process = start(data, files)
        with process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(dice.uniform(0, 0.5))
            process.kill()
        check_what_is_there(data, fakes)
    ingest(data, files, fakes)
    check_like_a_clean_run(data, files, tmp_path / "clean", fakes)


def test_of_two_at_once_one_succeeds(tmp_path: Path, fakes: ModuleType) -> None:
    files, data = tmp_path / "files", tmp_path / "data"
    write_files(files, range(3))
    both = [start(data, files, "--hold") for _ in range(2)]
    # The one that has the lock waits for a line before it encodes; so the other one must give up.
    while all(process.poll() is None for process in both):
        time.sleep(0.02)
    loser, winner = sorted(both, key=lambda process: process.poll() is None)
    said, _ = loser.communicate()
    assert loser.returncode == 1
    assert said.startswith("locked Another process is writing to ")
    said, _ = winner.communicate("\n")
    assert winner.returncode == 0
    assert said.splitlines()[-1] == "done"
    assert [first for first, second in pairwise(said.splitlines()) if second == "encode"] == ["holding"]
    check_like_a_clean_run(data, files, tmp_path / "clean", fakes)
