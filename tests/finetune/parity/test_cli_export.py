from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from filelock import FileLock

from finetune.candidate import Base, Manifest, open_candidate, write_manifest
from finetune.cli_export import export
from finetune.export import Export, ExportRefused
from finetune.exportable import exportable
from finetune.merge import open_adapter
from finetune.parity.cases import CASES
from finetune.parity.limits import Effort
from finetune.parity.result import Cause
from finetune.raft.row import Passage, RaftRow, write_raft
from finetune.servable import exported
from reader.engine.weights import open_base
from reader.quotes import Span
from retriever.errors import BelegError, ModelError, SettingsError
from retriever.models import file_hash, folder_fingerprint

EFFORT = Effort(rendered=12, short=2, full=1, tail=16, context=1536, answers=2, answer_tokens=12)


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELEG_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def open_export(base: Path, adapter: Path, out: Path, **options: Any) -> Export:
    chosen = {"effort": EFFORT, "threads": 1, "kinds": ("f16",), **options}
    return Export(open_base(str(base)), open_adapter(adapter), out, **chosen)


def damaged(tiny_base: Path, folder: Path) -> Path:
    """Copy a base whose tokenizer.model has its scores turned round: another one got there by mistake."""
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2
    shutil.copytree(tiny_base, folder)
    path = folder / "tokenizer.model"
    model = proto.ModelProto.FromString(path.read_bytes())
    for piece in model.pieces:
        piece.score = -1000.0 - piece.score
    path.write_bytes(model.SerializeToString())
    return folder


def test_a_healthy_export(tiny_base: Path, lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "reader"
    exported = open_export(tiny_base, lora, out, kinds=("f16", "q8_0")).run()
    assert exported.way == "original"
    assert sorted(path.name for path in out.iterdir()) == [
        "export.json",
        "model-f16.gguf",
        "model-q8_0.gguf",
        "parity.html",
        "parity.json",
    ]
    assert exported.files == {name: file_hash(out / name) for name in ("model-f16.gguf", "model-q8_0.gguf")}
    told = json.loads((out / "parity.json").read_text(encoding="utf-8"))
    assert told["passed"] is True
    assert told["files"] == exported.files
    page = (out / "parity.html").read_text(encoding="utf-8")
    assert "every link holds" in page
    assert "http" not in page.replace("http-equiv", "").split("<body>")[0]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_refused_export_leaves_nothing_but_its_report(tiny_base: Path, lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "reader"
    with pytest.raises(ExportRefused, match="Nothing was exported") as caught:
        open_export(damaged(tiny_base, tmp_path / "base"), lora, out).run()
    assert not out.exists()
    assert Cause.TOKENIZER in caught.value.parity.causes
    assert caught.value.way_out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "reader.refused"]
    assert sorted(path.name for path in (tmp_path / "reader.refused").iterdir()) == ["parity.html", "parity.json"]
    page = (tmp_path / "reader.refused" / "parity.html").read_text(encoding="utf-8")
    assert "another tokenizer" in page
    assert "&lt;ANSWER&gt;" in page or "trained [" in page


def test_adapter_only(tiny_base: Path, lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "reader"
    exported = open_export(tiny_base, lora, out, adapter_only=True).run()
    assert sorted(exported.files) == ["adapter.gguf", "base-f16.gguf"]
    assert [link.name for link in exported.parity.links] == ["tokens", "adapter"]


def test_a_whole_tuned_model(tiny_base: Path, tmp_path: Path) -> None:
    exported = open_export(tiny_base, tiny_base, tmp_path / "reader").run()
    assert [link.name for link in exported.parity.links] == ["tokens", "f16", "served-f16"]


def test_a_folder_that_is_there_already_is_left_alone(tiny_base: Path, lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "reader"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(BelegError, match="exists already"):
        open_export(tiny_base, lora, out).run()
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_two_exports_to_one_folder(tiny_base: Path, lora: Path, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".reader.lock"), pytest.raises(BelegError, match="Another export"):
        open_export(tiny_base, lora, tmp_path / "reader").run()


def test_what_a_killed_export_left_is_cleared(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / ".reader.partial" / "work").mkdir(parents=True)
    (tmp_path / ".reader.partial" / "model-q8_0.gguf").write_bytes(b"half")
    exported = open_export(tiny_base, tiny_base, tmp_path / "reader").run()
    assert sorted(exported.files) == ["model-f16.gguf"]


def test_an_unknown_quantization_is_refused_first(tiny_base: Path, lora: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="q9 is no quantization"):
        open_export(tiny_base, lora, tmp_path / "reader", kinds=("q9",)).run()
    assert not list(tmp_path.iterdir())


def run(*arguments: str) -> Any:
    return CliRunner().invoke(export, list(arguments))


def test_the_command(tiny_base: Path, lora: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    rows = [
        {"question": "Wo hängt der Schlüssel? 🔑", "passages": [{"text": "Er hängt im Büro.", "title": "Schlüssel"}]},
        {"question": "Who?", "passages": ["Mrs Amadi keeps it. She is in at nine."]},
    ]
    prompts.write_text("\ufeff" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    out = tmp_path / "reader"
    result = run(
        str(lora), "--base", str(tiny_base), "--out", str(out), "--quantize", "F16", "--prompts", str(prompts),
        "--context", "1024", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["passed"]
    assert list(told["files"]) == ["model-f16.gguf"]
    assert told["merged"] == "original"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no questions"),
        ("{", r"line 1: is no JSON"),
        ("[]", "line 1: is no JSON object"),
        ('{"question": "?"}\n', "line 1, field passages: must be a list"),
        ('\n{"question": " ", "passages": ["x"]}', "line 2, field question"),
        ('{"question": "?", "passages": ["x", 3]}', r"field passages\[1\]: must be a text"),
        ('{"question": "?", "passages": [{"text": " "}]}', r"field passages\[0\].text"),
        ('{"question": "?", "passages": [{"text": "x", "headings": "y"}]}', r"field passages\[0\].headings"),
    ],
)
def test_prompts_that_are_none(tiny_base: Path, lora: Path, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(text, encoding="utf-8")
    result = run(str(lora), "--base", str(tiny_base), "--out", str(tmp_path / "o"), "--prompts", str(path))
    assert isinstance(result.exception, BelegError)
    assert "prompts.jsonl" in result.exception.message
    with pytest.raises(BelegError, match=message):
        raise result.exception


def test_prompts_that_are_not_utf_8(tiny_base: Path, lora: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    result = run(str(lora), "--base", str(tiny_base), "--out", str(tmp_path / "o"), "--prompts", str(path))
    assert isinstance(result.exception, BelegError)
    assert "not UTF-8" in result.exception.message


def test_options_that_exclude_each_other(tiny_base: Path, lora: Path, tmp_path: Path) -> None:
    result = run(str(lora), "--base", str(tiny_base), "--out", "o", "--adapter-only", "--quantize", "q8_0")
    assert result.exit_code == 2


PASSAGE = "Guests pay 9.40 euros. Staff pay 6.80 euros."
RECIPE = {"prompt": {"chain_of_thought": True}, "export": {"quantizations": ["f16"], "merge": "original"}}


class TestCandidate:
    """What a candidate's manifest says need not be typed."""

    @pytest.fixture
    def folder(self, tiny_base: Path, lora: Path, tmp_path: Path) -> Path:
        folder = tmp_path / "data" / "candidates" / "law"
        shutil.copytree(lora, folder / "model")
        (folder / "model" / "calibration.json").write_text('{"shots": false, "quotable": 3}')
        passage = Passage(PASSAGE, "Canteen", (), "golden", "a.txt", 0, len(PASSAGE), "en")
        silent = RaftRow("0", "Who pays?", (passage,), None, (), "", "", abstains=True)
        told = RaftRow("1", "What do guests pay?", (passage,), 1, (Span(1, 0, 22),), "", "9.40 euros", abstains=False)
        write_raft(folder / "test.jsonl", [silent, told])
        self.describe(folder, tiny_base)
        return folder

    def describe(self, folder: Path, base: Path, **more: Any) -> None:
        facts = {"kind": "reader", "name": "law", "created": "2026-11-21T10:00:00+00:00", "recipe": RECIPE, "prompt": "p"}
        facts["base"] = Base(reference=str(base), fingerprint=open_base(str(base)).fingerprint)
        facts["fingerprint"] = folder_fingerprint(folder / "model")
        write_manifest(folder, Manifest.model_validate(facts | more))

    def test_by_its_name(self, folder: Path) -> None:
        result = run("law", "--context", "1024", "--json")
        assert result.exit_code == 0, (result.output, result.exception)
        told = json.loads(result.stdout)
        assert (told["folder"], list(told["files"]), told["merged"]) == (str(folder / "export"), ["model-f16.gguf"], "original")
        calibration = (folder / "export" / "calibration.json").read_bytes()
        assert calibration == (folder / "model" / "calibration.json").read_bytes()
        candidate = open_candidate("law", folder.parents[1])
        assert exported(candidate).reader == str(folder / "export" / "model-f16.gguf")
        parity = json.loads((folder / "export" / "parity.json").read_text())
        assert parity["adapter"] == "law"
        # Once more, and nothing is written over.
        assert "exists already" in str(run("law").exception)
        # Another training under the same name is not what was exported.
        (folder / "model" / "adapter_config.json").write_text((folder / "model" / "adapter_config.json").read_text() + " ")
        self.describe(folder, Path(candidate.manifest.base.reference))
        with pytest.raises(ModelError, match="is of another model"):
            exported(open_candidate("law", folder.parents[1]))

    def test_what_is_typed_wins(self, folder: Path, tiny_base: Path, tmp_path: Path) -> None:
        moved = shutil.copytree(tiny_base, tmp_path / "moved")
        found = exportable("law", tmp_path / "data", base=str(moved), out=tmp_path / "out", bits=4)
        assert (found.base.folder, found.out, found.adapter.bits) == (moved, tmp_path / "out", 4)
        by_folder = exportable(str(folder), tmp_path / "data")
        assert (by_folder.out, by_folder.kinds, by_folder.merging) == (folder / "export", ("f16",), "original")

    def test_its_held_out_rows_are_asked_first(self, folder: Path, tmp_path: Path) -> None:
        told, silent, *ours = exportable("law", tmp_path / "data").cases
        assert told.answer == "Passage 1: ##begin_quote##Guests pay 9.40 euros.##end_quote##\n<ANSWER>: 9.40 euros"
        assert (silent.question, silent.answer) == ("Who pays?", "<ANSWER>: NOT FOUND")
        assert told.hits[0].text == PASSAGE
        assert tuple(ours) == CASES
        self.describe(folder, Path(exportable("law", tmp_path / "data").base.reference),
                      recipe={"prompt": {"chain_of_thought": False}})  # fmt: skip
        bare = exportable("law", tmp_path / "data")
        assert bare.cases[0].answer == "<ANSWER>: 9.40 euros"
        assert (bare.kinds, bare.merging) == (("q8_0",), "best")
        (folder / "test.jsonl").write_text("")
        assert exportable("law", tmp_path / "data").cases == CASES

    def test_what_does_not_belong_together(self, folder: Path, tiny_base: Path, lora: Path, tmp_path: Path) -> None:
        data = tmp_path / "data"
        other = shutil.copytree(tiny_base, tmp_path / "other")
        (other / "generation_config.json").write_text("{}")
        with pytest.raises(ModelError, match="not the one that law was trained on"):
            exportable("law", data, base=str(other))
        with pytest.raises(ModelError, match="There is no candidate lax") as caught:
            exportable("lax", data)
        assert "Did you mean law?" in caught.value.way_out
        with pytest.raises(SettingsError, match="is no candidate") as lacking:
            exportable(str(lora), data)
        assert lacking.value.way_out == "Give --base and --out."
        self.describe(folder, tiny_base, kind="retriever", chunk={"tokens": 200, "overlap": 30})
        with pytest.raises(ModelError, match="law is a retriever; only readers are exported"):
            exportable("law", data)
        (folder / "manifest.json").unlink()
        with pytest.raises(ModelError, match="its training has not ended"):
            exportable("law", data)
        assert exportable("law", data, base=str(tiny_base), out=tmp_path / "out").cases == CASES
        (folder / "model" / "adapter_model.safetensors").write_bytes(b"x")
        self.describe(folder, tiny_base, fingerprint="f")
        with pytest.raises(ModelError, match="not those that were measured"):
            exportable("law", data)
