"""What is better is served, what is not is refused, all of it is written down, and a kill changes none of that."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from finetune.candidate import open_candidate
from finetune.verdict import Verdict
from retriever.errors import BelegError, GateFailed, IndexMissing, ModelError, SettingsError, StoreLocked
from retriever.gate import Gate
from retriever.promoted import stands_for
from retriever.publish import Building
from retriever.questions import Proof, Question
from retriever.releases import RELEASES, Releases
from retriever.store import Store

HERE = Path(__file__).parent
FAKES = HERE.parent / "retriever" / "fakes.py"


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made() -> ModuleType:
    load("fakes", FAKES)
    return load("promote_program", HERE / "promote_program.py")


@pytest.fixture
def house(made: ModuleType, tmp_path: Path) -> Iterator[Any]:
    house = made.make_house(tmp_path / "data")
    yield house
    house.store.close()


def recorded(house: Any) -> list[dict[str, Any]]:
    return Releases(house.data).read()


def outcomes(house: Any) -> list[str]:
    return [fact["outcome"] for fact in recorded(house)]


def own(*proofs: tuple[str, str]) -> Gate:
    return Gate([Question(text, "", "de", text, ("x",), Proof(source, text), "") for source, text in proofs], 0.02)


OWN = own(*((f"d{number}", f"Zimmer {number} hat ein Bad.") for number in range(12)))


def test_a_better_one_is_served(house: Any, made: ModuleType) -> None:
    folder = made.make_candidate(house.data, "tuned")
    before = house.generations.live()
    phases: list[str] = []
    outcome = made.promotion(house, "tuned", on_phase=lambda phase, _: phases.append(phase)).run()
    assert (outcome.status, outcome.already) == ("live", False)
    assert outcome.verdict.served < 0.5
    assert outcome.verdict.candidate > 0.9
    assert (outcome.verdict.questions, outcome.verdict.documents) == (12, 12)
    assert list(dict.fromkeys(phases)) == ["prepare", "measure", "encode", "build", "verify", "swap"]
    live = house.generations.live()
    assert (live.encoder, live.stamp.encoder) == (
        str(folder / "model"),
        open_candidate(folder, house.data).manifest.fingerprint,
    )
    assert house.generations.previous() == before
    begun, promoted = recorded(house)
    assert (begun["outcome"], promoted["outcome"]) == ("begun", "promoted")
    assert begun["id"] == promoted["id"]
    assert (promoted["from"], promoted["to"], promoted["generation"]) == ("fake-1", live.stamp.encoder, live.name)
    assert promoted["verdict"]["candidate"] == outcome.verdict.candidate
    assert promoted["override"] is None
    # Documents that come now are encoded by it, and the way back is there.
    house.change(("new", "Hotel neu"))
    assert "new" in house.shown()
    house.rollback()
    assert house.stamp() == "fake-1"
    assert "new" in house.shown()


def test_each_promoted_one_stands_for_the_setting(house: Any, made: ModuleType) -> None:
    assert not stands_for(house.store, house.generations.live(), "fake-1")
    for name in ("first", "second"):
        made.make_candidate(house.data, name)
        made.promotion(house, name, override="because").run()
        assert stands_for(house.store, house.generations.live(), "fake-1")
        assert not stands_for(house.store, house.generations.live(), "fake-2")
    house.rollback()
    assert house.generations.live().encoder.endswith("first/model")
    assert stands_for(house.store, house.generations.live(), "fake-1")


def test_what_is_served_already(house: Any, made: ModuleType) -> None:
    made.make_candidate(house.data, "tuned")
    made.promotion(house, "tuned").run()
    live, previous = house.generations.live(), house.generations.previous()
    outcome = made.promotion(house, "tuned").run()
    assert (outcome.status, outcome.already, outcome.verdict) == ("live", True, None)
    assert (house.generations.live(), house.generations.previous()) == (live, previous)
    assert outcomes(house) == ["begun", "promoted"]


@pytest.fixture
def seeing(house: Any, made: ModuleType) -> Any:
    """A house in which a good encoder is served."""
    made.make_candidate(house.data, "good")
    made.promotion(house, "good").run()
    (house.data / RELEASES).unlink()
    return house


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("blind", r"is worse than what is served: nDCG@10 0\.\d+, served [01]\.\d+: -0\."),
        ("seeing", "is not better than what is"),
    ],
)
def test_what_is_not_better_is_refused(seeing: Any, made: ModuleType, kind: str, said: str) -> None:
    made.make_candidate(seeing.data, "tuned", kind=kind)
    live = seeing.generations.live()
    with pytest.raises(GateFailed, match=said) as caught:
        made.promotion(seeing, "tuned").run()
    assert "--override" in caught.value.way_out
    assert seeing.generations.live() == live
    (fact,) = recorded(seeing)
    assert (fact["outcome"], fact["reason"]) == ("refused", caught.value.message)
    assert fact["verdict"]["documents"] == 12


def test_an_override_is_kept_with_its_reason(seeing: Any, made: ModuleType) -> None:
    made.make_candidate(seeing.data, "tuned", kind="blind")
    good = seeing.stamp()
    outcome = made.promotion(seeing, "tuned", override="Müller will es so 🧾", questions=OWN).run()
    assert outcome.status == "live"
    assert outcome.own.new < outcome.own.live - 0.02
    assert [fact["override"] for fact in recorded(seeing)] == ["Müller will es so 🧾"] * 2
    assert recorded(seeing)[-1]["own"]["new"] == outcome.own.new
    seeing.rollback()
    assert seeing.stamp() == good


def test_too_little_to_tell(house: Any, made: ModuleType) -> None:
    made.make_candidate(house.data, "few", documents=4)
    with pytest.raises(GateFailed, match=r"not better than what is served: .* about 4 documents"):
        made.promotion(house, "few").run()
    made.make_candidate(house.data, "enough", documents=5)
    assert made.promotion(house, "enough").run().status == "live"


@pytest.mark.parametrize(
    "rows",
    [
        None,
        "",
        json.dumps({"id": "1", "question": "?", "answers": [], "positive_ctxs": [], "hard_negative_ctxs": [{"text": "x"}]})
        + "\n",
    ],
)
def test_without_held_out_questions(house: Any, made: ModuleType, rows: str | None) -> None:
    test = made.make_candidate(house.data, "tuned") / "test.jsonl"
    test.unlink() if rows is None else test.write_text(rows)
    with pytest.raises(GateFailed, match="tuned has no held-out questions"):
        made.promotion(house, "tuned").run()
    assert outcomes(house) == ["refused"]
    outcome = made.promotion(house, "tuned", override="there is nothing to measure on").run()
    assert (outcome.status, outcome.verdict) == ("live", None)


def test_held_out_questions_that_are_broken(house: Any, made: ModuleType) -> None:
    test = made.make_candidate(house.data, "tuned") / "test.jsonl"
    test.write_text(test.read_text() + '{"question": \n')
    with pytest.raises(BelegError, match=r"test\.jsonl, line 13"):
        made.promotion(house, "tuned", override="never mind").run()
    assert house.stamp() == "fake-1"


def test_only_measured(house: Any, made: ModuleType) -> None:
    made.make_candidate(house.data, "tuned")
    outcome = made.promotion(house, "tuned", dry=True).run()
    assert outcome.status == "tried"
    assert outcome.verdict.passed
    assert house.stamp() == "fake-1"
    assert recorded(house) == []
    made.make_candidate(house.data, "worse", kind="blind")
    with pytest.raises(GateFailed):
        made.promotion(house, "worse", dry=True).run()
    assert recorded(house) == []


def test_ones_own_questions(house: Any, made: ModuleType) -> None:
    made.make_candidate(house.data, "tuned")
    outcome = made.promotion(house, "tuned", questions=OWN).run()
    assert outcome.own.questions == 12
    assert recorded(house)[-1]["own"] == {"live": outcome.own.live, "new": outcome.own.new, "questions": 12}


def test_worse_on_ones_own_questions(house: Any, made: ModuleType) -> None:
    made.make_candidate(house.data, "tuned")
    before = house.generations.live()
    with pytest.raises(GateFailed, match="On your own questions: The new index has an nDCG@10") as caught:
        # Even a better one is too bad.
        made.promotion(house, "tuned", questions=Gate(OWN.questions, -1.0)).run()
    assert "--margin" not in caught.value.way_out
    assert house.generations.live() == before
    assert outcomes(house) == ["begun", "refused"]


def test_questions_about_documents_that_are_not_there(house: Any, made: ModuleType) -> None:
    made.make_candidate(house.data, "tuned")
    with pytest.raises(BelegError, match="0 indexed documents are called nirgends"):
        made.promotion(house, "tuned", questions=own(("nirgends", "x"))).run()
    assert recorded(house) == []


def test_nothing_is_indexed(made: ModuleType, tmp_path: Path) -> None:
    made.make_candidate(tmp_path, "tuned")
    house = sys.modules["fakes"].House(tmp_path)
    with pytest.raises(IndexMissing, match="beleg index"):
        made.promotion(house, "tuned").run()
    house.store.close()


def test_chunks_that_do_not_fit_its_window(house: Any, made: ModuleType) -> None:
    made.make_candidate(house.data, "tuned")
    wanted = made.promotion(house, "tuned")
    wanted.encoders.open(str(wanted.candidate.model)).max_tokens = 10
    with pytest.raises(SettingsError, match="chunk_tokens is 8"):
        wanted.run()
    assert house.stamp() == "fake-1"


def test_a_lost_workspace_is_made_again(house: Any, made: ModuleType) -> None:
    made.make_candidate(house.data, "tuned")
    made.promotion(house, "tuned", dry=True).run()
    workspace = open_candidate("tuned", house.data).workspace
    workspace.rename(workspace.with_name("gone"))
    assert made.promotion(house, "tuned").run().verdict.candidate > 0.9


def test_measured_in_the_chunks_that_are_served(house: Any, made: ModuleType) -> None:
    folder = made.make_candidate(house.data, "tuned")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"tokens": 8', '"tokens": 200'))
    made.promotion(house, "tuned", dry=True).run()
    with Store(folder / "workspace") as store:
        chunking = house.generations.live().stamp.chunking
        assert next(store.without_chunks(chunking), None) is None


class TestRerankers:
    class Judge:
        """Likes passages in which a word stands that the question has, or all alike."""

        weight, depth = 1.0, 30

        def __init__(self, *, good: bool, fingerprint: str = "judge") -> None:
            self.good, self.fingerprint = good, fingerprint

        def scores(self, query: str, texts: Sequence[str]) -> list[float]:
            words = {word for word in query.rstrip("?").split() if word.startswith("alpha")}
            return [float(self.good and bool(words & set(text.split()))) for text in texts]

    @pytest.fixture
    def attempt(self, house: Any, made: ModuleType) -> Callable[..., Any]:
        made.make_candidate(house.data, "judge", task="reranker")
        return lambda *, good=True, **more: made.promotion(
            house, "judge", open_reranker=lambda _: self.Judge(good=good), **more
        )

    def test_it_passes_and_nothing_is_changed(self, house: Any, attempt: Callable[..., Any]) -> None:
        outcome = attempt(questions=OWN).run()
        assert (outcome.status, outcome.already) == ("passed", False)
        assert outcome.verdict.candidate == pytest.approx(1.0)
        assert outcome.own.questions == 12
        assert house.stamp() == "fake-1"
        assert house.generations.previous() is None
        assert outcomes(house) == ["passed"]

    def test_it_is_refused(self, house: Any, attempt: Callable[..., Any]) -> None:
        with pytest.raises(GateFailed, match="not better"):
            attempt(good=False).run()
        assert outcomes(house) == ["refused"]
        assert attempt(good=False, override="a try").run().status == "passed"
        assert recorded(house)[-1]["override"] == "a try"

    def test_it_is_compared_with_the_one_that_is_set(self, house: Any, attempt: Callable[..., Any]) -> None:
        with pytest.raises(GateFailed, match="judge is not better"):
            attempt(reranker=self.Judge(good=True, fingerprint="other")).run()
        assert attempt(reranker=self.Judge(good=False, fingerprint="other")).run().status == "passed"

    def test_it_is_set_already(self, house: Any, attempt: Callable[..., Any]) -> None:
        fingerprint = open_candidate("judge", house.data).manifest.fingerprint
        assert attempt(reranker=self.Judge(good=True, fingerprint=fingerprint)).run().already
        assert recorded(house) == []

    def test_worse_on_ones_own_questions(self, house: Any, attempt: Callable[..., Any]) -> None:
        with pytest.raises(GateFailed, match="On your own questions"):
            attempt(questions=Gate(OWN.questions, -1.0)).run()
        assert outcomes(house) == ["refused"]
        assert attempt(questions=Gate(OWN.questions, -1.0), override="yes").run().status == "passed"

    def test_only_measured(self, house: Any, attempt: Callable[..., Any]) -> None:
        assert attempt(dry=True, questions=OWN).run().status == "tried"
        assert recorded(house) == []


class Killed(BaseException):
    """As a kill does, it ends everything at once."""


def killed_at_record(promotion: Any) -> None:
    add = promotion.releases.add

    def dying(**facts: object) -> None:
        if facts["outcome"] == "promoted":
            raise Killed
        add(**facts)

    promotion.releases.add = dying


def killed_at_tidying(promotion: Any) -> None:
    remember = promotion.store.remember

    def dying(facts: Any, **rest: Any) -> bool:
        if facts == {"building": None}:
            raise Killed
        return bool(remember(facts, **rest))

    promotion.store.remember = dying


def killed_before_the_swap(promotion: Any) -> None:
    def dying(phase: str, _: int | None) -> None:
        if phase == "swap":
            raise Killed

    promotion.on_phase = dying


@pytest.mark.parametrize("kill", [killed_at_record, killed_at_tidying])
def test_killed_after_the_swap_the_next_run_records_it(house: Any, made: ModuleType, kill: Callable[[Any], None]) -> None:
    made.make_candidate(house.data, "tuned")
    before = house.generations.live()
    first = made.promotion(house, "tuned", override="because")
    kill(first)
    with pytest.raises(Killed):
        first.run()
    vars(house.store).pop("remember", None)
    assert outcomes(house) == ["begun"]
    live = house.generations.live()
    assert live.stamp.encoder == first.candidate.manifest.fingerprint

    outcome = made.promotion(house, "tuned").run()
    assert (outcome.status, outcome.already) == ("live", True)
    begun, promoted = recorded(house)
    assert promoted["outcome"] == "promoted"
    assert promoted["late"]
    for field in ("id", "verdict", "override", "from", "to"):
        assert promoted[field] == begun[field]
    assert Building.read(house.store) is None
    # It was not built twice: the way back still leads to the base.
    assert house.generations.live() == live
    assert house.generations.previous() == before
    house.rollback()
    assert house.stamp() == "fake-1"


def test_killed_after_the_swap_another_candidate_records_it(house: Any, made: ModuleType) -> None:
    made.make_candidate(house.data, "tuned")
    first = made.promotion(house, "tuned")
    killed_at_record(first)
    with pytest.raises(Killed):
        first.run()
    made.make_candidate(house.data, "next")
    with pytest.raises(GateFailed):
        made.promotion(house, "next").run()
    assert [(fact["candidate"], fact["outcome"]) for fact in recorded(house)] == [
        ("tuned", "begun"),
        ("tuned", "promoted"),
        ("next", "refused"),
    ]


def test_killed_before_the_swap_it_goes_on(house: Any, made: ModuleType) -> None:
    made.make_candidate(house.data, "tuned")
    first = made.promotion(house, "tuned")
    killed_before_the_swap(first)
    with pytest.raises(Killed):
        first.run()
    assert house.stamp() == "fake-1"
    assert made.promotion(house, "tuned").run().status == "live"
    assert outcomes(house) == ["begun", "interrupted", "begun", "promoted"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_at_many_steps_it_goes_on(house: Any, made: ModuleType) -> None:
    made.make_candidate(house.data, "tuned")
    steps = 1
    while True:
        said = run_and_kill(house.data, "tuned", steps)
        if said[-1].startswith("done"):
            break
        assert house.shown() >= {f"d{number}" for number in range(12)}
        # Before the swap a few of the places to die at are enough; after it, every one.
        steps += 8 if house.stamp() == "fake-1" else 1
        assert steps < 100
    assert said[-1] == "done live"
    assert house.stamp() != "fake-1"
    assert house.generations.previous().stamp.encoder == "fake-1"
    assert outcomes(house).count("promoted") == 1
    assert outcomes(house)[-1] == "promoted"


def run_and_kill(data: Path, name: str, steps: int) -> list[str]:
    process = subprocess.Popen(
        [sys.executable, HERE / "promote_program.py", data, name],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(FAKES.parent), str(HERE.parents[1])])},
        stdout=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.strip())
            if len(said) == steps:
                process.kill()
        process.wait(60)
    assert said
    return said


def test_one_at_a_time(house: Any, made: ModuleType) -> None:
    made.make_candidate(house.data, "tuned")
    with (
        Releases(house.data).alone(),
        pytest.raises(StoreLocked, match=r"Another promotion .* is running\. Wait until it has ended"),
    ):
        made.promotion(house, "tuned").run()
    with house.store.rebuilding(), Store(house.data) as store:
        busy = made.promotion(house, "tuned")
        busy.store = store
        with pytest.raises(StoreLocked, match="Another rebuild"):
            busy.run()
    assert outcomes(house) == ["begun", "failed"]
    assert house.stamp() == "fake-1"


def test_a_disk_that_refuses_changes_nothing(house: Any, made: ModuleType) -> None:
    made.make_candidate(house.data, "tuned")
    (house.data / RELEASES).mkdir()
    with pytest.raises(BelegError, match=r"releases\.jsonl cannot be"):
        made.promotion(house, "tuned").run()
    assert house.stamp() == "fake-1"


def test_a_model_that_was_changed_since(house: Any, made: ModuleType) -> None:
    folder = made.make_candidate(house.data, "tuned")
    (folder / "model" / "more.safetensors").write_text("x")
    with pytest.raises(ModelError, match="not those that were measured"):
        made.promotion(house, "tuned")


@pytest.mark.parametrize(
    ("difference", "low", "p", "passed"),
    [
        (0.1, 0.01, 0.01, True),
        (0.1, 0.0, 0.1, True),
        (0.1, -0.01, 0.05, False),
        (0.1, 0.01, 0.11, False),
        (0.0, 0.0, 1.0, False),
    ],
)
def test_the_rule(difference: float, low: float, p: float, passed: bool) -> None:
    verdict = Verdict(0.5, 0.5 + difference, 10, 10, difference, low, 0.2, p, 1, 0, 9)
    assert verdict.passed == passed
