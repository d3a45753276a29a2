"""Questions to begin with: what headings become, which are left out, and that the documents really answer them."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reader.calibration import Calibration
from reader.pipeline import MOST_SUGGESTIONS, Pipeline
from reader.suggestions import Suggestion, suggest
from retriever.chunk import ChunkSize
from retriever.fill import Maker
from retriever.index.base import Generation
from retriever.publish import publish
from retriever.schema import Document, Heading, Hit, document_id
from retriever.settings import Settings

PROSE = "This is a sentence that tells enough of it to be an answer."


def made(name: str, *headings: str, language: str = "en", below: str = PROSE, title: str = "") -> Document:
    """Return a document with these headings, and the same text below each of them."""
    text, places = "", []
    for heading in headings:
        places.append(Heading(2, heading, len(text), len(text) + len(heading)))
        text += f"{heading}\n\n{below}\n\n"
    return Document(document_id(name), name, title or name, text, language, "0", headings=tuple(places))


def finding(documents: Sequence[Document]) -> Callable[[str], list[Hit]]:
    """Return a search that finds the section whose heading's words the query has; the last one of several."""

    def find(query: str) -> list[Hit]:
        hits = [
            Hit(one.id, one.source, one.title, "en", (heading.text,), None, 0, 1, "x", 1.0, None, None, 1)
            for one in documents
            for heading in one.headings
            if re.sub(r"^§?\s*\d[\w.]*\s", "", heading.text).casefold() in query.casefold()
        ]
        return hits[-1:]

    return find


def questions(*documents: Document, limit: int = 12) -> list[str]:
    return [one.question for one in suggest(documents, finding(documents), limit)]


@pytest.mark.parametrize(
    ("heading", "language", "question"),
    [
        ("When is my salary paid?", "en", "When is my salary paid?"),
        ("§ 4 Wann wird das Gehalt gezahlt?", "de", "Wann wird das Gehalt gezahlt?"),
        ("3 Near misses", "en", "What should I know about near misses?"),
        ("2.4. Working from abroad", "en", "What should I know about working from abroad?"),
        ("§ 12a Videoüberwachung", "de", "Was gilt zum Thema Videoüberwachung?"),
        ("4.1 Haftung und Versicherung", "de", "Was gilt zum Thema Haftung und Versicherung?"),
    ],
)
def test_what_becomes_a_question(heading: str, language: str, question: str) -> None:
    document = made("a.md", heading, language=language)
    assert suggest([document], finding([document]), 6) == [Suggestion(question, document.id, "a.md")]


@pytest.mark.parametrize(
    ("heading", "language"),
    [
        ("7", "en"),
        ("§ 6", "de"),
        ("§ 6 (weggefallen)", "de"),
        ("Inhaltsverzeichnis", "de"),
        ("9 Schlussbestimmungen", "de"),
        ("Conclusion", "en"),
        ("Introduction", "en"),
        ("Rail", "en"),
        ("Teile für die Baureihe DSH-2", "de"),
        ("Private Geräte", "de"),
        ("Your first weeks", "en"),
        ("Before any work begins", "en"),
        ("CHAPTER THREE", "en"),
        ("Why?", "en"),
        ("Que faut-il savoir des accidents", "fr"),
        (f"Do you know {'very ' * 40}well?", "en"),
        ("", "en"),
    ],
)
def test_what_does_not(heading: str, language: str) -> None:
    assert questions(made("a.md", heading, language=language)) == []


@pytest.mark.parametrize(
    "below", ["", "Code | Meaning | Remedy of whatever may be wrong.", "See below.", "- a list\n- of things"]
)
def test_a_heading_without_sentences_below_is_left_out(below: str) -> None:
    assert questions(made("a.md", "Near misses", below=below)) == []


def test_a_name_is_no_topic() -> None:
    told = "Everybody in Lauterhausen knows where the emergency exits are."
    assert questions(made("a.md", "Lauterhausen", below=told)) == []
    assert questions(made("a.md", "Lauterhausen", below=PROSE)) != []


def test_a_name_is_told_from_words_that_begin_like_it() -> None:
    assert questions(made("a.md", "Near misses", below="We keep, Nearly always, a Near-miss book of what has happened.")) != []
    assert questions(made("a.md", "Near misses", below="This goes to Big Near every evening of the week, by bus.")) == []


def test_of_a_document_that_answers_none_a_few_are_searched_for() -> None:
    documents = [made(f"{name}.md", *(f"Where is room {number}?" for number in range(500))) for name in ("a", "b")]
    searched: list[str] = []

    def find(query: str) -> list[Hit]:
        searched.append(query)
        return []

    assert suggest(documents, find, 12) == []
    assert len(searched) == 20


def test_only_the_beginning_of_a_document_is_looked_at() -> None:
    late = made("a.md", *(f"§ {number}" for number in range(300)), "Where is the tea?")
    assert questions(late) == []
    told = f"It is kept where nobody looks for it {'and never was ' * 200}at all."
    assert questions(made("a.md", "Near misses", below=told)) == []
    assert questions(made("a.md", "Near misses", below=f"{PROSE} {told}")) != []
    # A name that is told so late is taken for a word.
    document = made("a.md", "Lauterhausen")
    far = replace(document, text=f"{document.text}{' ' * 200_000} in Lauterhausen")
    assert suggest([far], finding([far]), 1) != []


def test_one_that_another_document_answers_is_left_out() -> None:
    first, second = made("a.md", "Near misses"), made("b.md", "Near misses")
    found = suggest([first], finding([first, second]), 6)
    assert found == []


def test_the_same_question_is_asked_once() -> None:
    documents = [made("a.md", "When is it paid?", "When is it paid?"), made("b.md", "When is it paid?")]
    assert questions(*documents) == ["When is it paid?"]


def test_documents_take_turns_and_their_own_questions_come_first() -> None:
    asked = made("faq.md", *(f"Where is room {number}?" for number in range(8)))
    plain = [made(f"{name}.md", f"Your {name} rules", f"Long {name} drill") for name in ("fire", "gas")]
    found = suggest([*plain, asked], finding([*plain, asked]), 6)
    assert [one.question for one in found[:4]] == [f"Where is room {number}?" for number in range(4)]
    assert [one.title for one in found[4:]] == ["fire.md", "gas.md"]


@pytest.mark.parametrize("limit", [0, 1, 2, 100])
def test_never_more_than_asked_for(limit: int) -> None:
    documents = [made(f"{name}.md", f"Where is {name}?", f"Who has {name}?") for name in ("tea", "salt", "oil")]
    assert len(questions(*documents, limit=limit)) == min(limit, 6)
    assert questions(limit=limit) == []


class TestPipeline:
    @pytest.fixture
    def opened(self, retriever_fakes: ModuleType, fake_engine: Any, tmp_path: Path) -> Iterator[tuple[Any, Pipeline]]:
        house = retriever_fakes.House(tmp_path)
        settings = Settings(data_dir=tmp_path)
        with Pipeline(settings, house.store, house.generations, house.encoders, fake_engine(), Calibration()) as pipeline:
            yield house, pipeline

    def put(self, house: Any, *documents: Document) -> None:
        """Index documents with their headings, as `beleg index` does."""
        maker = Maker(house.encoder("fake-1"), ChunkSize(60, 10))
        with house.store.writer():
            for document in documents:
                chunks, inputs = maker.chunks(document)
                vectors = dict(zip(inputs, maker.encoder.encode_passages(list(inputs.values())), strict=True))
                given = {"chunking": maker.stamp.chunking, "encoder": maker.encoder.fingerprint, "vectors": vectors}
                house.store.put(document, chunks, loader="1", **given)
            target = Generation("", maker.stamp, "fake-1")
            publish(house.store, house.generations, target, dimensions=32, keep_s=3600)

    def test_they_follow_the_documents(self, opened: tuple[Any, Pipeline]) -> None:
        house, pipeline = opened
        english = made("faq.md", "When is the salary paid?", below="On the last day.")
        german = made("fragen.md", "Wann wird das Gehalt gezahlt?", language="de", below="Am letzten Tag.")
        self.put(house, english, german)
        assert {one.document for one in pipeline.suggestions()} == {english.id, german.id}
        assert [one.document for one in pipeline.suggestions(language="de")] == [german.id]
        assert [one.document for one in pipeline.suggestions(language="en")] == [english.id]
        assert pipeline.suggestions(language="fr") == []
        assert len(pipeline.suggestions(limit=1)) == 1
        self.put(house, made("faq.md", "Where is the parking space?", below="In the yard."))
        assert [one.question for one in pipeline.suggestions(language="en")] == ["Where is the parking space?"]

    def test_they_are_the_same_until_then(self, opened: tuple[Any, Pipeline]) -> None:
        house, pipeline = opened
        things = ("tea", "salt", "oil", "milk", "soup", "rice", "bread", "cake", "beer", "wine", "plum", "pear", "nut", "egg")
        self.put(house, *(made(f"{name}.md", f"Where is the {name}?", below=f"{name} {name} {name}") for name in things))
        today = pipeline.suggestions(limit=MOST_SUGGESTIONS)
        assert len(today) == MOST_SUGGESTIONS
        assert pipeline.suggestions(limit=3) == today[:3]

    def test_they_are_made_once_however_many_ask(self, opened: tuple[Any, Pipeline]) -> None:
        house, pipeline = opened
        self.put(house, made("faq.md", "Where is the tea?", "Where is the oil?", below="In the yard."))
        encoder, asked, begin = house.encoder("fake-1"), [], threading.Barrier(8)
        encode = encoder.encode_query

        def encode_query(text: str) -> Any:
            asked.append(text)
            return encode(text)

        def ask(_: int) -> list[Suggestion]:
            begin.wait(10)
            return pipeline.suggestions()

        encoder.encode_query = encode_query
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, range(8)))
        assert all(one == found[0] for one in found)
        assert sorted(asked) == ["Where is the oil?", "Where is the tea?"]

    def test_languages_that_there_are_not_are_not_kept(self, opened: tuple[Any, Pipeline]) -> None:
        house, pipeline = opened
        self.put(house, made("faq.md", "Where is the tea?", below="In the yard."))
        for language in ("xx", "und", "DE", "' OR 1", ""):
            assert pipeline.suggestions(language=language) == []
        assert pipeline.suggestions(language="en") != []
        assert set(pipeline._suggestions) == {"en"}

    def test_an_empty_index_suggests_nothing(self, opened: tuple[Any, Pipeline]) -> None:
        house, pipeline = opened
        self.put(house)
        assert pipeline.suggestions() == []
