"""What is kept is kept whole, whoever else writes and whatever is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.ledger import append, lines

PROGRAM = """
import sys
from pathlib import Path
from retriever.ledger import append
for number in range(40):
    append(Path(sys.argv[1]), {"who": sys.argv[2], "number": number, "text": "ü🧾" * 500})
"""


@given(st.lists(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()), max_size=5), st.data())
def test_whatever_is_torn_off_what_was_kept_comes_back(
    tmp_path_factory: pytest.TempPathFactory, facts: list[dict[str, object]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "facts.jsonl"
    expected: list[dict[str, object]] = []
    for fact in facts:
        append(path, fact)
        expected.append(fact)
        assert list(lines(path)) == expected
        torn = json.dumps({"torn": "x"}).encode()[: data.draw(st.integers(0, 13))]
        with path.open("ab") as file:
            file.write(torn)
        if len(torn) == 13:  # whole, apart from its end
            expected.append({"torn": "x"})


def test_none_without_a_file(tmp_path: Path) -> None:
    assert list(lines(tmp_path / "none.jsonl")) == []


def test_a_long_torn_line_is_cut_away(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b"x" * 300_000)
    append(path, {"b": 2})
    assert path.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
    path.write_bytes(b"x" * 300_000)
    append(path, {"b": 2})
    assert path.read_bytes() == b'{"b": 2}\n'


def test_lines_that_are_no_facts_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(b'\xef\xbb\xbf\n[]\n1\n{"a": 1}\r\n\n{"a"\n' + b"[" * 100_000 + b'\n{"b": 2}')
    assert list(lines(path)) == [{"a": 1}, {"b": 2}]


def test_half_a_character(tmp_path: Path) -> None:
    append(tmp_path / "facts.jsonl", {"source": "Bericht_\udcfc.pdf"})
    assert list(lines(tmp_path / "facts.jsonl")) == [{"source": "Bericht_\udcfc.pdf"}]


def test_several_processes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    running = [subprocess.Popen([sys.executable, "-c", PROGRAM, path, str(who)]) for who in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    told = [(fact["who"], fact["number"]) for fact in lines(path)]
    assert len(told) == 120
    for who in "012":
        assert [number for teller, number in told if teller == who] == list(range(40))


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    append(path, {"a": 1})
    program = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom retriever.ledger import append\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: append(Path(sys.argv[1]), {'text': 'x' * 5000})\n"
        "except OSError as error: print(error.strerror)\n"
    )
    said = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert said.stdout == "File too large\n"
    assert path.read_bytes() == b'{"a": 1}\n'
