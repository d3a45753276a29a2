"""Readers that are asked with fixed passages, by an engine that says what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType

import pytest

from finetune.raft.row import Passage, RaftRow
from finetune.reading import Asked, answer_all, answer_one, asked_of, chat
from finetune.systems import Recorded
from reader.answering import Given, Reader
from reader.calibration import Calibration
from reader.engine.base import Prompt
from reader.errors import EngineUnavailable, PromptTooLong
from reader.quotes import Span
from retriever.schema import document_id

CANTEEN = "Guests pay 9.40 euros. Staff pay 6.80 euros."
TRAM = "A tram ticket costs 2.90 euros."
QUESTION = "What do guests pay?"
RIGHT = "Passage 2: ##begin_quote##Guests pay 9.40 euros.##end_quote##\n<ANSWER>: 9.40 euros"


class Saying(Recorded):
    """Says what a test wants, and remembers what it was asked."""

    def __init__(self, says: str | Callable[[Prompt], str], *, constrained: bool = False) -> None:
        super().__init__("saying-1", "f" * 64)
        self.says = says
        self.constrained = constrained
        self.prompts: list[Prompt] = []
        self.grammars: list[str | None] = []

    def generate(self, prompt: Prompt, *, grammar: str | None, max_tokens: int, cancelled: Callable[[], bool]) -> Iterator[str]:
        self.prompts.append(prompt)
        self.grammars.append(grammar)
        yield self.says if isinstance(self.says, str) else self.says(prompt)


@pytest.fixture
def row() -> RaftRow:
    passages = (
        Passage(TRAM, "Travel", (), "hard", "travel.md", 40, 40 + len(TRAM), "en"),
        Passage(CANTEEN, "Canteen", ("Prices",), "golden", "canteen.md", 100, 100 + len(CANTEEN), "en"),
    )
    return RaftRow("r1", QUESTION, passages, 2, (Span(2, 0, 22),), "", "9.40 euros", False, "en", "canteen")


def reader(says: str | Callable[[Prompt], str], calibration: Calibration | None = None, **more: bool) -> Reader:
    return Reader(Saying(says, **more), calibration or Calibration(), 320)


def test_a_row_becomes_a_question_with_its_own_passages(row: RaftRow) -> None:
    asked = asked_of(row)
    assert (asked.id, asked.answers, asked.kinds) == ("r1", ("9.40 euros",), ("hard", "golden"))
    assert asked.golden == ("Guests pay 9.40 euros.",)
    assert (asked.document, asked.language) == ("canteen", "en")
    assert [hit.text for hit in asked.hits] == [TRAM, CANTEEN]
    assert asked.hits[1].document == document_id("canteen.md")
    unquoted = asked_of(replace(row, quotes=()))
    assert unquoted.golden == (CANTEEN,)
    abstaining = asked_of(replace(row, abstains=True, quotes=(), golden=None))
    assert (abstaining.answers, abstaining.golden) == ((), ())
    assert asked_of(replace(row, document="")).document == "r1"


def test_a_quote_is_proven_in_its_passage_and_placed_in_its_document(row: RaftRow, fakes: ModuleType) -> None:
    outcome = answer_one(reader(RIGHT), asked_of(row), fakes.FakeEncoder())
    assert outcome.answer.answer == "9.40 euros"
    (quote,) = outcome.answer.quotes
    assert (quote.start, quote.end, quote.source) == (100, 122, "canteen.md")
    assert outcome.seconds > 0
    assert not outcome.closed


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (RIGHT.replace("9.40", "9.50"), "unproven"),
        (RIGHT.replace("<ANSWER>: 9.40", "<ANSWER>: 9.50"), "unsupported"),
        ("<ANSWER>: NOT FOUND", "not_in_passages"),
        ("Guests pay 9.40 euros.", "unproven"),
        ("", "unproven"),
    ],
)
def test_what_cannot_be_proven_is_withheld(row: RaftRow, fakes: ModuleType, says: str, reason: str) -> None:
    outcome = answer_one(reader(says), asked_of(row), fakes.FakeEncoder())
    assert (outcome.answer.abstained, outcome.answer.reason) == (True, reason)


def test_passages_without_scores_get_some_and_others_keep_theirs(row: RaftRow, fakes: ModuleType) -> None:
    asked = asked_of(row)
    found = answer_one(reader(RIGHT), asked, fakes.FakeEncoder()).answer.hits
    assert all(hit.dense is not None for hit in found)
    # The one that has the words of the question is the better one.
    assert found[1].score > found[0].score
    given = replace(asked, hits=tuple(replace(hit, dense=0.9, score=3.0) for hit in asked.hits))
    assert answer_one(reader(RIGHT), given, fakes.FakeEncoder()).answer.hits == given.hits


def test_weak_passages_are_not_read(row: RaftRow, fakes: ModuleType) -> None:
    strict = reader(RIGHT, Calibration(least_strength=0.99))
    outcome = answer_one(strict, asked_of(row), fakes.FakeEncoder())
    assert outcome.answer.reason == "weak_retrieval"
    assert isinstance(strict.engine, Saying)
    assert strict.engine.prompts == []
    nothing = replace(asked_of(row), hits=(), kinds=())
    assert answer_one(reader(RIGHT), nothing, fakes.FakeEncoder()).answer.reason == "nothing_found"


def test_the_prompt_is_the_served_one(row: RaftRow, fakes: ModuleType) -> None:
    plain = reader(RIGHT, Calibration(shots=False), constrained=True)
    answer_one(plain, asked_of(row), fakes.FakeEncoder())
    assert isinstance(plain.engine, Saying)
    ((prompt,), (grammar,)) = plain.engine.prompts, plain.engine.grammars
    assert [message.role for message in prompt.messages] == ["system", "user"]
    assert "Passage 2 (Canteen > Prices):\n" + CANTEEN in prompt.messages[-1].content
    assert grammar is not None
    assert "Guests pay 9.40 euros." in grammar


def test_a_closed_book(row: RaftRow, fakes: ModuleType) -> None:
    plain = reader("  About ten euros. ", constrained=True)
    (outcome,) = answer_all(plain, [asked_of(row)], fakes.FakeEncoder(), passages=False)
    assert (outcome.answer.answer, outcome.answer.quotes, outcome.closed) == ("About ten euros.", (), True)
    assert isinstance(plain.engine, Saying)
    assert plain.engine.grammars == [None]
    assert not any(CANTEEN in message.content for message in plain.engine.prompts[0].messages)
    tuned = answer_all(reader("<ANSWER>: ten"), [asked_of(row)], fakes.FakeEncoder(), passages=False)
    assert tuned[0].answer.answer == "ten"
    honest = answer_all(reader("<ANSWER>: NOT FOUND"), [asked_of(row)], fakes.FakeEncoder(), passages=False)
    assert honest[0].answer.abstained


def test_a_failure_is_raised_or_told_but_never_passed_over(row: RaftRow, fakes: ModuleType) -> None:
    def fail(prompt: Prompt) -> str:
        if "tram" in prompt.messages[-1].content.partition("Question:")[2]:
            raise EngineUnavailable("The server is down.")
        return RIGHT

    asked = [asked_of(row), replace(asked_of(row), id="r2", question="What does a tram cost?"), asked_of(row)]
    with pytest.raises(EngineUnavailable):
        answer_all(reader(fail), asked, fakes.FakeEncoder())
    told: list[tuple[str, str]] = []
    done: list[None] = []
    outcomes = answer_all(
        reader(fail),
        asked,
        fakes.FakeEncoder(),
        progress=lambda: done.append(None),
        on_failure=lambda one, error: told.append((one.id, str(error))),
    )
    assert [outcome.failure for outcome in outcomes] == ["", "The server is down.", ""]
    assert told == [("r2", "The server is down.")]
    assert len(done) == 3
    assert not outcomes[1].answer.abstained


def test_a_chat_question_that_does_not_fit_is_refused() -> None:
    small = reader("x")
    small.engine.context_size = 400
    with pytest.raises(PromptTooLong):
        chat(small, "Be short.", "word " * 100)


def test_fixed_passages_are_read_within_themselves(row: RaftRow, fakes: ModuleType) -> None:
    asked: Asked = asked_of(row)
    given = Given(asked.hits, fakes.FakeEncoder())
    assert given.read(asked.hits[1], 100, 106) == ("Guests", None)
    assert given.read(asked.hits[1], 99, 106) is None
    one, other = reader("a"), reader("a", Calibration(shots=False))
    assert given.release(one) == Given((), fakes.FakeEncoder(fingerprint="x")).release(one)
    assert given.release(one) != given.release(other)
