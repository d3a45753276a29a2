"""What the gate asks: questions with passages, texts that tokenizers stumble over, held-out rows, and files of others.

Our own passages are made up for this and stand in no training data of ours. Knows no model.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.raft.row import RaftRow, hits_of, target
from reader.quotes import ANSWER, CLOSE, OPEN
from retriever.errors import BelegError
from retriever.schema import Hit
from retriever.sentences import sentences

__all__ = ["AWKWARD", "CASES", "Case", "answer_for", "cases_of", "crossed", "filled", "mixed", "read_cases"]


@dataclass(frozen=True, slots=True)
class Case:
    """A question and the passages to answer it from.

    Attributes:
        answer: what a model was trained to write then; "" if nobody knows.
    """

    question: str
    hits: tuple[Hit, ...]
    answer: str = ""


def _hit(text: str, *, title: str = "", headings: Sequence[str] = (), language: str = "en") -> Hit:
    return Hit("parity", "parity", title, language, tuple(headings), None, 0, len(text), text, 1.0, None, None, 1)


_OWN = (
    (
        "en",
        "Boat house > Keys",
        "Who keeps the spare key?",
        "The spare key of the boat house is kept by Mrs Amadi. Return it before dusk.",
    ),
    (
        "de",
        "Bootshaus > Schlüssel",
        "Wo hängt der Zweitschlüssel?",
        "Der Zweitschlüssel hängt im Büro der Werkstatt. Er ist täglich bis 17:30 Uhr zurückzugeben.",
    ),
    (
        "en",
        "Kiln > Firing",
        "How hot does the kiln get?",
        "The kiln reaches 1,240 °C after nine hours. Never open it above 80 °C.",
    ),
    (
        "de",
        "Brennofen > Störung",
        "Was bedeutet der Fehler F-09?",
        "Fehler F-09 heißt: Die Tür schließt nicht. Prüfen Sie zuerst die Dichtung, dann den Schalter S3.",
    ),
    (
        "en",
        "Orchard > Harvest",
        "When are the quinces picked?",
        "Quinces are picked in the second week of October. Pears come first, from 28 August.",
    ),
    (
        "de",
        "Obstgarten > Pflanzenschutz",
        "Welcher Abstand gilt zum Bach?",
        "Zum Bach ist ein Abstand von 12,5 m einzuhalten (§ 4a Abs. 2). Bei Wind über 5 m/s wird nicht gespritzt.",
    ),
    (
        "en",
        "Archive > Loans",
        "How long may a map be borrowed?",
        'Maps may be borrowed for three days, "oversize" sheets not at all. Fines are £2.50 per day.',
    ),
    (
        "de",
        "Archiv > Gebühren",
        "Was kostet eine Reproduktion?",
        "Eine Reproduktion kostet 4,80 €; ab 10 Stück ermäßigt sich der Preis um 15 %. Größen über A2 auf Anfrage.",
    ),
    (
        "en",
        "Ferry > Timetable",
        "When does the last ferry leave?",
        "Line | First | Last\nNorth | 05:40 | 22:15\nIsland | 07:10 | 19:05",
    ),
    (
        "de",
        "Fähre > Tarife",
        "Dürfen Hunde mit?",
        "Hunde fahren zum halben Preis mit, angeleint und mit Maulkorb. Blindenführhunde reisen frei.",
    ),
    (
        "en",
        "Lab > Samples",
        "At which temperature are samples stored?",
        "Samples are stored at −20 °C in freezer B7. Label each one with the date, the initials and the batch.",
    ),
    (
        "de",
        "Labor > Notfall",
        "Wen ruft man bei einem Austritt von Säure?",
        "Bei Austritt von Säure ist Dr. Yılmaz unter -4711 zu rufen. Verlassen Sie den Raum über den Flur Süd.",
    ),
)

CASES = tuple(
    Case(question, (_hit(text, title=place.split(" > ")[0], headings=place.split(" > ")[1:], language=language),))
    for language, place, question, text in _OWN
)
"""Questions with the passage that answers each."""

AWKWARD = (
    "",
    " ",
    "  zwei  Leerzeichen   davor",
    "ends with a space ",
    "\n\n\nthree newlines\n",
    "tab\tand\r\nCRLF",
    "Größe, Übermaß, ß, ẞ, ÄÖÜ: Straße",
    "e\u0301 against é, ﬁ against fi",
    "👍🏽 👨‍👩‍👧‍👦 🇩🇪",
    "数据 и данные, ελληνικά, עברית",
    "1.234,56 € 12345678 §12a DSH-2 3/4",
    "it's, WE'LL, don’t, „Anführung“, «guillemets»",
    f"Passage 1: {OPEN}Guests pay 9.40 euros.{CLOSE}\n{ANSWER} 9.40 euros",
    f"{OPEN}{CLOSE}{ANSWER}",
    "<ANSWER>:x <ANSWER> : ##begin_quote ##",
    "\u00a0no-break\u2009thin\u200bzero\u00adsoft",
    "a" * 300,
    " " * 37 + "x",
    "\x07\x1f\x7f",
    "snake_case CamelCase kebab-case https://example.org/?q=ä&x=1#y",
    "def f(x):\n    return x**2  # ²\n",
    "▁ underscores ▁▁ of SentencePiece",
    "İstanbul’da ığüşöç",
    "[INST] no template here [/INST]",
)
"""Texts that tokenizers tend to disagree about."""


def mixed(cases: Sequence[Case], count: int, seed: int = 0) -> list[Case]:
    """Return so many cases, each with one to four passages in random order, its own among them or not."""
    chance = random.Random(seed)
    pool = [hit for case in cases for hit in case.hits]
    made = []
    for index in range(count):
        case = cases[index % len(cases)]
        made.append(Case(case.question, tuple(chance.sample(pool, k=min(len(pool), chance.randint(1, 4))))))
    return made


def filled(case: Case, cases: Sequence[Case], passages: int) -> Case:
    """Return a case with so many passages: the pool over and over, and its own last, nearest to the question."""
    pool = [hit for other in cases if other is not case for hit in other.hits] or list(case.hits)
    return Case(case.question, (*(pool[index % len(pool)] for index in range(max(passages - 1, 0))), case.hits[0]))


def cases_of(rows: Sequence[RaftRow], *, count: int = 12, quotes: bool = True) -> tuple[Case, ...]:
    """Return some held-out rows, drawn at random, with the answers to learn; those that can be answered come first.

    Args:
        quotes: answers were learnt with their quotes; else bare.
    """
    shuffled = random.Random(0).sample(list(rows), len(rows))
    chosen = sorted(shuffled, key=lambda row: row.abstains)[:count]
    learnt = [row if quotes else replace(row, quotes=(), reasoning="") for row in chosen]
    return tuple(Case(row.question, tuple(hits_of(row)), target(row)) for row in learnt)


def crossed(cases: Sequence[Case]) -> list[Case]:
    """Return each question with the passages of another one."""
    return [Case(case.question, cases[(index + 1) % len(cases)].hits) for index, case in enumerate(cases)]


def answer_for(case: Case) -> str:
    """Return an answer of the asked form, from the last passage's first sentence, to compare models on."""
    if case.answer:
        return case.answer
    hit = case.hits[-1]
    start, end = next(iter(sentences(hit.text, hit.language)), (0, len(hit.text)))
    quoted = hit.text[start:end]
    return f"Passage {len(case.hits)}: {OPEN}{quoted}{CLOSE}\n{ANSWER} {' '.join(quoted.split()[-4:])}"


def read_cases(path: Path) -> tuple[Case, ...]:
    """Read held-out questions, a JSON object a line: `question`, and `passages` as texts or objects with `text` and `title`.

    Raises:
        BelegError: the file cannot be read, is empty, or a line is malformed; the message names file, line and field.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BelegError(
            f"{path} cannot be read: {reason}.", way_out="Name a JSONL file of questions with passages."
        ) from error
    cases = tuple(_case(line, path, number) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
    if not cases:
        raise BelegError(f"{path} holds no questions.", way_out="Write a JSON object a line: question and passages.")
    return cases


def _case(line: str, path: Path, number: int) -> Case:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise _wrong(path, number, "", f"is no JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise _wrong(path, number, "", "is no JSON object")
    question, passages = data.get("question"), data.get("passages")
    if not isinstance(question, str) or not question.strip():
        raise _wrong(path, number, "question", "must be a text that is not empty")
    if not isinstance(passages, list) or not passages:
        raise _wrong(path, number, "passages", "must be a list that is not empty")
    return Case(question, tuple(_passage(item, path, number, at) for at, item in enumerate(passages)))


def _passage(item: Any, path: Path, number: int, at: int) -> Hit:
    field = f"passages[{at}]"
    data = {"text": item} if isinstance(item, str) else item
    if not isinstance(data, Mapping):
        raise _wrong(path, number, field, "must be a text, or an object with `text`")
    text, title, headings = data.get("text"), data.get("title") or "", data.get("headings") or []
    if not isinstance(text, str) or not text.strip():
        raise _wrong(path, number, f"{field}.text", "must be a text that is not empty")
    if not isinstance(title, str):
        raise _wrong(path, number, f"{field}.title", "must be a text")
    if not isinstance(headings, list) or not all(isinstance(heading, str) for heading in headings):
        raise _wrong(path, number, f"{field}.headings", "must be a list of texts")
    language = data.get("language")
    return _hit(text, title=title, headings=headings, language=language if isinstance(language, str) else "en")


def _wrong(path: Path, number: int, field: str, what: str) -> BelegError:
    where = f"{path}, line {number}{f', field {field}' if field else ''}"
    return BelegError(f"{where}: {what}.", way_out='Write it as {"question": "…", "passages": ["…"]}.')
