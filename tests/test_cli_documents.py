"""`beleg documents`, run as people and programs run it: what is listed, shown, added and removed, and the exit codes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Beleg = Callable[..., "subprocess.CompletedProcess[str]"]

NOTES = "# Ärger 🧾 mit Belegen\n\nSie gelten dreißig Tage.\n\n## Fristen\n\nEnde."


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("documents")
    files = root / "files"
    files.mkdir()
    (files / "notes.md").write_text(NOTES, encoding="utf-8")
    (files / "plan.txt").write_text("The plan\n\nAll stays as it is.", encoding="utf-8")
    (files / "broken.pdf").write_bytes(b"no PDF")
    (files / "setup.exe").write_bytes(b"MZ")
    return root


@pytest.fixture(scope="module")
def added(beleg: Beleg, root: Path) -> subprocess.CompletedProcess[str]:
    """One file in its own place, and two that were handed over, of which one is broken."""
    indexed = beleg("index", root / "files/plan.txt", data_dir=root / "data")
    assert indexed.returncode == 0, indexed.stderr
    files = (root / "files/notes.md", root / "files/broken.pdf")
    return beleg("documents", "add", *files, "--folder", "hr/regeln", data_dir=root / "data")


@pytest.fixture
def data(root: Path, added: object) -> Path:
    return root / "data"


def listed(beleg: Beleg, data: Path, *options: object) -> list[dict[str, Any]]:
    done = beleg("documents", "list", "--json", *options, data_dir=data)
    assert (done.returncode, done.stderr) == (0, "")
    return list(json.loads(done.stdout)["documents"])


def test_adding_copies_and_indexes(added: subprocess.CompletedProcess[str], data: Path, root: Path) -> None:
    assert added.returncode == 3
    assert "1 added" in added.stdout
    assert "broken.pdf" in added.stderr
    assert (data / "uploads/hr/regeln/notes.md").read_text(encoding="utf-8") == NOTES
    assert (root / "files/notes.md").exists()


def test_files_that_would_be_one_are_refused(beleg: Beleg, root: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.txt").write_text("Another plan.", encoding="utf-8")
    done = beleg("documents", "add", root / "files/plan.txt", tmp_path / "plan.txt", data_dir=tmp_path / "data")
    assert done.returncode == 1
    assert "plan.txt" in done.stderr
    assert not list((tmp_path / "data").rglob("plan.txt"))


def test_the_list(beleg: Beleg, data: Path) -> None:
    done = beleg("documents", "list", data_dir=data)
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert "Ärger 🧾 mit Belegen" in first
    assert "markdown" in first
    assert "The plan" in second
    assert [item["title"] for item in listed(beleg, data, "--query", "belegen arger")] == ["Ärger 🧾 mit Belegen"]
    assert [(item["folder"], item["uploaded"]) for item in listed(beleg, data)] == [("regeln", True), ("files", False)]
    assert [item["name"] for item in listed(beleg, data, "--kind", "text")] == ["plan.txt"]
    assert listed(beleg, data, "--folder", "elsewhere") == []
    few = beleg("documents", "list", "--limit", "1", data_dir=data)
    assert "1 of 2" in few.stderr


def test_one_document(beleg: Beleg, data: Path) -> None:
    (item,) = listed(beleg, data, "--kind", "markdown")
    shown = beleg("documents", "show", item["document"], data_dir=data).stdout
    assert "Ärger 🧾 mit Belegen" in shown
    assert "Fristen" in shown
    assert item["source"] in shown
    text = beleg("documents", "show", item["document"], "--text", data_dir=data).stdout.rstrip("\n")
    start = text.index("Sie gelten")
    span = beleg("documents", "show", item["document"], "--start", start, "--end", start + 10, data_dir=data)
    assert span.stdout == "Sie gelten\n"
    found = json.loads(beleg("documents", "show", item["document"], "--json", data_dir=data).stdout)
    assert found | item == found
    assert [heading["text"] for heading in found["headings"]] == ["Ärger 🧾 mit Belegen", "Fristen"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "0" * 16), 1, "no document"),
        (("remove", "0" * 16, "--yes"), 1, "no document"),
        (("remove",), 2, "Missing argument"),
        (("list", "--sort", "size"), 2, "Invalid value"),
        (("add", "nowhere.pdf"), 2, "nowhere.pdf"),
    ],
)
def test_what_cannot_be(beleg: Beleg, data: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = beleg("documents", *arguments, data_dir=data)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_copied_if_one_of_the_files_is_refused(beleg: Beleg, data: Path, root: Path) -> None:
    files = (root / "files/plan.txt", root / "files/setup.exe")
    done = beleg("documents", "add", *files, data_dir=data)
    assert done.returncode == 1
    assert ".pdf" in done.stderr  # the kinds that are read
    assert not (data / "uploads/plan.txt").exists()
    escaped = beleg("documents", "add", files[0], "--folder", "../..", data_dir=data)
    assert escaped.returncode == 1
    assert not (root / "plan.txt").exists()


def test_nothing_is_indexed_yet(beleg: Beleg, tmp_path: Path) -> None:
    done = beleg("documents", "list", data_dir=tmp_path / "none")
    assert done.returncode == 0
    assert "beleg index" in done.stdout


def test_removing(beleg: Beleg, data: Path, root: Path) -> None:
    ids = {item["name"]: item["document"] for item in listed(beleg, data)}
    asked = beleg("documents", "remove", *ids.values(), data_dir=data)
    assert asked.returncode == 130  # nobody has answered
    assert "Remove 2" in asked.stderr
    assert len(listed(beleg, data)) == 2

    done = beleg("documents", "remove", *ids.values(), "--yes", "--json", data_dir=data)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {Path(source).name for source in told["removed"]} == {"notes.md", "plan.txt"}
    assert [Path(source).name for source in told["deleted"]] == ["notes.md"]
    assert not (data / "uploads/hr/regeln/notes.md").exists()
    assert (root / "files/plan.txt").exists()
    assert listed(beleg, data) == []

    again = beleg("documents", "remove", ids["plan.txt"], "--yes", data_dir=data)
    assert again.returncode == 1
    assert beleg("documents", "remove", ids["plan.txt"], "--yes", "--missing-ok", data_dir=data).returncode == 0
