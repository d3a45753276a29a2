"""A reader that answers better is served, one that does not is refused; all of it is written down, whatever kills it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from finetune.candidate import Base, Candidate, Manifest, open_candidate, read_manifest, write_manifest
from finetune.promote_reader import Judged, ReaderPromotion
from finetune.raft.row import Passage, RaftRow, write_raft
from finetune.servable import Servable, exported, unmerged
from finetune.verdict import Verdict
from reader.engine.base import Prompt
from reader.engine.weights import open_base
from reader.errors import EngineError
from reader.prompt import fingerprint
from reader.quotes import Span
from reader.rollback import roll_back
from reader.served import SERVED, open_reader, promoted, read_promoted
from retriever.errors import BelegError, GateFailed, ModelError, SettingsError, StoreLocked
from retriever.models import folder_fingerprint
from retriever.releases import RELEASES, Releases
from retriever.settings import Settings


class Engine:
    """Does what its weights say: `good` quotes the sentence asked for, `bad` another one, `mute` abstains, `dead` fails."""

    name, bos, eos, chat_template, context_size, constrained = "fake", "", "", "", 100_000, True

    def __init__(self, settings: Settings) -> None:
        path = Path(settings.reader)
        path = path if path.is_file() else next(file for file in sorted(path.iterdir()) if file.suffix in (".gguf", ".bin"))
        self.says = path.read_text()
        self.model = settings.reader
        self.bits = settings.reader_bits
        self.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
        self.closed = False
        OPENED.append(self)

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    def count(self, text: str) -> int:
        return len(text)

    def generate(self, prompt: Prompt, **_: object) -> Iterator[str]:
        assert not self.closed
        asked = prompt.messages[-1].content
        number = re.findall(r"alpha(\d+)", asked.rpartition("Question:")[2])[0]
        sentence = f"Die Anlage alpha{number} steht in Halle {number}."
        other = f"Die Anlage alpha{number} wiegt neun Tonnen."
        if self.says.startswith("dead"):
            raise EngineError("The model's output is not a number.")
        if self.says.startswith("mute") or (self.says.startswith("good") and sentence not in asked):
            yield "<ANSWER>: NOT FOUND"
        elif self.says.startswith("good"):
            yield f"Passage 1: ##begin_quote##{sentence}##end_quote##\n<ANSWER>: Halle {number}"
        else:
            yield f"Passage 1: ##begin_quote##{other}##end_quote##\n<ANSWER>: neun Tonnen"

    def close(self) -> None:
        self.closed = True


OPENED: list[Engine] = []
PROMPT = {shots: fingerprint(Engine.__new__(Engine), shots=shots) for shots in (True, False)}


def rows(count: int, documents: int, unanswerable: int = 0) -> list[RaftRow]:
    made = []
    for number in range(count):
        answers = number >= unanswerable
        place = f"Die Anlage alpha{number} steht in Halle {number}." if answers else ""
        text = f"{place} Die Anlage alpha{number} wiegt neun Tonnen.".strip()
        passage = Passage(text, "", (), "golden" if answers else "retrieved", f"s{number}", 0, len(text), "de")
        spans = (Span(1, 0, len(place)),) if answers else ()
        question = f"Wo steht die Anlage alpha{number}?"
        made.append(
            RaftRow(str(number), question, (passage,), 1 if answers else None, spans, "", f"Halle {number}", not answers, "de",
                    f"d{number % documents}")
        )  # fmt: skip
    return made


class House:
    """A data folder with a served reader, a base, and candidates over it."""

    def __init__(self, root: Path, encoder: Any) -> None:
        OPENED.clear()
        self.data = root / "data"
        self.data.mkdir()
        self.base = root / "base"
        self.base.mkdir()
        (self.base / "base.gguf").write_text("bad base")
        self.settings = Settings(data_dir=self.data, reader=str(self.base / "base.gguf"))
        self.releases = Releases(self.data)
        self.encoder = encoder

    def candidate(
        self, name: str = "tuned", says: str = "good", *, held_out: list[RaftRow] | None = None, recipe: Any = None, **more: Any
    ) -> Path:
        folder = self.data / "candidates" / name
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "adapter.bin").write_text(f"{says} {name}")
        (folder / "model" / "adapter_config.json").write_text("{}")
        given = rows(12, 12, 2) if held_out is None else held_out
        if given:
            write_raft(folder / "test.jsonl", given)
        facts = {
            "kind": "reader", "name": name, "created": "2026-11-21T10:00:00+00:00", "recipe": recipe or {},
            "base": Base(reference=str(self.base), fingerprint=open_base(str(self.base)).fingerprint),
            "fingerprint": folder_fingerprint(folder / "model"), "prompt": PROMPT[False],
            "metrics": {"before": {"f1": 0.25}, "after": {"f1": 0.75}},
        }  # fmt: skip
        write_manifest(folder, Manifest(**(facts | more)))
        self.export(name, {"model-q8_0.gguf": f"{says} {name}"})
        return folder

    def export(self, name: str, files: dict[str, str], *, passed: object = True, **more: Any) -> None:
        folder = self.data / "candidates" / name / "export"
        folder.mkdir(exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
        hashes = {file: hashlib.sha256(text.encode()).hexdigest() for file, text in files.items()}
        facts = {
            "files": hashes, "base_fingerprint": open_base(str(self.base)).fingerprint, "way": "original",
            "adapter_fingerprint": folder_fingerprint(folder.parent / "model"),
        }  # fmt: skip
        (folder / "export.json").write_text(json.dumps(facts | more))
        (folder / "parity.json").write_text(json.dumps({"files": hashes, "passed": passed}))
        (folder / "calibration.json").write_text('{"shots": false, "least_strength": 0.0}')

    def open(self, name: str) -> Candidate:
        return open_candidate(name, self.data)

    def promotion(self, name: str = "tuned", *, servable: Servable | None = None, **more: Any) -> ReaderPromotion:
        candidate = self.open(name)
        given = {"settings": self.settings, "releases": self.releases} | more
        return ReaderPromotion(
            candidate, servable or exported(candidate), encoder=lambda: self.encoder,
            open_=partial(open_reader, open_=Engine), **given,
        )  # fmt: skip

    def outcomes(self) -> list[str]:
        return [fact["outcome"] for fact in self.releases.read()]

    def live(self) -> str | None:
        found = promoted(self.settings)
        return found.candidate if found else None


@pytest.fixture
def house(tmp_path: Path, fakes: ModuleType) -> Iterator[House]:
    yield House(tmp_path, fakes.FakeEncoder())
    assert all(engine.closed for engine in OPENED)


def test_a_better_one_is_served(house: House) -> None:
    folder = house.candidate()
    phases: list[tuple[str, int | None]] = []
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count

    outcome = house.promotion(on_phase=lambda *phase: phases.append(phase), on_progress=progress).run()
    assert (outcome.status, outcome.already) == ("live", False)
    judged = outcome.judged
    assert judged is not None
    # The base is what is served, so it was asked once.
    assert phases == [("candidate", 12), ("served", 12)]
    assert done == 24
    assert judged.base is None
    assert judged.served.candidate == pytest.approx(1.0)
    assert judged.served.served < 0.5
    assert (judged.served.questions, judged.served.documents, judged.wrong_quotes) == (12, 12, 0)
    live = read_promoted(house.data)
    assert live is not None
    assert (live.reader, live.candidate) == (str(folder / "export" / "model-q8_0.gguf"), "tuned")
    assert live.instead_of == house.settings.reader
    assert live.previous is None
    begun, done_ = house.releases.read()
    assert (begun["outcome"], done_["outcome"]) == ("begun", "promoted")
    assert begun["id"] == done_["id"] == live.id
    assert (done_["kind"], done_["to"]) == ("reader", live.fingerprint)
    assert done_["from"] == hashlib.sha256(b"bad base").hexdigest()
    assert done_["verdict"]["candidate"] == judged.served.candidate
    # What was recorded is what a server needs to open it.
    open_reader(house.settings, live, open_=Engine).engine.close()


def test_it_must_beat_the_untuned_base_too(house: House) -> None:
    house.candidate("first")
    (house.base / "base.gguf").write_text("good base!")
    house.candidate("second", says="good")
    other = house.data / "mute.gguf"
    other.write_text("mute")
    settings = house.settings.model_copy(update={"reader": str(other)})
    with pytest.raises(GateFailed, match="second is not better than its untuned base: weighted total 1") as caught:
        house.promotion("second", settings=settings).run()
    assert "what is served" not in caught.value.message
    assert house.outcomes() == ["refused"]
    assert house.live() is None


def test_each_is_measured_once_against_another_served_one(house: House) -> None:
    house.candidate("first")
    house.promotion("first").run()
    OPENED.clear()
    phases: list[str] = []
    house.candidate("second", says="good too")
    with pytest.raises(GateFailed, match="second is not better than what is served: weighted total"):
        house.promotion("second", on_phase=lambda phase, _: phases.append(phase)).run()
    assert phases == ["candidate", "served", "base"]
    assert [engine.says for engine in OPENED] == ["good too second", "good first", "bad base"]
    assert house.live() == "first"


@pytest.mark.parametrize("says", ["bad", "mute", "dead"])
def test_what_is_not_better_is_refused(house: House, says: str) -> None:
    house.candidate("good")
    house.promotion("good").run()
    house.candidate(says=says)
    with pytest.raises(GateFailed, match=r"tuned is worse than what is served: weighted total 0\.") as caught:
        house.promotion().run()
    assert "--override" in caught.value.way_out
    assert ("abstains more wrongly" in caught.value.message) == (says != "bad")
    assert house.live() == "good"
    fact = house.releases.read()[-1]
    assert (fact["outcome"], fact["reason"]) == ("refused", caught.value.message)
    assert fact["failed"]["candidate"] == (12 if says == "dead" else 0)


def test_an_override_is_kept_with_its_reason(house: House) -> None:
    house.candidate(says="mute")
    assert house.promotion(override="Müller will es so 🧾").run().status == "live"
    assert [fact["override"] for fact in house.releases.read()] == ["Müller will es so 🧾"] * 2
    assert house.live() == "tuned"


def test_too_little_to_tell(house: House) -> None:
    house.candidate("few", held_out=rows(12, 4))
    with pytest.raises(GateFailed, match=r"not better than what is served: .* about 4 documents"):
        house.promotion("few").run()
    house.candidate("enough", held_out=rows(12, 5))
    assert house.promotion("enough").run().status == "live"


def test_without_held_out_questions(house: House) -> None:
    house.candidate(held_out=[])
    with pytest.raises(GateFailed, match="tuned has no held-out questions"):
        house.promotion().run()
    outcome = house.promotion(override="there is nothing to measure on").run()
    assert (outcome.status, outcome.judged) == ("live", None)


def test_held_out_questions_that_are_broken(house: House) -> None:
    (house.candidate() / "test.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(BelegError, match=r"test\.jsonl, line 1"):
        house.promotion(override="never mind").run()
    assert house.live() is None


def test_only_measured(house: House) -> None:
    house.candidate()
    outcome = house.promotion(dry=True).run()
    assert outcome.status == "tried"
    assert outcome.judged is not None
    house.candidate("mute", says="mute")
    with pytest.raises(GateFailed):
        house.promotion("mute", dry=True).run()
    assert house.releases.read() == []
    assert house.live() is None


def test_what_is_served_already(house: House) -> None:
    house.candidate()
    house.promotion().run()
    before = read_promoted(house.data)
    outcome = house.promotion().run()
    assert (outcome.status, outcome.already, outcome.judged) == ("live", True, None)
    assert read_promoted(house.data) == before
    assert house.outcomes() == ["begun", "promoted"]


def test_one_after_the_other_and_all_the_way_back(house: House) -> None:
    for name in ("a", "b", "c"):
        house.candidate(name, says=f"good {name}")
        house.promotion(name, override="test").run()
    for expected in ("b", "a", None):
        roll_back(house.settings, house.releases)
        assert house.live() == expected


def test_a_model_server_is_not_replaced(house: House) -> None:
    house.candidate()
    settings = house.settings.model_copy(update={"reader_url": "http://127.0.0.1:1"})
    with pytest.raises(SettingsError, match="reader_url"):
        house.promotion(settings=settings).run()
    assert house.promotion(settings=settings, dry=True).run().status == "tried"


def test_one_at_a_time(house: House) -> None:
    house.candidate()
    with house.releases.alone(), pytest.raises(StoreLocked):
        house.promotion().run()


class TestWhatIsChecked:
    """None of this can be overridden."""

    def refused(self, house: House, said: str, error: type[BelegError] = ModelError, **more: Any) -> BelegError:
        with pytest.raises(error, match=said) as caught:
            house.promotion(override="because", **more).run()
        assert house.live() is None
        assert "begun" not in house.outcomes()
        return caught.value

    @pytest.mark.parametrize("prompt", ["", "0" * 64, PROMPT[True]])
    def test_another_prompt(self, house: House, prompt: str) -> None:
        house.candidate(prompt=prompt)
        self.refused(house, "tuned was trained with another prompt than this Beleg renders")

    def test_another_base(self, house: House) -> None:
        house.candidate()
        change(house.base)
        self.refused(house, "not the one that tuned was trained on")

    def test_no_export(self, house: House) -> None:
        folder = house.candidate()
        (folder / "export").rename(folder / "gone")
        error = self.refused(house, "tuned has no export that could be served")
        assert "`beleg export tuned`" in error.way_out
        assert "--unmerged" in error.way_out
        (folder / "export.refused").mkdir()
        (folder / "export.refused" / "parity.html").touch()
        self.refused(house, "one was refused: see")

    @pytest.mark.parametrize("passed", [False, None, "yes", 1])
    def test_the_parity_gate_did_not_pass_it(self, house: House, passed: object) -> None:
        house.candidate()
        house.export("tuned", {"model-q8_0.gguf": "good"}, passed=passed)
        self.refused(house, "parity gate did not pass")

    @pytest.mark.parametrize(
        ("facts", "said"),
        [
            ({"base_fingerprint": "0"}, "with another base"),
            ({"adapter_fingerprint": "0"}, "of another model"),
            ({"way": "not"}, "keeps base and adapter apart"),
        ],
    )
    def test_an_export_that_is_not_its_own(self, house: House, facts: dict[str, Any], said: str) -> None:
        house.candidate()
        house.export("tuned", {"model-q8_0.gguf": "good"}, **facts)
        self.refused(house, said)

    @pytest.mark.parametrize("file", ["export.json", "parity.json"])
    @pytest.mark.parametrize("text", ["{", "[]", "", '{"passed": true, "files": ["model-q8_0.gguf"]}'])
    def test_damaged_facts(self, house: House, file: str, text: str) -> None:
        (house.candidate() / "export" / file).write_text(text)
        self.refused(house, r"export\.json|parity\.(json|html)")

    def test_a_file_that_was_changed_or_lost(self, house: House) -> None:
        file = house.candidate() / "export" / "model-q8_0.gguf"
        file.write_text("something else, and longer")
        self.refused(house, "not the file that the parity gate passed")
        file.unlink()
        self.refused(house, "not the file that the parity gate passed")

    def test_which_of_several_files(self, house: House) -> None:
        house.candidate()
        house.export("tuned", {"model-q8_0.gguf": "good 8", "model-q4_k_m.gguf": "good 4"})
        error = self.refused(house, "has model-q4_k_m.gguf, model-q8_0.gguf", SettingsError)
        assert "--file" in error.way_out
        with pytest.raises(SettingsError, match="has no x"):
            exported(house.open("tuned"), "x.gguf")
        house.promotion(servable=exported(house.open("tuned"), "model-q4_k_m.gguf")).run()
        live = read_promoted(house.data)
        assert live is not None
        assert live.reader.endswith("model-q4_k_m.gguf")


class TestUnmerged:
    def test_it_is_served_as_it_was_trained(self, house: House) -> None:
        folder = house.candidate(recipe={"quantization": {"bits": 4}}, prompt=PROMPT[True])
        (folder / "export").rename(folder / "gone")
        servable = unmerged(house.open("tuned"))
        assert servable == Servable(str(folder / "model"), str(house.base), 4, servable.about)
        assert "unmerged by transformers in 4 bits" in servable.about
        house.promotion(servable=servable, override="no calibration in this test").run()
        live = read_promoted(house.data)
        assert live is not None
        assert (live.reader, live.base, live.bits) == (str(folder / "model"), str(house.base), 4)
        # Its base is nothing but a GGUF, which is not quantized again.
        assert (OPENED[0].bits, OPENED[-1].bits) == (4, 0)

    @pytest.mark.parametrize("recipe", [{}, {"quantization": None}, {"quantization": {"bits": "many"}}, {"quantization": 4}])
    def test_whole_weights(self, house: House, recipe: Any) -> None:
        folder = house.candidate(recipe=recipe)
        assert unmerged(house.open("tuned")).bits == 0
        (folder / "model" / "adapter_config.json").rename(folder / "old.json")
        changed = {"fingerprint": folder_fingerprint(folder / "model")}
        write_manifest(folder, read_manifest(folder).model_copy(update=changed))
        assert unmerged(house.open("tuned")).base == ""

    def test_another_base(self, house: House) -> None:
        house.candidate()
        change(house.base)
        with pytest.raises(ModelError, match="not the one that tuned was trained on"):
            unmerged(house.open("tuned"))


def change(base: Path) -> None:
    """Make another file of a base's GGUF."""
    file = next(base.glob("*.gguf"))
    file.write_bytes(file.read_bytes() + b"more")


class Killed(BaseException):
    """As a kill does, it ends everything at once."""


class Dying(Releases):
    """Ends the process before or after a fact is kept."""

    def __init__(self, data: Path, outcome: str, *, after: bool) -> None:
        super().__init__(data)
        self.dies, self.after = outcome, after

    def add(self, **facts: object) -> None:
        if facts["outcome"] == self.dies and not self.after:
            raise Killed
        super().add(**facts)
        if facts["outcome"] == self.dies:
            raise Killed


def test_killed_between_begun_and_the_swap(house: House) -> None:
    house.candidate()
    with pytest.raises(Killed):
        house.promotion(releases=Dying(house.data, "begun", after=True)).run()
    assert house.live() is None
    assert house.outcomes() == ["begun"]
    assert house.promotion().run().status == "live"
    assert house.outcomes() == ["begun", "interrupted", "begun", "promoted"]


@pytest.mark.parametrize("way", ["same", "other", "back"])
def test_killed_after_the_swap_the_next_run_records_it(house: House, way: str) -> None:
    house.candidate()
    with pytest.raises(Killed):
        house.promotion(releases=Dying(house.data, "promoted", after=False)).run()
    assert house.live() == "tuned"
    assert house.outcomes() == ["begun"]
    if way == "same":
        assert house.promotion().run().already
    elif way == "back":
        roll_back(house.settings, house.releases)
    else:
        house.candidate("mute", says="mute")
        with pytest.raises(GateFailed):
            house.promotion("mute").run()
    begun, late = house.releases.read()[:2]
    assert (late["outcome"], late["late"]) == ("promoted", True)
    for key in ("id", "verdict", "from", "to"):
        assert late[key] == begun[key]


def test_a_disk_that_refuses_changes_nothing(house: House) -> None:
    house.candidate()
    (house.data / SERVED).mkdir()
    with pytest.raises(BelegError, match=r"reader\.json cannot be read"):
        house.promotion().run()
    (house.data / SERVED).rmdir()
    (house.data / RELEASES).mkdir()
    with pytest.raises(BelegError, match=r"releases\.jsonl cannot be"):
        house.promotion().run()
    assert house.live() is None


VERDICT = Verdict(0.5, 0.6, 10, 10, 0.1, 0.01, 0.2, 0.01, 2, 1, 7, "weighted total")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"base": VERDICT}, []),
        ({"served": replace(VERDICT, low=-0.01)}, ["x is not better than what is served"]),
        ({"base": replace(VERDICT, p=0.2, against="its untuned base")}, ["x is not better than its untuned base"]),
        ({"wrong_quotes": 1}, ["1 of its answers quote what does not stand"]),
        ({"abstention": (replace(VERDICT, difference=-0.1, low=-0.2, high=-0.01),)}, ["It abstains more wrongly"]),
        ({"abstention": (replace(VERDICT, difference=-0.1, low=-0.2, high=0.05),)}, []),
        ({"abstention": (replace(VERDICT, difference=-0.1, low=-0.2, high=-0.01, p=0.5),)}, []),
    ],
)
def test_the_rule(change: dict[str, Any], said: list[str]) -> None:
    judged = replace(Judged(VERDICT, None, (VERDICT,), 0, {}), **change)
    reasons = judged.reasons("x")
    assert len(reasons) == len(said)
    assert all(start in reason for start, reason in zip(said, reasons, strict=True))
