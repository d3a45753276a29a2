"""What is wrong with rows, a reason each. Changes nothing but their list of problems, and drops none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from finetune.data.duplicates import near_pairs
from finetune.negatives import stands
from finetune.raft.row import Passage, RaftRow, hits_of, target
from finetune.raft.selfcontained import leans_on
from reader.quotes import ANSWER, CLOSE, OPEN, parse, prove
from reader.support import missing_from_quotes
from retriever.analyze import analyze
from retriever.load.language import detect
from retriever.schema import Hit
from retriever.sentences import sentences

__all__ = ["KINDS", "check_rows", "in_form", "kind_of", "row_problems", "supported", "verdict_words"]

KINDS = {
    "quote missing": "it answers without a quote",
    "quote not proven": "what the model shall write does not give back the quote, word for word, in its passage",
    "quote not golden": "a quote is from another passage than the one that answers",
    "quote cut": "a quote begins or ends within a sentence, which the grammar of answers never allows",
    "not supported": "the answer says something that its quotes do not",
    "not self-contained": "the question points to a text or person that it does not name",
    "duplicate": "another row before it asks nearly the same",
    "language mismatch": "question and answer are in two languages",
    "golden missing": "it answers although no passage does",
    "golden unused": "it abstains although a passage answers",
    "holds the answer": "it abstains although the answer stands in a passage",
    "answers elsewhere": "a passage that is meant not to answer is the same text as the one that does",
    "too long": "question, answer, reasoning, quote or passage is longer than a reader should be taught with",
    "form": "answer or reasoning cannot be written under the grammar: line breaks, < or #",
    "empty": "question, answer or a passage is empty",
}
"""What can be wrong, with what it means."""

_LONGEST = {"question": 600, "answer": 400, "reasoning": 400, "quote": 1200, "passage": 8000}
"""In characters; answer and reasoning as the grammar of `reader.quotes` allows. Three chunks of 200 tokens have about 3,000."""

_LANGUAGE_LETTERS = 40
"""Below this the language of an answer is a guess."""

_FORM = {"answer": re.compile(r"[^\s<#][^\n<#]*"), "reasoning": re.compile(r"[^\s<#P][^<#\n]*")}
_MARKS = re.compile(rf"{re.escape(OPEN)}|{re.escape(CLOSE)}|{re.escape(ANSWER)}")
_WHOLE = frozenset({"yes", "no", "maybe", "ja", "nein", "vielleicht"})


def check_rows(rows: Sequence[RaftRow]) -> list[RaftRow]:
    """Return the rows, each with what is wrong with it in place of what was said before."""
    twins: dict[int, int] = {}
    for first, second in near_pairs([row.question for row in rows]):
        twins.setdefault(second, first)
    found = []
    for number, row in enumerate(rows):
        problems = row_problems(row)
        if number in twins:
            problems.append(f"duplicate: of {rows[twins[number]].id}")
        found.append(replace(row, problems=tuple(problems)))
    return found


def row_problems(row: RaftRow) -> list[str]:
    """Return what is wrong with a row by itself, as `kind` or `kind: detail`; the kinds are those of `KINDS`."""
    found: list[str] = []
    texts = {"question": row.question, **({} if row.abstains else {"answer": row.answer})}
    found += [f"empty: {name}" for name, text in texts.items() if not text.strip()]
    found += [f"empty: passage {number}" for number, one in enumerate(row.passages, start=1) if not one.text.strip()]
    measured = [*texts.items(), ("reasoning", row.reasoning), *(("quote", text) for text in row.quoted())]
    measured += [("passage", one.text) for one in row.passages]
    found += [f"too long: {name}, {len(text)} characters" for name, text in measured if len(text) > _LONGEST[name]]
    leans = leans_on(row.question, row.language)
    if leans:
        found.append(f"not self-contained: “{leans}”")
    found += _abstaining(row) if row.abstains else _answering(row)
    return found


def kind_of(problem: str) -> str:
    """Return the kind of a problem.

    >>> kind_of("duplicate: of 7")
    'duplicate'
    """
    return problem.partition(":")[0]


def in_form(answer: str, reasoning: str = "") -> bool:
    """Say whether the grammar of answers could let both through."""
    return bool(_FORM["answer"].fullmatch(answer)) and (not reasoning or bool(_FORM["reasoning"].fullmatch(reasoning)))


def verdict_words(answer: str) -> bool:
    """Say whether an answer is a verdict, such as yes or no, which need not stand in a quote.

    >>> verdict_words("Yes."), verdict_words("Yes, on Mondays")
    (True, False)
    """
    return answer.strip(" .!").casefold() in _WHOLE


def supported(answer: str, question: str, quotes: Sequence[str], language: str) -> str:
    """Return what an answer says that its quotes do not, or nothing.

    Numbers, dates and names count (`reader.support`); an answer that shares no word at all with its quotes is taken for
    unsupported as a whole, unless it is a verdict, or in another language than the quotes.

    Args:
        language: of the quotes.

    >>> supported("9 euros", "How much?", ["Guests pay 9 euros."], "en"), supported("8 euros", "?", ["It is 9."], "en")
    ('', '8')
    """
    # What stands there in whole words is supported, whatever it looks like.
    if verdict_words(answer) or any(stands(answer, quote) for quote in quotes):
        return ""
    missing = missing_from_quotes(answer, question, quotes)
    if missing:
        return ", ".join(missing)
    said = set(analyze(answer, language))
    known = set(analyze(" ".join((*quotes, question)), language))
    alike = language in (detect(answer), "und") or detect(answer) == "und"
    return answer if alike and said and not said & known else ""


def _abstaining(row: RaftRow) -> list[str]:
    found = []
    if row.golden is not None:
        found.append(f"golden unused: passage {row.golden}")
    answer = _plain(row.answer)
    if answer and not verdict_words(answer):
        held = [str(number) for number, one in enumerate(row.passages, start=1) if stands(answer, _plain(one.text))]
        if held:
            found.append(f"holds the answer: passage {', '.join(held)}")
    return found


def _answering(row: RaftRow) -> list[str]:
    found = []
    quotes = row.quoted()
    if row.golden is None:
        found.append("golden missing")
    else:
        golden = _plain(row.passages[row.golden - 1].text)
        others = [number for number, one in enumerate(row.passages, start=1) if number != row.golden]
        same = [str(number) for number in others if _plain(row.passages[number - 1].text) == golden]
        found += [f"answers elsewhere: passage {', '.join(same)}"] if same else []
        wrong = sorted({quote.passage for quote in row.quotes} - {row.golden})
        found += [f"quote not golden: passage {', '.join(map(str, wrong))}"] if wrong else []
    if not quotes:
        found.append("quote missing")
    elif not _gives_back(row):
        found.append(f"quote not proven: “{quotes[0][:60]}”")
    else:
        pairs = zip(row.quotes, quotes, strict=True)
        found += [f"quote cut: “{text[:60]}”" for quote, text in pairs if not _whole(row.passages[quote.passage - 1], text)]
    if not in_form(row.answer, row.reasoning):
        found.append(f"form: “{row.answer[:40]}”")
    golden_language = row.passages[row.quotes[0].passage - 1].language if row.quotes else row.language
    missing = supported(row.answer, row.question, quotes, golden_language) if quotes else ""
    if missing:
        found.append(f"not supported: {missing[:80]}")
    spoken = detect(row.answer) if sum(map(str.isalpha, row.answer)) >= _LANGUAGE_LETTERS else "und"
    if spoken not in {"und", row.language, detect(row.question)}:
        found.append(f"language mismatch: the answer is in {spoken}")
    return found


def _gives_back(row: RaftRow) -> bool:
    """Say whether the reader takes the quotes out of the target as it takes them out of an answer, and proves each."""
    # Marks in a passage are broken up in the prompt: what the model sees is not what it shall quote.
    if any(_MARKS.search(text) for text in (*row.quoted(), row.answer, row.reasoning)):
        return False
    parsed = parse(target(row))
    hits = hits_of(row)
    texts = {(hit.document, hit.start): hit for hit in hits}

    def read(hit: Hit, start: int, end: int) -> tuple[str, int | None] | None:
        known = texts[hit.document, hit.start]
        return known.text[start - known.start : end - known.start], None

    wanted = [(quote.passage, text.strip()) for quote, text in zip(row.quotes, row.quoted(), strict=True)]
    proven = {quote.text for quote in prove(parsed.quotes, hits, read)}
    return (
        list(parsed.quotes) == [(number, text) for number, text in wanted]
        and all(text in proven for _, text in wanted)
        and parsed.answer == row.answer.strip()
        and not parsed.abstained
    )


def _whole(one: Passage, text: str) -> bool:
    spans = list(sentences(one.text, one.language))
    at = one.text.find(text)
    starts, ends = {start for start, _ in spans}, {end for _, end in spans}
    while at >= 0:
        if at in starts and at + len(text) in ends:
            return True
        at = one.text.find(text, at + 1)
    return False


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
