"""Makes sure that answers stand where a row says they do. Reads no file."""

from __future__ import annotations

from dataclasses import replace

from finetune.data.lines import Kind, Problem
from finetune.data.schema import Answer, Context, Row

__all__ = ["check_row"]

_NEAR = 20
_BY_FAR = 4

_Finding = tuple[Kind, str] | None


def check_row(row: Row) -> tuple[Row, list[Problem]]:
    """Return the row with every answer's place in the first positive context proven, and what was wrong with it.

    A place that is not None afterwards is exact: `text[start : start + len(answer)] == answer`. White space around an answer is
    taken off, and an answer that is there twice is kept once. Where the stated place is wrong, an answer that stands in the
    context once is found; of several places the nearest is taken if it is at most 20 code points off and the next at least four
    times as far. If no answer stands in the first positive context but one does in a later, that one comes first. With a fatal
    problem the row must not be used.
    """
    fatal = _fatal(row)
    if fatal:
        return row, [Problem(row.origin, *fatal, fatal=True)]
    found: list[tuple[str, _Finding]] = []
    negatives, hard = (tuple(filter(_said, contexts)) for contexts in (row.negatives, row.hard_negatives))
    for field, lost in (
        ("negatives", len(row.negatives) - len(negatives)),
        ("hard_negatives", len(row.hard_negatives) - len(hard)),
    ):
        found.append((field, ("dropped", f"{lost} empty, left out") if lost else None))
    positives, moved = _answering_first(row)
    found.append(("positives", moved))
    text = positives[0].text if positives else ""
    answers: dict[Answer, None] = {}
    for number, answer in enumerate(row.answers):
        if answer.text.strip():
            placed, finding = _placed(answer, text)
            answers[placed] = None
        else:
            finding = ("dropped", "empty, left out")
        found.append((f"answers.{number}", finding))
    checked = replace(row, positives=positives, negatives=negatives, hard_negatives=hard, answers=tuple(answers))
    return checked, [Problem(row.origin, field, one[1], fatal=False, kind=one[0]) for field, one in found if one]


def _fatal(row: Row) -> tuple[str, str] | None:
    if not row.question.strip():
        return "question", "empty"
    for number, context in enumerate(row.positives):
        if not _said(context):
            return f"positives.{number}", "an empty context"
    if not any(map(_said, (*row.positives, *row.negatives, *row.hard_negatives))):
        return "positives", "no context at all"
    return None


def _said(context: Context) -> bool:
    return bool(context.text.strip())


def _answering_first(row: Row) -> tuple[tuple[Context, ...], _Finding]:
    answers = [answer.text.strip() for answer in row.answers if answer.text.strip()]
    for number, context in enumerate(row.positives):
        if any(answer in context.text for answer in answers):
            if number == 0:
                return row.positives, None
            others = row.positives[:number] + row.positives[number + 1 :]
            return (context, *others), ("repaired", f"the answer stands in number {number}, which comes first now")
    return row.positives, None


def _placed(answer: Answer, text: str) -> tuple[Answer, _Finding]:
    """Return the answer without white space around it, at a place that is proven, and what was wrong."""
    stripped = answer.text.strip()
    # A negative place is how some files say that there is none.
    start = answer.start if answer.start is not None and answer.start >= 0 else None
    lead = len(answer.text) - len(answer.text.lstrip())
    if start is not None and text.startswith(stripped, start + lead):
        same = stripped == answer.text
        return Answer(stripped, start + lead), None if same else ("trimmed", f"white space around {_quoted(stripped)}")
    if start is not None and text.startswith(stripped, start):
        why = (
            f"{_quoted(stripped)} stands at {start}, not at {start + lead}: its place does not count the white space before it"
        )
        return Answer(stripped, start), ("repaired", why)
    places = _places(stripped, text)
    if not places:
        return Answer(stripped), ("not found", f"{_quoted(stripped)} is not in the first positive context")
    if len(places) == 1:
        return Answer(stripped, places[0]), None if start is None else _moved(stripped, start, places[0])
    if start is not None:
        nearest, second, *_ = sorted(places, key=lambda place: abs(place - start))
        if abs(nearest - start) <= _NEAR and abs(second - start) >= _BY_FAR * max(1, abs(nearest - start)):
            return Answer(stripped, nearest), _moved(stripped, start, nearest)
    stated = "" if start is None else f", none of them {start}"
    return Answer(stripped), ("ambiguous", f"{_quoted(stripped)} stands in {len(places)} places{stated}")


def _moved(answer: str, old: int, new: int) -> _Finding:
    return "repaired", f"{_quoted(answer)} stands at {new}, not at {old}"


def _places(answer: str, text: str) -> list[int]:
    """Return where `answer` begins in `text`, overlapping places too.

    >>> _places("aa", "aaab aa")
    [0, 1, 5]
    """
    places = []
    at = text.find(answer)
    while at >= 0:
        places.append(at)
        at = text.find(answer, at + 1)
    return places


def _quoted(text: str) -> str:
    return f"“{text if len(text) <= 40 else text[:39] + '…'}”"
