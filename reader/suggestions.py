"""Questions to begin with, taken from the documents themselves, without a model: what their headings ask or are about.

Each of them has been searched for, and what it was made of came first. Rather few than odd ones: headings that do not become a
question which a colleague might ask are left out.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice

from retriever.schema import Document, Heading, Hit
from retriever.stopwords import STOP_WORDS

__all__ = ["Suggestion", "suggest"]

_ASKED_A_ROUND = 3
"""Questions that stand in a document as such, where others have one that is made of a heading: they read better."""

_LONGEST = 120
_SHORTEST = 9
"""Characters of a heading that is no question: shorter ones mean too many things."""

_MOST_HEADINGS = 200
"""Headings of a document that are looked at."""

_MOST_TRIED = 10
"""Questions of a document that are searched for."""

_LONGEST_TEXT = 200_000
"""Characters of a document in which names are looked for."""

_LONGEST_BELOW = 1000
"""Characters below a heading that are looked at."""

_NUMBERING = re.compile(r"^(?:§+\s*\d+\w*|\d+(?:\.\d+)*\.?|[IVX]+\.|\w\))\s+")
_SENTENCE = re.compile(r"[A-ZÄÖÜ][^|\n]{38,}[.!]")
_GERMAN_TOPIC = re.compile(r"[A-ZÄÖÜ][a-zäöüß-]{3,}(?: und [A-ZÄÖÜ][a-zäöüß-]{3,})?")
_ENGLISH_TOPIC = re.compile(r"[A-Z][a-z-]{3,}(?: [A-Za-z-]+){0,3}")
# What has a capital letter in the midst of a sentence too is a name: of a place, a product, a person.
_ENGLISH_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z-]{3,}\b")
_EMPTY = """
    inhalt inhaltsverzeichnis anhang anlage anlagen einleitung vorwort zusammenfassung übersicht überblick allgemeines hinweise
    geltungsbereich begriff begriffe definitionen gegenstand inkrafttreten schlussbestimmungen kontakt ansprechpartner impressum
    bezeichnung feststellungen maßnahmen zweck ziel ziele
    empfänger zuständigkeiten verfügbarkeit ausblick fazit quellen literatur
    contents appendix annex introduction preface foreword summary overview conclusion conclusions references contact contacts
    definitions background notes outlook review scope general purpose miscellaneous
"""
_SAYS_NOTHING = frozenset(_EMPTY.split())


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A question, and the document that answers it."""

    question: str
    document: str
    title: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    suggestion: Suggestion
    heading: str
    asked: bool  # as it stands in the document


def suggest(documents: Sequence[Document], find: Callable[[str], Sequence[Hit]], limit: int) -> list[Suggestion]:
    """Return questions that the documents answer, spread over them; those that stand in a document as such come first.

    Args:
        documents: in the order in which they have their say.
        find: searches; its first hit must be below the heading that a question was made of.
        limit: at most so many.
    """
    asking = sorted(documents, key=lambda document: not any(_asked(heading.text) for heading in _headings(document)))
    sources = deque(islice(_candidates(document), _MOST_TRIED) for document in asking)
    found: list[_Candidate] = []
    while sources and len(found) < limit:
        source = sources.popleft()
        new = _next(source, find, {one.suggestion.question for one in found})
        found += new
        if new:
            sources.append(source)
    chosen = sorted(found[:limit], key=lambda one: not one.asked)
    return [one.suggestion for one in chosen]


def _next(source: Iterator[_Candidate], find: Callable[[str], Sequence[Hit]], known: Set[str]) -> list[_Candidate]:
    """Return what a document has its say with in one round: some questions of its own, or one that is made of a heading."""
    said: list[_Candidate] = []
    for one in source:
        if one.suggestion.question not in known and _answers(find, one):
            said.append(one)
            if not one.asked or len(said) == _ASKED_A_ROUND:
                break
    return said


def _headings(document: Document) -> Sequence[Heading]:
    return document.headings[:_MOST_HEADINGS]


def _candidates(document: Document) -> Iterator[_Candidate]:
    """Yield what a document's headings ask, then what is made of the others, first of those that say most."""
    asked, made = [], []
    names = set(_ENGLISH_NAME.findall(document.text[:_LONGEST_TEXT])) if document.language == "en" else set()
    for heading in _headings(document):
        text = _NUMBERING.sub("", " ".join(heading.text.split()))
        if question := _asked(text):
            asked.append(_Candidate(Suggestion(question, document.id, document.title), heading.text, asked=True))
        elif question := _made(text, heading, document, names):
            made.append(_Candidate(Suggestion(question, document.id, document.title), heading.text, asked=False))
    yield from asked
    yield from sorted(made, key=lambda one: -len(one.heading))


def _asked(heading: str) -> str | None:
    return heading if heading.endswith("?") and heading.count(" ") >= 2 and len(heading) <= _LONGEST else None


def _made(topic: str, heading: Heading, document: Document, names: Set[str]) -> str | None:
    """Return a question about what a heading names, if that is a thing and some sentences below it tell of it."""
    below = document.text[heading.end : heading.end + _LONGEST_BELOW].lstrip().partition("\n")[0]
    if (
        heading.level == 1
        or len(topic) < _SHORTEST
        or _SAYS_NOTHING.issuperset(re.split(" und | and ", topic.casefold()))
        or not _SENTENCE.match(below)
    ):
        return None
    if document.language == "de" and _GERMAN_TOPIC.fullmatch(topic):
        return f"Was gilt zum Thema {topic}?"
    if document.language == "en" and _ENGLISH_TOPIC.fullmatch(topic):
        first = topic.split()[0]
        if first.casefold() not in STOP_WORDS["en"] and first not in names:
            return f"What should I know about {topic[0].lower()}{topic[1:]}?"
    return None


def _answers(find: Callable[[str], Sequence[Hit]], one: _Candidate) -> bool:
    hits = find(one.suggestion.question)
    return (
        bool(hits)
        and hits[0].document == one.suggestion.document
        and (one.heading in hits[0].headings or one.heading in hits[0].text)
    )
