"""Several systems asked the same, stopped in the middle, with servers that fail; and what the report says of them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from finetune.ability import Choice
from finetune.charts_reader import cosine_chart, measures_chart, mistakes_chart, over_time
from finetune.evaluate_reader import Result, measure_systems, plan_of
from finetune.mistakes import KINDS
from finetune.page_reader import render, write_report
from finetune.posed import Posed
from finetune.raft.checkpoint import Checkpoint
from finetune.raft.row import PassageKind
from finetune.reading import Asked
from finetune.report_reader import read_report, summary
from finetune.significance import Mean
from finetune.systems import OpenedSystem, Recorded, SystemSpec, parse_systems
from reader.answering import Reader
from reader.calibration import Calibration
from reader.engine.base import Prompt
from reader.errors import EngineUnavailable, PromptTooLong
from retriever.errors import BelegError
from retriever.schema import Hit
from retriever.settings import Settings

CHOICES = [
    Choice("c1", "Which floats?", (("A", "cork"), ("B", "iron")), "A"),
    Choice("c2", "Two?", (("A", "1"), ("B", "2")), "B"),
]


class Saying(Recorded):
    """Quotes the first passage and answers as a test says, and counts how often it is asked."""

    def __init__(self, says: Callable[[Prompt], str], name: str = "saying") -> None:
        super().__init__(name, name)
        self.says = says
        self.calls = 0

    def generate(self, prompt: Prompt, *, grammar: str | None, max_tokens: int, cancelled: Callable[[], bool]) -> Iterator[str]:
        self.calls += 1
        yield self.says(prompt)


def question_of(prompt: Prompt) -> int:
    """Return the number in the question."""
    found = re.findall(r"number (\d+)\?", prompt.messages[-1].content)
    return int(found[-1]) if found else -1


def right(prompt: Prompt) -> str:
    number = question_of(prompt)
    if number < 0 or not any("Passage 1" in message.content for message in prompt.messages[-1:]):
        return "A"
    return f"Passage 1: ##begin_quote##Lamp {number} hangs in hall {number}.##end_quote##\n<ANSWER>: hall {number}"


def wrong(prompt: Prompt) -> str:
    number = question_of(prompt)
    if number % 3 == 0:
        return "<ANSWER>: NOT FOUND"
    return f"Passage 2: ##begin_quote##Lamp {number} was bought last year.##end_quote##\n<ANSWER>: last year"


def asked(number: int) -> Asked:
    texts = (f"Lamp {number} hangs in hall {number}.", f"Lamp {number} was bought last year.")
    kinds: tuple[PassageKind, ...] = ("golden", "hard")
    hits = tuple(
        Hit(f"d{number}{at}", f"{at}.md", "Lamps", "en", (), None, 0, len(text), text, 1.0, 0.9, None, 1)
        for at, text in enumerate(texts)
    )
    return Asked(
        f"q{number}", f"Where is the lamp number {number}?", (f"hall {number}",), hits, kinds, texts[:1], f"doc{number}",
        "de" if number % 2 else "en",
    )  # fmt: skip


@pytest.fixture
def posed(fakes: ModuleType) -> Posed:
    unanswerable = replace(asked(9), id="none", answers=(), golden=(), kinds=("hard", "hard"), document="none")
    return Posed([*(asked(number) for number in range(8)), unanswerable], fakes.FakeEncoder())


def opening(engines: dict[str, Saying]) -> Callable[..., Any]:
    @contextmanager
    def open_(settings: Settings, spec: SystemSpec) -> Iterator[OpenedSystem]:
        yield OpenedSystem(spec, Reader(engines[spec.name], Calibration(), 64))

    return open_


def run(posed: Posed, engines: dict[str, Saying], tmp_path: Path, **more: Any) -> list[Result]:
    settings = Settings(data_dir=tmp_path)
    return list(measure_systems(settings, parse_systems(list(engines)), posed, open_=opening(engines), **more))


def test_two_systems_with_the_same_passages(posed: Posed, tmp_path: Path) -> None:
    good, bad = run(posed, {"good": Saying(right, "good"), "bad": Saying(wrong, "bad")}, tmp_path)
    assert good.kinds == {**{f"q{number}": "" for number in range(8)}, "none": "should have abstained"}
    assert {bad.kinds[f"q{number}"] for number in range(8)} == {"abstained wrongly", "wrong passage quoted"}
    assert bad.values["hard_quoted"]["q1"] == 1
    data = summary([good, bad], posed, about={"sources": ["x"], "passages": "2"})
    (total,) = [found for found in data["comparisons"] if found["measure"] == "total"]
    assert (total["new"], total["old"], total["verdict"], total["worse"]) == ("bad", "good", "worse", 8)
    assert data["groups_of_questions"] == 9
    assert [group["name"] for group in data["by"]["language"]] == ["de", "en"]
    assert {one["mistake"] for one in data["worst"]["bad"]} == {"abstained wrongly", "wrong passage quoted"}
    assert [passage["kind"] for passage in data["worst"]["bad"][0]["passages"]] == ["golden", "hard"]
    assert [one["id"] for one in data["worst"]["good"]] == ["none"]
    assert data["systems"][1]["abstained"] == {"not_in_passages": 4}
    assert not any(found["measure"] == "seconds" for found in data["comparisons"])
    # Questions on one document are alike: however many there are, they show nothing.
    alike = replace(posed, asked=[replace(one, document="all") for one in posed.asked])
    (total, *_) = summary([good, bad], alike, about={"sources": ["x"], "passages": "2"})["comparisons"]
    assert (total["measure"], total["verdict"]) == ("total", "tie")


def test_a_closed_book_and_choices(posed: Posed, tmp_path: Path) -> None:
    opened, closed = run(posed, {"good": Saying(right)}, tmp_path, closed_book=True, choices=CHOICES)
    assert closed.name == "good · closed book"
    assert len(closed.outcomes) == 8
    assert "total" not in closed.values
    assert set(closed.kinds.values()) == {"wrong answer"}
    assert [(one.label, one.right) for one in opened.chosen] == [("A", True), ("A", False)]
    data = summary([opened, closed], posed, about={"sources": ["x"], "passages": "2"})
    assert data["ability"]["good"]["value"] == 0.5
    # Without passages it is another task: nothing to compare.
    assert data["comparisons"] == []
    assert data["systems"][1]["measures"].keys() == {"exact_match", "f1", "rouge_l", "cosine", "seconds"}


@pytest.mark.parametrize("torn", [False, True])
def test_what_was_stopped_goes_on(posed: Posed, tmp_path: Path, torn: bool) -> None:
    def stopping(prompt: Prompt) -> str:
        if question_of(prompt) == 4:
            raise KeyboardInterrupt
        return right(prompt)

    first, again = Saying(stopping), Saying(right)
    path = tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt), Checkpoint(path, plan_of(posed)) as kept:
        run(posed, {"good": first}, tmp_path, kept=kept)
    assert first.calls == 5
    if torn:
        path.write_bytes(path.read_bytes()[:-9])
    with Checkpoint(path, plan_of(posed)) as kept:
        (found,) = run(posed, {"good": again}, tmp_path, kept=kept)
    assert again.calls == (6 if torn else 5)
    (whole,) = run(posed, {"good": Saying(right)}, tmp_path)
    assert found.kinds == whole.kinds
    timeless = [{name: values for name, values in one.values.items() if name != "seconds"} for one in (found, whole)]
    assert timeless[0] == timeless[1]
    with Checkpoint(path, plan_of(posed)) as kept:
        run(posed, {"good": again}, tmp_path, kept=kept)
    assert again.calls == (6 if torn else 5)


def test_another_model_or_other_questions_are_asked_anew(posed: Posed, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with Checkpoint(path, plan_of(posed)) as kept:
        run(posed, {"good": Saying(right)}, tmp_path, kept=kept, choices=CHOICES)
    other = Saying(right, "another")
    with Checkpoint(path, plan_of(posed)) as kept:
        run(posed, {"good": other}, tmp_path, kept=kept, choices=CHOICES)
    assert other.calls == 9 + 2
    changed = [replace(CHOICES[0], question="Which sinks?"), CHOICES[1]]
    same = Saying(right, "another")
    with Checkpoint(path, plan_of(posed)) as kept:
        run(posed, {"good": same}, tmp_path, kept=kept, choices=changed)
    assert same.calls == 1
    fewer = replace(posed, asked=posed.asked[:3])
    with pytest.raises(BelegError, match="other rows or options"), Checkpoint(path, plan_of(fewer)):
        pass


def test_a_failure_is_named_and_tried_again(posed: Posed, tmp_path: Path) -> None:
    def failing(prompt: Prompt) -> str:
        if question_of(prompt) == 2:
            raise PromptTooLong("It does not fit.")
        return right(prompt)

    path = tmp_path / "answers.jsonl"
    with Checkpoint(path, plan_of(posed)) as kept:
        (found,) = run(posed, {"good": Saying(failing)}, tmp_path, kept=kept)
    assert found.kinds["q2"] == "failed"
    data = summary([found], posed, about={"sources": ["x"], "passages": "2"})
    assert data["systems"][0]["failures"] == [{"id": "q2", "reason": "It does not fit."}]
    assert data["systems"][0]["measures"]["f1"]["value"] == pytest.approx(7 / 8)
    assert "1 question, which counts as wrong" in " ".join(render(data).split())
    again = Saying(right)
    with Checkpoint(path, plan_of(posed)) as kept:
        (found,) = run(posed, {"good": again}, tmp_path, kept=kept)
    assert again.calls == 1
    assert found.kinds["q2"] == ""


def test_a_server_that_is_gone_ends_the_run_and_one_that_hiccups_does_not(posed: Posed, tmp_path: Path) -> None:
    def gone(prompt: Prompt) -> str:
        if question_of(prompt) >= 3:
            raise EngineUnavailable("The server is down.", way_out="Start it.")
        return right(prompt)

    engine = Saying(gone)
    with pytest.raises(EngineUnavailable, match="3 questions in a row") as caught:
        run(posed, {"good": engine}, tmp_path)
    assert "The server is down. Start it." in str(caught.value)
    assert engine.calls == 6
    assert "--out" in caught.value.way_out

    def hiccups(prompt: Prompt) -> str:
        if question_of(prompt) % 3:
            raise EngineUnavailable("Busy.")
        return right(prompt)

    (found,) = run(posed, {"good": Saying(hiccups)}, tmp_path)
    assert sum(kind == "failed" for kind in found.kinds.values()) == 5


def test_recorded_answers_have_no_time_and_no_closed_book(posed: Posed, tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text(
        json.dumps({"id": "q1", "text": "Passage 1: ##begin_quote##Lamp 1 hangs in hall 1.##end_quote##\n<ANSWER>: hall 1"})
    )
    settings = Settings(data_dir=tmp_path)
    specs = parse_systems([f"hosted=recorded:{path}"])
    (found,) = measure_systems(settings, specs, posed, closed_book=True, choices=CHOICES)
    assert found.kinds["q1"] == ""
    assert sum(kind == "failed" for kind in found.kinds.values()) == 8
    assert found.chosen == []
    data = summary([found], posed, about={"sources": ["x"], "passages": "2"})
    assert data["systems"][0]["latency"] is None
    assert "seconds" not in data["systems"][0]["measures"]


def two(posed: Posed, tmp_path: Path) -> Sequence[Result]:
    engines = {"<b>good": Saying(right, "good"), "bad": Saying(wrong, "bad")}
    return run(posed, engines, tmp_path, closed_book=True, choices=CHOICES)


def test_before_and_after(posed: Posed, tmp_path: Path) -> None:
    earlier = summary(two(posed, tmp_path), posed, about={"sources": ["x"], "passages": "2"})
    write_report(tmp_path / "report", earlier)
    before = read_report(tmp_path / "report" / "report.json")

    def worse(prompt: Prompt) -> str:
        return "B" if question_of(prompt) < 0 else wrong(prompt)

    after = run(posed, {"new": Saying(worse, "new")}, tmp_path, choices=CHOICES)
    data = summary(after, posed, about={"sources": ["x"], "passages": "2"}, before=before)
    (total,) = [found for found in data["before"]["comparisons"] if found["measure"] == "total"]
    # No system of that name then: it is compared with the first.
    assert (total["old"], total["verdict"]) == ("<b>good before", "worse")
    (ability,) = data["before"]["ability"]
    assert (ability["before"], ability["after"], ability["worse"], ability["better"]) == (0.5, 0.5, 1, 1)
    assert "1 forgotten, 1 gained" in " ".join(render(data).split())
    other = replace(posed, asked=[replace(one, id=f"x{one.id}") for one in posed.asked])
    strangers = run(other, {"new": Saying(right)}, tmp_path)
    with pytest.raises(BelegError, match="no question in common"):
        summary(strangers, other, about={"sources": ["x"], "passages": "2"}, before=before)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1, "systems": []}', '{"format": 9, "systems": [], "per_question": [], "weights": {}}']
)
def test_what_is_no_earlier_report(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BelegError) as caught:
        read_report(path)
    assert "report.json" in str(caught.value)


def test_the_page_stands_alone_and_escapes(posed: Posed, tmp_path: Path) -> None:
    nasty = replace(posed.asked[1], question="Where is <script>alert(1)</script> lamp number 1?")
    data = summary(
        two(replace(posed, asked=[posed.asked[0], nasty, *posed.asked[2:]]), tmp_path), posed,
        about={"sources": ["<i>x</i>"], "passages": "2"},
    )  # fmt: skip
    page = write_report(tmp_path / "report", data).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>good" not in page
    assert "<i>x</i>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"""(?:src|href)=["'](?!#)|url\((?!#)|@import""", page)
    assert {"wrong passage quoted", "abstained wrongly"} <= {text for text in KINDS if text in page}
    written = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert written["per_question"][1]["systems"]["bad"]["mistake"] == "wrong passage quoted"
    assert written["systems"][0]["cosines"]


def test_a_folder_that_is_a_file_is_refused(posed: Posed, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    data = summary(run(posed, {"good": Saying(right)}, tmp_path), posed, about={"sources": ["x"], "passages": "2"})
    with pytest.raises(BelegError, match="cannot be written"):
        write_report(tmp_path / "file", data)


def texts_of(svg: str) -> set[str]:
    return {"".join(node.itertext()).strip() for node in ET.fromstring(svg).iter() if node.tag.endswith("text")}


def test_charts_say_what_they_show() -> None:
    means = {"f1": {"a & b": Mean(0.5, 0.4, 0.6), "c": Mean(0.2, 0.1, 0.3)}, "rouge_l": {"c": Mean(0.3, 0.2, 0.4)}}
    assert {"f1", "rouge_l", "a & b", "c"} <= texts_of(measures_chart("m", means, ["a & b", "c"]))
    counts = {"a": {"form": 3}, "b": {"failed": 1, "form": 2}}
    shown = texts_of(mistakes_chart("k", counts, list(KINDS)))
    assert {"form", "failed", "a", "b", "3", "2", "1"} <= shown
    assert "wordy" not in shown
    assert {"a", "b"} <= texts_of(cosine_chart("c", {"a": [0.1, 0.9, -0.2], "b": []}))


def test_measures_over_a_training() -> None:
    svg = over_time([(100, {"f1": 0.2, "golden_quote": 0.5}), (0, {"f1": 0.1}), (200, {"f1": 0.3, "golden_quote": 0.6})])
    assert {"f1", "golden_quote", "training steps"} <= texts_of(svg)
    assert "var(--series-0)" in svg
    assert over_time([(0, {"f1": 0.1})], name="one").count("<svg") == 1
