"""Text to index terms: one analysis for every engine, so that all of them rank the same way.

A term is `language:stem` for a word and the plain normalised form for an identifier. The prefix keeps languages apart:
a question is analysed in every indexed language, and each reading meets documents of its own language only.
Engines get terms, joined by spaces, and never analyse again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import Stemmer

from retriever.stopwords import STOP_WORDS

__all__ = ["ANALYSER", "analyze", "analyze_query"]

ANALYSER = "2"
"""Version of this analysis. An index made by another one is refused and rebuilt."""

_STEMMERS = {
    "da": "danish", "de": "german", "en": "english", "es": "spanish", "fi": "finnish", "fr": "french", "hu": "hungarian",
    "it": "italian", "nl": "dutch", "no": "norwegian", "pt": "portuguese", "ro": "romanian", "sv": "swedish",
}  # fmt: skip

# `§ 12a`, `DSH-2`, `1.234,56`, `10.1000/xyz`, `v1.0`, `anna@example.org`, `E-Mail-Adresse`, `don't`, `Haus`
_TOKEN = re.compile(r"§+\s*\d+\w*|\w+(?:[-./_@,:+'’‐‑–]\w+)*")
_PART = re.compile(r"[^\W_]+")
_DASHES = str.maketrans("‐‑–’", "---'")
_DIGIT = re.compile(r"\d")


def analyze(text: str, language: str) -> list[str]:
    """Return the terms of `text`, in order, with repetitions.

    A token with a digit is an identifier: it is kept whole, and its parts are indexed beside it, so that both `DSH-2`
    and `DSH 2` find it. Words lose case, stop words and endings (Snowball).

    >>> analyze("Die Häuser der DSH-2 nach § 12a", "de")
    ['de:haus', 'dsh-2', 'dsh2', 'de:dsh', '2', '§12a', '12a']
    >>> analyze("Houses don't move", "en")
    ['en:hous', 'en:move']
    """
    stop_words = STOP_WORDS.get(language, frozenset())
    terms: list[str] = []
    for match in _TOKEN.finditer(unicodedata.normalize("NFKC", text).translate(_DASHES).casefold()):
        token = match.group()
        if token in stop_words:
            continue
        if token.startswith("§"):
            section = token.lstrip("§").strip()
            terms += [f"§{section}", section]
            continue
        parts = _PART.findall(token)
        if len(parts) > 1 and _DIGIT.search(token):
            terms.append(token)
            squeezed = "".join(parts)
            # Only where letters and digits mix: `1.234,56` squeezed would be another number.
            if not squeezed.isdecimal():
                terms.append(squeezed)
        for part in parts:
            if _DIGIT.search(part):
                terms.append(part)
            elif part not in stop_words and (len(part) > 1 or len(parts) == 1):
                terms.append(f"{language}:{_stem(part, language)}")
    return terms


def analyze_query(text: str, languages: Iterable[str]) -> list[str]:
    """Return the distinct terms of a query, read in each of the `languages` that are indexed.

    >>> analyze_query("Wer wartet DSH-2?", ["de", "en"])
    ['de:wart', 'dsh-2', 'dsh2', 'de:dsh', '2', 'en:wer', 'en:wartet', 'en:dsh']
    """
    return list(dict.fromkeys(term for language in languages for term in analyze(text, language)))


@lru_cache(maxsize=200_000)
def _stem(word: str, language: str) -> str:
    name = _STEMMERS.get(language)
    # Stemmer objects keep an inner buffer and must not be shared between threads; making one costs microseconds and
    # the cache above makes it rare.
    return Stemmer.Stemmer(name, 0).stemWord(word) if name else word
