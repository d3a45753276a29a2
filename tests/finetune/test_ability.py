"""Multiple-choice questions: the forms that are read, what can be malformed, and how a label is taken out of text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.ability import Choice, accuracy, choose, first_label, read_choices
from finetune.systems import Recorded
from reader.answering import Reader
from reader.calibration import Calibration
from reader.engine.base import Prompt
from retriever.errors import BelegError

EXAMPLES = Path(__file__).parents[2] / "examples" / "arc"
NESTED: dict[str, Any] = {
    "id": "n",
    "question": {"stem": "Which floats?", "choices": [{"label": "A", "text": "cork"}, {"label": "B", "text": "iron"}]},
    "answerKey": "A",
}
FLAT: dict[str, Any] = {
    "id": "f", "question": "Which floats?", "choices": {"text": ["cork", "iron"], "label": ["1", "2"]}, "answerKey": "1",
}  # fmt: skip


class Saying(Recorded):
    """Remembers the grammar and the prompt."""

    def __init__(self, says: str, *, constrained: bool) -> None:
        super().__init__("saying", "")
        self.says = says
        self.constrained = constrained
        self.asked: list[tuple[Prompt, str | None]] = []

    def generate(self, prompt: Prompt, *, grammar: str | None, max_tokens: int, cancelled: Callable[[], bool]) -> Iterator[str]:
        self.asked.append((prompt, grammar))
        yield self.says


def written(folder: Path, *records: object) -> Path:
    path = folder / "choices.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_both_forms(tmp_path: Path) -> None:
    nested, flat = read_choices(written(tmp_path, NESTED, FLAT))
    assert nested == Choice("n", "Which floats?", (("A", "cork"), ("B", "iron")), "A")
    assert flat == Choice("f", "Which floats?", (("1", "cork"), ("2", "iron")), "1")


def test_the_shipped_questions() -> None:
    found = [one for path in sorted(EXAMPLES.glob("*.jsonl")) for one in read_choices(path)]
    assert len(found) == 40
    assert len({one.question for one in found}) == 40
    rights = [one.right for one in found]
    # Whoever always says the same gets a quarter.
    assert {label: rights.count(label) for label in "ABCD"} == dict.fromkeys("ABCD", 10)
    assert all(len(dict(one.choices)) == 4 and len({text for _, text in one.choices}) == 4 for one in found)


def test_a_limit_draws_by_the_seed(tmp_path: Path) -> None:
    path = written(tmp_path, *({**NESTED, "id": f"n{number}"} for number in range(20)))
    drawn = [one.id for one in read_choices(path, limit=5, seed=1)]
    assert len(drawn) == 5
    assert drawn == [one.id for one in read_choices(path, limit=5, seed=1)]
    assert drawn != [one.id for one in read_choices(path, limit=5, seed=2)]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**NESTED, "answerKey": "C"}, "answerKey"),
        ({"question": NESTED["question"]}, "answerKey"),
        ({**NESTED, "question": {"stem": " ", "choices": NESTED["question"]["choices"]}}, "question: empty"),
        ({**NESTED, "question": {"stem": "?", "choices": [{"label": "A", "text": "one"}]}}, "question.choices"),
        ({**FLAT, "choices": {"text": ["cork"], "label": ["1", "2"]}}, "choices"),
        ({**FLAT, "choices": {"text": ["cork", "iron"], "label": ["1", "1"]}}, "label of its own"),
        ({**FLAT, "choices": None}, "choices"),
        (["a"], "not a JSON object"),
        (FLAT, "twice"),
    ],
)
def test_what_is_malformed_is_named(tmp_path: Path, record: object, message: str) -> None:
    with pytest.raises(BelegError, match="line 2") as caught:
        read_choices(written(tmp_path, FLAT, record))
    assert message in str(caught.value)


def test_an_empty_file_and_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BelegError, match="no question"):
        read_choices(written(tmp_path))
    with pytest.raises(BelegError, match="cannot be read"):
        read_choices(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize(
    ("said", "label"),
    [("B", "B"), (" b", ""), ("Label: B.", "B"), ("A) cork", "A"), ("Cork floats.", ""), ("", ""), ("ABBA", "")],
)
def test_the_first_label_that_stands_alone(said: str, label: str) -> None:
    assert first_label(said, ["A", "B"]) == label


def test_a_label_that_begins_another_one() -> None:
    assert first_label("10", ["1", "10"]) == "10"
    assert first_label("(+)", ["+", "-"]) == "+"


@pytest.mark.parametrize(("constrained", "grammar"), [(True, 'start: "A" | "B"'), (False, None)])
def test_the_grammar_allows_the_labels_alone(tmp_path: Path, constrained: bool, grammar: str | None) -> None:
    engine = Saying("B, since", constrained=constrained)
    (one,) = read_choices(written(tmp_path, NESTED))
    assert choose(Reader(engine, Calibration(), 32), one) == "B"
    ((prompt, used),) = engine.asked
    assert used == grammar
    assert prompt.messages[-1].content == "Which floats?\nA. cork\nB. iron\nLabel:"


def test_the_grammar_is_one(tmp_path: Path) -> None:
    import llguidance

    engine = Saying("A", constrained=True)
    record = {**FLAT, "choices": {"text": ["x", "y"], "label": ['"', "\\é"]}, "answerKey": '"'}
    (one,) = read_choices(written(tmp_path, record))
    choose(Reader(engine, Calibration(), 32), one)
    assert llguidance.LLMatcher.validate_grammar(engine.asked[0][1]) == ""


def test_the_interval() -> None:
    # Clopper and Pearson, of 0 in 10: 0 to 1 - (.05 / 2) ** (1 / 10)
    none = accuracy([False] * 10)
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(1 - 0.025**0.1, abs=1e-4))
    with pytest.raises(BelegError):
        accuracy([])
