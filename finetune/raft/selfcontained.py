"""Tells questions that only make sense beside the text they were written from. A short list of rules, German and English."""

from __future__ import annotations

import re

__all__ = ["leans_on"]

_NOUN_EN = r"(?:study|paper|article|trial|analysis|review|survey|report|research|experiment|investigation|manuscript)"
_TEXT_EN = r"(?:passage|paragraph|excerpt|text|context|snippet|quote|sentence)"
_TEXT_DE = r"(?:Text(?:es|s)?|Absatz(?:es)?|Absätze|Abschnitts?|Passagen?|Textstelle|Auszugs?|Kontext(?:es|s)?|Satz(?:es)?)"
_NOUN_DE = r"(?:Studie|Untersuchung|Arbeit|Umfrage|Analyse|Erhebung|Artikels?|Berichts?|Aufsatz(?:es)?|Publikation)"
_OF_DE = r"(?:[Dd]e[rmsn]|[Dd]as|[Dd]ie|[Dd]iese[rsnm]?|[Ii]m|[Ll]aut|[Oo]bige[rnms]?|[Vv]om)"
_EN = (
    rf"\b(?:this|these|the present|the current|our)\s+{_NOUN_EN}\b",
    rf"\b(?:the|this|that|given|following)\s+(?:above\s+|following\s+|given\s+)?{_TEXT_EN}\b",
    r"\baccording to (?:the|this) (?:article|document|authors?|information|table|figure)\b",
    r"\b(?:mentioned|described|stated|listed|shown|discussed) (?:above|below|here)\b|\bas (?:mentioned|stated)\b",
    r"\bthe (?:authors?|speaker|narrator)(?:'s|’s)?\b(?! of\b)",
)
_DE = (
    rf"\b[Dd]iese[rsnm]?\s+{_NOUN_DE}\b|\b(?:[Dd](?:ie|er|as|em|en)|[Ii]n)\s+vorliegende[rnms]?\s+\w+",
    rf"\b{_OF_DE}\s+(?:obigen?\s+|vorliegenden?\s+)?{_TEXT_DE}\b",
    r"\b[Ll]aut (?:de[rms] )?(?:Artikel|Dokument|Autor|Autoren|Autorin|Tabelle|Abbildung)\b",
    r"\b(?:oben|unten|hier|vorstehend|nachfolgend)\s+(?:genannt|erwähnt|beschrieben|aufgeführt)\w*\b|\bwie oben\b",
    r"\b[Dd](?:er|ie) (?:Autor(?:in|en)?|Verfasser(?:in)?)\b(?! (?:von|der|des)\b)",
)
_RULES = (*(re.compile(rule, re.IGNORECASE) for rule in _EN), *(re.compile(rule) for rule in _DE))
_WORD = re.compile(r"\w+(?:['’]\w+)?|[\d.,]+")
_ARTICLES = frozenset(("a", "an", "the", "every", "each", "no", "any", "some", "this", "that", "these", "those", "my", "your"))
_PEOPLE = frozenset(("someone", "somebody", "people", "guests", "employees", "visitors", "who"))
_OWNING = frozenset(("his", "her", "their"))
_PLURAL = re.compile(r"(?!does\b|this\b|was\b|has\b|is\b)\w{2,}[^s]s")
_PRONOUNS = {
    # Not “it”, “this” alone: “How long does it take …” says all by itself.
    "en": frozenset(("he", "she", "they", "him", "his", "her", "hers", "their", "theirs", "them")),
    # Not “sie”, “ihr”, “sein”: the first two are also polite forms or articles of what follows, the last is a verb.
    "de": frozenset(
        ("er", "ihm", "ihn", "dieser", "diesem", "diesen", "jener", "jenem", "jenen", "derselbe", "dieselbe", "dessen", "deren")
    ),
}
_POINTING = {
    "en": re.compile(
        r"^(?:when|where|why|who|what|how)\s+(?:is|was|did|does|were|are|do|has|had)\s+"
        r"(?:it|this|that|these|those)(?:\s+\w+(?:ed|en|t))?\s*\?*$",
        re.IGNORECASE,
    ),
    "de": re.compile(
        r"^(?:wann|wo|warum|wer|was|wie|womit|wodurch)\s+\w+\s+(?:es|das|dies|diese[rsnm]?|sie|er)(?:\s+\w+)?\s*\?*$",
        re.IGNORECASE,
    ),
}


def leans_on(question: str, language: str) -> str:
    """Return the words of a question that point to a text or person which it does not name, or nothing.

    Args:
        language: `de` applies German rules for pronouns, anything else English ones.

    >>> leans_on("What did this study find?", "en"), leans_on("Wann starb er?", "de"), leans_on("Who was Ada?", "en")
    ('this study', 'Wann starb er?', '')
    """
    text = " ".join(question.split())
    for rule in _RULES:
        match = rule.search(text)
        if match:
            return match.group()
    kind = "de" if language == "de" else "en"
    if _POINTING[kind].search(text):
        return text
    named = False
    words = list(_WORD.finditer(text))
    for place, match in enumerate(words):
        word = match.group()
        lower = word.casefold()
        if lower in _PRONOUNS[kind] and not named:
            # “Other than his inventions, what was Tesla famous for?”
            later = lower in _OWNING and any(other.group()[0].isupper() for other in words[place + 1 :])
            return "" if later else word
        # Whatever is named before a pronoun may be what it stands for.
        named = named or (place > 0 and (word[0].isupper() or word[0].isdigit())) or ":" in text[: match.end() + 1]
        named = named or (kind == "en" and (lower in _ARTICLES or lower in _PEOPLE or _PLURAL.fullmatch(lower) is not None))
    return ""
