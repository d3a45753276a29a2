"""Verbatim by construction, and proven after the fact: the grammar of an answer, and the check of what came out of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from reader.schema import Quote
from retriever.schema import Hit
from retriever.sentences import sentences

__all__ = ["ABSTAIN", "ANSWER", "CLOSE", "OPEN", "Freedom", "Parsed", "Span", "grammar", "parse", "prove"]

OPEN = "##begin_quote##"
CLOSE = "##end_quote##"
ANSWER = "<ANSWER>:"
ABSTAIN = "NOT FOUND"
"""What the model writes as its answer when no passage tells. Never shown to people."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a passage: its number from 1, and offsets into the passage's text."""

    passage: int
    start: int
    end: int


_MOST_QUOTES = 3
_CONTROLS = re.compile(r"[\x7f-\x9f\u2028\u2029]")
_STEP = re.compile(rf"Passage (\d{{1,9}}): {OPEN}(.*?){CLOSE}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Freedom:
    """How much a model may decide by itself: little suits a small one, everything suits a tuned one.

    Attributes:
        may_abstain: it may say that the passages do not tell.
        reasoning: it may write sentences of its own before each quote.
        extractive: its answer is a run of words of the passage that it quotes. Else it is free.
        quoting: it quotes before it answers. Else it only answers, and what proves that is found by `reader.evidence`.
    """

    may_abstain: bool = True
    reasoning: bool = True
    extractive: bool = False
    quoting: bool = True


def grammar(hits: Sequence[Hit], freedom: Freedom, *, evidence: Sequence[Span] | None = None) -> str:
    """Return the Lark grammar, for llguidance, of an answer to a prompt that shows `hits`.

    Each passage has rules of its own over runs of its whole sentences, so that no quote is empty, ends within a sentence, or
    runs from one passage into the next. See https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md.

    Args:
        evidence: the only sentences that may be quoted. None allows all.
    """
    spans = [Span(n, 0, len(hit.text)) for n, hit in enumerate(hits, start=1)] if evidence is None else evidence
    thought = "THOUGHT? " if freedom.reasoning else ""
    rules = [f"start: answer{' | abstention' if freedom.may_abstain else ''}"]
    if freedom.may_abstain:
        rules.append(f"abstention: {_literal(f'{ANSWER} {ABSTAIN}')}")
    if freedom.reasoning:
        rules.append(r"THOUGHT: /[^\s<#P][^<#\n]{0,400}\n/")
    ways = range(len(spans))
    begun = _literal(ANSWER + " ")
    if freedom.extractive and freedom.quoting:
        rules.append("answer: " + " | ".join(f"{thought}step_{way} {begun} WORDS_{way}" for way in ways))
    elif freedom.extractive:
        rules.append(f"answer: {begun} ({' | '.join(f'WORDS_{way}' for way in ways)})")
    else:
        rules.append(f"answer: {f'({thought}step){{1,{_MOST_QUOTES}}} ' if freedom.quoting else ''}{begun} FREE")
        rules.append(r"FREE: /[^\s<#][^\n<#]{0,400}/")
    if freedom.quoting and not freedom.extractive:
        rules.append("step: " + " | ".join(f"step_{way}" for way in ways))
    for way, span in enumerate(spans):
        hit = hits[span.passage - 1]
        text = hit.text[span.start : span.end]
        if freedom.quoting:
            rules.append(f"step_{way}: {_literal(f'Passage {span.passage}: {OPEN}')} quote_{way} {_literal(CLOSE + chr(10))}")
            rules += _runs_of(f"quote_{way}", text, hit.language)
        if freedom.extractive:
            rules += _some_of(f"WORDS_{way}", r"\S(.|\n)*", "substring_words", text)
    return "\n".join(rules)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a model wrote, taken apart.

    Attributes:
        quotes: (passage number from 1, quoted text) in the order written.
        answer: what stands after the answer mark, or None if there is no such mark.
    """

    quotes: tuple[tuple[int, str], ...]
    answer: str | None

    @property
    def abstained(self) -> bool:
        """Whether the model says that the passages do not tell."""
        return self.answer is not None and self.answer.upper().startswith(ABSTAIN)


def parse(text: str) -> Parsed:
    """Take an answer apart, however much of the asked form it has.

    >>> parse("Passage 2: ##begin_quote##Guests pay 9.40 euros.##end_quote##\\n<ANSWER>: 9.40 euros")
    Parsed(quotes=((2, 'Guests pay 9.40 euros.'),), answer='9.40 euros')
    """
    before, mark, after = text.rpartition(ANSWER)
    quotes = tuple((int(number), quoted) for number, quoted in _STEP.findall(before if mark else text))
    return Parsed(quotes, after.strip() if mark else None)


def prove(
    quotes: Iterable[tuple[int, str]], hits: Sequence[Hit], read: Callable[[Hit, int, int], tuple[str, int | None] | None]
) -> list[Quote]:
    """Return the quotes that stand word for word in one of the passages, each placed in its document.

    Nothing is taken on trust, not even from a constrained engine: the text is looked for in the passage that it names, else in
    the others, and what it was found as is read again from the stored document. A quote that is nowhere, or is only white
    space, is left out.

    Args:
        quotes: as `parse` gives them.
        hits: the passages that the prompt showed.
        read: returns the stored document's text between two offsets, with the page that the first one lies on; None if the
            document is gone.
    """
    proven: list[Quote] = []
    for number, quoted in quotes:
        text = quoted.strip()
        named = hits[number - 1 : number] if number >= 1 else ()
        hit = next((one for one in (*named, *hits) if text and text in one.text), None)
        if hit is None:
            continue
        start = hit.start + hit.text.find(text)
        end = start + len(text)
        stored, page = read(hit, start, end) or ("", None)
        if stored != text:
            continue
        # Not the hit's page: a passage may run from one page onto the next.
        quote = Quote(hit.document, hit.source, hit.title, page, start, end, text)
        if quote not in proven:
            proven.append(quote)
    return proven


def _runs_of(name: str, text: str, language: str) -> list[str]:
    """Return the rules of a run of whole sentences: which one it begins with, and whether the next one goes with it.

    A rule for each sentence, and no regular expression over all of them: llguidance gives up on those in the midst of a long
    quote ("too many expressions").
    """
    spans = list(sentences(text, language))
    rules = [f"{name}: " + " | ".join(f"{name}_{at}" for at in range(len(spans)))]
    for at, (start, end) in enumerate(spans):
        rule = f"{name}_{at}: {_literal(text[start:end])}"
        if at + 1 < len(spans):
            gap = text[end : spans[at + 1][0]]
            rule += f" ({_literal(gap) + ' ' if gap else ''}{name}_{at + 1})?"
        rules.append(rule)
    return rules


def _some_of(name: str, shape: str, kind: str, of: str) -> list[str]:
    """Return the rules of a terminal that is a run of `of` and has this shape: a run alone may be empty or white space."""
    body = json.dumps({kind: of}, ensure_ascii=False)
    return [f"{name}: /{shape}/ & ANY_{name}", f"ANY_{name}: %regex {body}"]


def _literal(text: str) -> str:
    # The grammar's own lexer refuses a raw DEL and its like, which PDF files are full of.
    return _CONTROLS.sub(lambda found: f"\\u{ord(found.group()):04x}", json.dumps(text, ensure_ascii=False))
