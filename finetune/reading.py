"""Readers asked with passages that were fixed beforehand, by the very steps that serve: only how passages are found differs.

Knows neither files nor measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from finetune.raft.row import PassageKind, RaftRow, hits_of
from reader.answering import Asking, Given, Reader
from reader.engine.base import Message, Prompt, never
from reader.errors import PromptTooLong
from reader.prompt import apply_template
from reader.quotes import parse
from reader.schema import Answer
from retriever.analyze import analyze, analyze_query
from retriever.chunk import passage_text
from retriever.encode import Encoder
from retriever.errors import BelegError
from retriever.fuse import convex
from retriever.schema import Hit
from retriever.search import DEFAULT_ALPHA

__all__ = ["Asked", "Outcome", "answer_all", "answer_one", "asked_of", "chat"]

_CLOSED_BOOK = "Answer the question from what you know, as short as possible, in the language of the question."


@dataclass(frozen=True, slots=True)
class Asked:
    """One question with the passages fixed beforehand; made from a RAFT row, or by searching.

    Attributes:
        id: unique among those that are asked together.
        answers: any of them is right; empty if nothing answers it.
        hits: the passages that every reader is shown, in this order.
        kinds: of each passage: `golden`, `retrieved`, `hard` or `easy`.
        golden: texts that prove the answer, whole sentences where they are known.
        document: what the question is about; questions on one document are alike.
        language: ISO 639-1 code, `und` where it is not known.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    hits: tuple[Hit, ...]
    kinds: tuple[PassageKind, ...]
    golden: tuple[str, ...]
    document: str
    language: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a question.

    Attributes:
        seconds: that the answer took, passages not counted.
        closed: it was asked without passages, as one asks a chat model.
        failure: why there is no answer at all; "" if there is one, or an abstention.
    """

    asked: Asked
    answer: Answer
    seconds: float
    closed: bool = False
    failure: str = ""


def asked_of(row: RaftRow) -> Asked:
    """Return a row as a question with its own passages; an abstaining row has no answers."""
    golden = tuple(row.quoted())
    if not golden and row.golden is not None:
        golden = (row.passages[row.golden - 1].text,)
    return Asked(
        id=row.id,
        question=row.question,
        answers=() if row.abstains else (row.answer,),
        hits=tuple(hits_of(row)),
        kinds=tuple(one.kind for one in row.passages),
        golden=() if row.abstains else golden,
        document=row.document or row.id,
        language=row.language,
    )


def answer_all(
    reader: Reader,
    asked: Sequence[Asked],
    encoder: Encoder,
    *,
    passages: bool = True,
    progress: Callable[[], None] = lambda: None,
    on_failure: Callable[[Asked, BelegError], None] | None = None,
) -> list[Outcome]:
    """Ask a reader every question, and return what became of each, in order.

    Args:
        encoder: compares questions with sentences and passages, as the index's does when people ask.
        passages: show them; False asks as one asks a chat model, and nothing can be quoted.
        on_failure: is told of a question that the reader fails on, whose outcome then says so; None raises the first.

    Raises:
        BelegError: the reader failed, and there is no `on_failure`.
    """
    outcomes = []
    for one in asked:
        try:
            outcomes.append(answer_one(reader, one, encoder, passages=passages))
        except BelegError as error:
            if on_failure is None:
                raise
            on_failure(one, error)
            outcomes.append(Outcome(one, _nothing(one), 0.0, closed=not passages, failure=str(error)))
        progress()
    return outcomes


def answer_one(reader: Reader, asked: Asked, encoder: Encoder, *, passages: bool = True) -> Outcome:
    """Ask a reader one question; see `answer_all`.

    Raises:
        BelegError: the reader failed.
    """
    if not passages:
        return _closed_book(reader, asked, encoder)
    given = Given(_scored(asked, encoder), encoder)
    begin = time.perf_counter()
    *_, last = Asking(reader, given, asked.question).run()
    seconds = time.perf_counter() - begin
    assert isinstance(last, Answer)
    return Outcome(asked, last, seconds)


def chat(reader: Reader, system: str, question: str) -> Prompt:
    """Render a plain chat question, without passages and examples.

    Raises:
        EngineError: the model's chat template cannot be rendered.
        PromptTooLong: it does not fit the model's context.
    """
    engine = reader.engine
    messages = (Message("system", system), Message("user", question))
    tokens = tuple(engine.tokenize(apply_template(engine, messages))) if engine.chat_template else ()
    size = len(tokens) or sum(engine.count(message.content) + 8 for message in messages)
    if size + reader.answer_tokens > engine.context_size:
        raise PromptTooLong(f"The question does not fit the {engine.context_size} tokens of {engine.model}.")
    return Prompt(tokens, messages)


def _closed_book(reader: Reader, asked: Asked, encoder: Encoder) -> Outcome:
    begin = time.perf_counter()
    prompt = chat(reader, _CLOSED_BOOK, asked.question)
    text = "".join(reader.engine.generate(prompt, grammar=None, max_tokens=reader.answer_tokens, cancelled=never))
    seconds = time.perf_counter() - begin
    parsed = parse(text)
    # A tuned reader writes the mark of its form whatever it is asked.
    said = text.strip() if parsed.answer is None else parsed.answer
    release = Given((), encoder).release(reader)
    answer = Answer(said, parsed.abstained, "not_in_passages" if parsed.abstained else None, (), (), text, (), release)
    return Outcome(asked, answer, seconds, closed=True)


def _scored(asked: Asked, encoder: Encoder) -> tuple[Hit, ...]:
    """Return the passages with scores; without them a reader would take every passage for a weak one.

    Those that were searched have their own. For others there is no index to ask: meaning counts as usual, and in place of
    BM25 the share of the question's terms that a passage has.
    """
    if not asked.hits or all(hit.dense is not None for hit in asked.hits):
        return asked.hits
    texts = [passage_text(hit.title, hit.headings, hit.text, encoder) for hit in asked.hits]
    dense = [float(cosine) for cosine in encoder.encode_passages(texts) @ encoder.encode_query(asked.question)]
    keyword = [_coverage(asked.question, hit) for hit in asked.hits]
    scores = convex(dense, keyword, alpha=DEFAULT_ALPHA if encoder.alpha is None else encoder.alpha)
    return tuple(replace(hit, score=score, dense=one) for hit, score, one in zip(asked.hits, scores, dense, strict=True))


def _coverage(question: str, hit: Hit) -> float:
    terms = set(analyze_query(question, [hit.language]))
    held = analyze("\n".join((hit.title, *hit.headings, hit.text)), hit.language)
    return len(terms.intersection(held)) / len(terms) if terms else 0.0


def _nothing(asked: Asked) -> Answer:
    return Answer("", False, None, (), asked.hits, "", (), "")
