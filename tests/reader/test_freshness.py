"""Documents that change while a question is being answered, and answers that are kept until one does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reader.answering import Event, HitsFound, QuoteProven, Token
from reader.calibration import Calibration
from reader.engine.base import Prompt
from reader.pipeline import Pipeline
from reader.schema import Answer, Turn
from retriever.errors import QueryError
from retriever.settings import Settings

ASKED = "Um wie viel Uhr öffnet das Hotel?"
OPENS = "Das Hotel öffnet um acht."
LATER = "Das Hotel öffnet um neun."


def says(quoted: str) -> str:
    return f"Passage 1: ##begin_quote##{quoted}##end_quote##\n<ANSWER>: {quoted.rpartition(' ')[2].strip('.')}"


class Asked:
    """A pipeline over a small store that somebody changes, with a model that says what it is told to.

    Attributes:
        meanwhile: what happens while the model writes: once for each time that it is asked.
        says: what it writes; the text that it was last shown of the hotel by default.
    """

    def __init__(self, house: Any, make: Callable[..., Any], **more: Any) -> None:
        self.house = house
        self.meanwhile: list[Callable[[], None]] = []
        self.says = ""
        self.engine = make(self._write)
        settings = Settings(data_dir=house.data, **more)
        generations, encoders = house.generations, house.encoders
        self.pipeline = Pipeline(settings, house.store, generations, encoders, self.engine, Calibration(least_strength=0.0))

    def _write(self, prompt: Prompt) -> str:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        shown = prompt.messages[-1].content
        return self.says or says(LATER if LATER in shown else OPENS)

    def events(self, question: str = ASKED, **more: Any) -> list[Event]:
        return list(self.pipeline.ask(question, **more))

    def answer(self, question: str = ASKED, **more: Any) -> Answer:
        return self.pipeline.answer(question, **more)


@pytest.fixture
def ask(retriever_fakes: ModuleType, fake_engine: Callable[..., Any], tmp_path: Path) -> Iterator[Callable[..., Asked]]:
    """Open a pipeline over one document on a hotel, and one on a train."""
    opened: list[Asked] = []

    def make(**more: Any) -> Asked:
        house = retriever_fakes.House(tmp_path)
        house.change(("hotel.md", OPENS), ("bahn.md", "Die Bahn fährt um sechs."))
        opened.append(Asked(house, fake_engine, **more))
        return opened[-1]

    yield make
    for one in opened:
        one.pipeline.close()


def kinds(events: list[Event]) -> list[type]:
    """Return the kinds of events in their order, tokens left out."""
    return [type(event) for event in events if not isinstance(event, Token)]


class TestFreshness:
    def test_a_changed_document_is_searched_and_read_once_more(self, ask: Callable[..., Asked]) -> None:
        asked = ask()
        asked.meanwhile = [lambda: asked.house.change(("hotel.md", LATER))]
        events = asked.events()
        assert kinds(events) == [HitsFound, HitsFound, QuoteProven, Answer]
        answer = events[-1]
        assert isinstance(answer, Answer)
        assert (answer.answer, [quote.text for quote in answer.quotes]) == ("neun", [LATER])
        assert any(LATER in hit.text for hit in answer.hits)

    def test_one_that_is_gone_is_not_quoted(self, ask: Callable[..., Asked]) -> None:
        asked = ask()
        asked.meanwhile = [lambda: asked.house.change(remove=["hotel.md"])]
        answer = asked.answer()
        assert (answer.reason, answer.quotes) == ("unproven", ())
        assert not any(OPENS in hit.text for hit in answer.hits)

    def test_one_that_changes_again_and_again_is_not_waited_for(self, ask: Callable[..., Asked]) -> None:
        asked = ask()
        texts = ["Das Hotel öffnet um neun.", "Das Hotel öffnet um zehn."]
        asked.meanwhile = [lambda text=text: asked.house.change(("hotel.md", text)) for text in texts]
        events = asked.events()
        assert kinds(events) == [HitsFound, HitsFound, Answer]
        answer = events[-1]
        assert isinstance(answer, Answer)
        assert (answer.reason, answer.quotes) == ("changed", ())
        assert "geändert" in answer.answer

    def test_one_that_is_stored_and_not_yet_published_counts(self, ask: Callable[..., Asked]) -> None:
        asked = ask()

        def store() -> None:
            with asked.house.store.writer():
                asked.house.store.remove("hotel.md")

        asked.meanwhile = [store]
        assert asked.answer().reason == "changed"

    def test_a_quote_that_has_only_moved_is_placed_anew(self, ask: Callable[..., Asked]) -> None:
        asked = ask()
        moved = f"Ein neues Vorwort.\n\n{OPENS} Ende. {'Mehr davon. ' * 9}{OPENS}"
        asked.meanwhile = [lambda: asked.house.change(("hotel.md", moved))]
        events = asked.events()
        assert kinds(events) == [HitsFound, QuoteProven, Answer]
        answer = events[-1]
        assert isinstance(answer, Answer)
        (quote,) = answer.quotes
        assert (quote.start, moved[quote.start : quote.end]) == (moved.index(OPENS), OPENS)
        assert answer.quotes == (events[-2].quote,)  # type: ignore[union-attr]

    def test_what_changes_elsewhere_changes_nothing(self, ask: Callable[..., Asked]) -> None:
        asked = ask()
        asked.meanwhile = [lambda: asked.house.change(("bahn.md", "Die Bahn fährt um sieben."))]
        assert kinds(asked.events()) == [HitsFound, QuoteProven, Answer]

    def test_a_question_that_nobody_waits_for_is_not_asked_again(self, ask: Callable[..., Asked]) -> None:
        asked = ask()
        asked.meanwhile = [lambda: asked.house.change(("hotel.md", LATER))]
        stopped = threading.Event()
        events = []
        for event in asked.pipeline.ask(ASKED, cancelled=stopped.is_set):
            events.append(event)
            if isinstance(event, Token) and "end_quote" in "".join(e.text for e in events if isinstance(e, Token)):
                stopped.set()
        assert len(asked.engine.prompts) == 1


class TestKept:
    def test_the_same_question_is_answered_at_once(self, ask: Callable[..., Asked]) -> None:
        asked = ask()
        first, again = asked.events(), asked.events(f" {ASKED.replace(' ', '  ')}\n")
        assert len(asked.engine.prompts) == 1
        assert kinds(again) == [HitsFound, QuoteProven, Answer]
        assert len(again) == 3  # no tokens
        made, kept = first[-1], again[-1]
        assert isinstance(made, Answer)
        assert isinstance(kept, Answer)
        assert (made.cached, kept.cached, set(kept.timings)) == (False, True, {"cache"})
        assert replace(kept, cached=False, timings=made.timings) == made

    @pytest.mark.parametrize(
        "other",
        [
            {"question": "Um wie viel Uhr schließt das Hotel?"},
            {"filters": {"language": ["de"]}},
            {"history": [Turn("Wann fährt die Bahn?", "um sechs")]},
        ],
    )
    def test_another_question_is_not(self, ask: Callable[..., Asked], other: dict[str, Any]) -> None:
        asked = ask()
        asked.answer()
        assert not asked.answer(**other).cached
        assert len(asked.engine.prompts) == 2
        assert asked.answer().cached
        assert asked.answer(**other).cached

    def test_an_abstention_is_kept_too(self, ask: Callable[..., Asked]) -> None:
        asked = ask()
        asked.says = "<ANSWER>: NOT FOUND"
        assert [asked.answer().cached for _ in range(2)] == [False, True]

    def test_nothing_is_kept_if_so_set(self, ask: Callable[..., Asked]) -> None:
        asked = ask(cache_answers=0)
        assert [asked.answer().cached for _ in range(2)] == [False, False]

    @pytest.mark.parametrize("published", [True, False])
    def test_any_change_of_a_document_ends_it(self, ask: Callable[..., Asked], published: bool) -> None:
        asked = ask()
        asked.answer()
        if published:
            asked.house.change(("bahn.md", "Die Bahn fährt um sieben."))
        else:
            with asked.house.store.writer():
                asked.house.store.remove("bahn.md")
        assert not asked.answer().cached
        assert asked.answer().cached

    def test_so_does_another_encoder(self, ask: Callable[..., Asked]) -> None:
        asked = ask()
        first = asked.answer()
        asked.house.encoders.open("fake-2")
        asked.house.rebuild("fake-2")
        again = asked.answer()
        assert not again.cached
        assert again.release != first.release

    def test_an_answer_of_two_states_is_not_kept(self, ask: Callable[..., Asked]) -> None:
        asked = ask()
        asked.meanwhile = [lambda: asked.house.change(("bahn.md", "Die Bahn fährt um sieben."))]
        assert [asked.answer().cached for _ in range(3)] == [False, False, True]

    def test_what_was_cut_short_or_failed_is_not_kept(self, ask: Callable[..., Asked]) -> None:
        asked = ask()
        list(asked.pipeline.ask(ASKED, cancelled=lambda: bool(asked.engine.prompts)))
        assert not asked.answer().cached
        with pytest.raises(QueryError):
            asked.answer(filters={"colour": ["red"]})
        with pytest.raises(QueryError):
            asked.answer(filters={"colour": ["red"]})

    def test_two_at_once_may_both_be_answered(self, ask: Callable[..., Asked]) -> None:
        asked = ask()
        both = threading.Barrier(2, timeout=10)
        asked.meanwhile = [both.wait, both.wait]  # type: ignore[list-item]
        answers: list[Answer] = []
        threads = [threading.Thread(target=lambda: answers.append(asked.answer())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert [(answer.answer, answer.cached) for answer in answers] == [("acht", False)] * 2
        assert asked.answer().cached
