"""What a model is asked to write, and what of it is taken: nothing that is not proven in its passage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.negatives import stands
from finetune.raft.checks import in_form, supported
from finetune.raft.row import Passage, whole
from finetune.raft.selfcontained import leans_on
from finetune.raft.teacher import Teacher
from reader.quotes import ANSWER, CLOSE, OPEN, parse
from retriever.load.language import detect

__all__ = ["Written", "read_answer", "write_answer", "write_question"]

_TRIES = 3
"""Answers that are asked for before the rule takes over."""

_SYSTEM = f"""\
You write training examples for a model that answers from passages. Write exactly this, and nothing else:
one short sentence that says how the passage answers the question, then on a new line
Passage 1: {OPEN}the sentence of the passage that proves it, word for word{CLOSE}
{ANSWER} the answer, as short as possible, in the language of the question"""

_ASKING = f"""\
You write questions for a test of a search system. Read the passage, and write one question that it answers and that somebody
could ask who has never seen it: name things instead of pointing to "the passage" or "this study". Then write the proof and the
answer, in the language of the passage. Write exactly this, and nothing else:
Question: the question
Passage 1: {OPEN}the sentence of the passage that proves the answer, word for word{CLOSE}
{ANSWER} the answer, as short as possible"""

_LONGEST_THOUGHT = 400
"""In characters, as the grammar of answers has it."""

_STEP = re.compile(rf"Passage \d{{1,9}}: {OPEN}")
_QUESTION = re.compile(r"^\s*(?:Question|Frage)\s*:\s*(\S[^\n]*)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Written:
    """What was taken of a model's words.

    Attributes:
        spans: of its quotes in the passage, whole sentences.
    """

    question: str
    spans: tuple[tuple[int, int], ...]
    reasoning: str
    answer: str


def write_answer(
    teacher: Teacher, question: str, passage: Passage, answers: Sequence[str], *, reasoning: bool = True
) -> Written | str:
    """Have the model answer a question from its golden passage, with a quote; return why nothing was taken if so.

    Args:
        answers: that are right, if known: the model is told the first, and one of them must be in what it answers.
        reasoning: keep the sentence before the quote.
    """
    known = f"\n\nThe right answer: {answers[0]}" if answers else ""
    asked = f"{_block(passage)}\n\nQuestion: {question}{known}"
    reason = ""
    for attempt in range(_TRIES):
        text = teacher.ask((("system", _SYSTEM), ("user", asked)), attempt=attempt)
        found = read_answer(text, question, passage, answers, reasoning=reasoning)
        if isinstance(found, Written):
            return found
        reason = found
    return reason


def write_question(teacher: Teacher, passage: Passage, *, before: Sequence[str] = ()) -> Written | str:
    """Have the model write a question about a passage, with its answer; return why nothing was taken if so.

    Args:
        before: questions that were asked about it already.
    """
    avoid = "\n\nAsk something else than:\n" + "\n".join(before) if before else ""
    reason = ""
    for attempt in range(_TRIES):
        text = teacher.ask((("system", _ASKING), ("user", _block(passage) + avoid)), attempt=attempt)
        match = _QUESTION.search(text)
        if not match:
            reason = "no question"
            continue
        question = " ".join(match.group(1).split())
        language = passage.language if passage.language != "und" else detect(passage.text)
        if leans_on(question, language):
            reason = "not self-contained"
        elif question in before:
            reason = "asked before"
        else:
            found = read_answer(text, question, passage, (), reasoning=False)
            if isinstance(found, Written):
                return found
            reason = found
    return reason


def read_answer(text: str, question: str, passage: Passage, answers: Sequence[str], *, reasoning: bool = True) -> Written | str:
    """Take a model's answer apart; return why it is not taken if so.

    A quote must stand word for word in the passage, and is widened to whole sentences. Numbers, dates and names of the answer
    must stand in it. Reasoning that has not the form that the grammar allows is left out; the rest still counts.
    """
    parsed = parse(text)
    if parsed.abstained:
        return "it abstains"
    answer = " ".join((parsed.answer or "").split()).rstrip()
    if not answer or not in_form(answer):
        return "no answer in the asked form"
    if not parsed.quotes:
        return "no quote"
    spans: list[tuple[int, int]] = []
    for number, quoted in parsed.quotes[:3]:
        at = passage.text.find(quoted.strip()) if quoted.strip() else -1
        if number != 1 or at < 0:
            return "a quote that is not in the passage"
        span = whole(passage, at, at + len(quoted.strip()))
        if span and span not in spans:
            spans.append(span)
    quotes = [passage.text[start:end] for start, end in spans]
    if not spans or supported(answer, question, quotes, passage.language):
        return "an answer that its quote does not support"
    if answers and not any(_agrees(answer, known) for known in answers):
        return "another answer than the known one"
    thought = " ".join(_STEP.split(text)[0].split()) if reasoning else ""
    if not in_form("x", thought) or len(thought) > _LONGEST_THOUGHT:
        thought = ""
    return Written(question, tuple(spans), thought, answer)


def _agrees(answer: str, known: str) -> bool:
    one, other = " ".join(answer.casefold().split()).strip(" ."), " ".join(known.casefold().split()).strip(" .")
    return one == other or stands(other, one) or stands(one, other)


def _block(passage: Passage) -> str:
    place = " > ".join(dict.fromkeys((passage.title, *passage.headings)))
    return f"Passage 1 ({place}):\n{passage.text}"
