"""Loading in a worker process: whatever a file does to the worker, the other files load and nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from retriever.errors import LoadError
from retriever.load.isolated import Loader
from retriever.schema import Document

# A module of its own, since the worker imports its loader by name.
MISBEHAVING = """
import os, signal, sys, time
from retriever.load import load

def misbehave(path, *, source=None, max_bytes):
    match path.stem:
        case "dies": os.kill(os.getpid(), signal.SIGKILL)
        case "hangs":
            path.with_suffix(".pid").write_text(str(os.getpid()))
            time.sleep(60)
        case "eats": bytearray(1 << 40)
        case "fails": raise KeyError("x")
        case "heavy": raise KeyError(str("torch" in sys.modules))
    return load(path, source=source, max_bytes=max_bytes)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("misbehaving", None)


def files(folder: Path, *names: str) -> list[tuple[Path, str]]:
    for name in names:
        (folder / f"{name}.txt").write_text(f"Text von {name}")
    return [(folder / f"{name}.txt", name) for name in names]


def test_a_file_that_misbehaves_costs_only_itself(folder: Path) -> None:
    from misbehaving import misbehave  # type: ignore[import-not-found]

    names = ("a", "dies", "b", "hangs", "c", "eats", "d", "fails", "heavy", "e")
    with Loader(max_bytes=1000, timeout_s=2, loader=misbehave) as loader:
        outcomes = list(loader.load_many(files(folder, *names)))
    texts = [outcome.text for outcome in outcomes if isinstance(outcome, Document)]
    assert texts == [f"Text von {name}" for name in "abcde"]
    reasons = {outcome.source: outcome.reason for outcome in outcomes if isinstance(outcome, LoadError)}
    assert reasons == {
        "dies": "the parser crashed",
        "hangs": "the parser took longer than 2 s",
        "eats": "the parser ran out of memory",
        "fails": "the parser failed (KeyError: 'x')",
        "heavy": "the parser failed (KeyError: 'False')",
    }


def test_only_a_few_files_are_taken_ahead(folder: Path) -> None:
    taken = []

    def offer() -> Iterator[tuple[Path, str]]:
        for item in files(folder, *(f"f{number:02}" for number in range(20))):
            taken.append(item)
            yield item

    with Loader(max_bytes=1000) as loader:
        outcomes = loader.load_many(offer())
        assert isinstance(next(outcomes), Document)
        assert len(taken) <= 5
        assert [outcome.source for outcome in outcomes if isinstance(outcome, Document)] == [s for _, s in taken[1:]]


def test_outside_its_block_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="outside"):
        next(Loader(max_bytes=1).load_many([(Path("a"), "a")]))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_worker_ends_with_its_parent(folder: Path, how: signal.Signals) -> None:
    files(folder, "hangs")
    program = (
        "from pathlib import Path\nfrom misbehaving import misbehave\nfrom retriever.load.isolated import Loader\n"
        "if __name__ == '__main__':\n"
        "    with Loader(max_bytes=1000, timeout_s=50, loader=misbehave) as loader:\n"
        f"        list(loader.load_many([(Path({str(folder / 'hangs.txt')!r}), 'hangs')]))\n"
    )
    script = folder / "program.py"
    script.write_text(program)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(folder)])}
    parent = subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    note = folder / "hangs.pid"
    wait_until(lambda: note.exists() and note.read_text() != "")
    worker = int(note.read_text())
    # As from a keyboard, an interrupt goes to the worker as well.
    os.killpg(parent.pid, how) if how is signal.SIGINT else parent.send_signal(how)
    parent.wait(10)
    wait_until(lambda: not alive(worker))


def wait_until(condition: object, seconds: float = 10) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
