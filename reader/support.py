"""When to withhold an answer: weak retrieval before the reader is asked, unsupported words after it has answered.

Raw values only, never fused scores: scaling gives the best hit a high score even for nonsense.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from reader.schema import Reason
from retriever.analyze import analyze, analyze_query
from retriever.schema import Hit

__all__ = ["abstains", "in_words", "missing_from_quotes", "says_something", "strength", "unknown_identifiers"]

_IDENTIFIER = re.compile(r"\b(?=\w*[-/.]?\w*\d)(?=[\w/.-]*[^\W\d_])\w+(?:[-/.]\w+)*\b|\b\d{4,}\b")
_YEAR = re.compile(r"(?:19|20)\d\d")
# A blank joins thousands only: “in 1974 20 % of …” holds two numbers.
_NUMBER = re.compile(r"(?<!\d)\d{1,3}(?: \d{3})+(?!\d)(?:,\d+)?|\d+(?:[.,:/]\d+)*")
# What stands before the number of an identifier: “E-309” and “WB20417” say nothing of 309 and 20417.
_OF_IDENTIFIER = re.compile(r"[^\W\d_][-/.]?$")
_NAME = re.compile(r"\b[A-ZÄÖÜ][\w-]+")
# Not after the dot of an ordinal or an abbreviation: in “am 3. Mai” and “Dr. Ihde” a name follows.
_SENTENCE_START = re.compile(r"(?:^|(?<!\d)(?<!\b\w)(?<!\b\w\w)(?<!\bMrs)(?<!\bProf)\.\s+|[!?:]\s+)\W*$")
_YES_OR_NO = {"ja", "nein", "yes", "no"}
_SPELLED = {
    "0": ("null", "zero", "no", "kein", "keine"), "1": ("ein", "eine", "einen", "einem", "einer", "one", "a"),
    "2": ("zwei", "two"), "3": ("drei", "three"), "4": ("vier", "four"), "5": ("fünf", "five"), "6": ("sechs", "six"),
    "7": ("sieben", "seven"), "8": ("acht", "eight"), "9": ("neun", "nine"), "10": ("zehn", "ten"),
    "11": ("elf", "eleven"), "12": ("zwölf", "twelve"),
}  # fmt: skip

_WORDS: dict[Reason, tuple[str, str]] = {
    "nothing_found": ("Dazu habe ich in den Dokumenten nichts gefunden.", "I found nothing about this in the documents."),
    "weak_retrieval": (
        "Die Dokumente sagen dazu nichts, soweit ich sehe.",
        "The documents do not say, as far as I can see.",
    ),
    "not_in_passages": (
        "Die gefundenen Stellen beantworten die Frage nicht.",
        "The passages found do not answer the question.",
    ),
    "unproven": (
        "Ich habe keine Antwort, die ich mit einem Zitat belegen kann.",
        "I have no answer that I can prove with a quote.",
    ),
    "unsupported": (
        "Ich habe keine Antwort, die von ihren Zitaten ganz gedeckt ist.",
        "I have no answer that its quotes fully support.",
    ),
    "changed": (
        "Die Dokumente haben sich geändert, während ich geantwortet habe. Bitte noch einmal fragen.",
        "The documents changed while I was answering. Please ask again.",
    ),
}


def strength(question: str, hits: Sequence[Hit]) -> float:
    """Return how well the passages fit the question, 0 to 1: the mean of two raw values, each of its best passage.

    They are the cosine of question and passage, and the share of the question's terms that the passage has with its title and
    headings. What threshold it must pass is calibrated on questions with and without an answer (`beleg calibrate`).
    """
    cosine = max((hit.dense or 0.0 for hit in hits), default=0.0)
    return (max(cosine, 0.0) + max((_coverage(question, hit) for hit in hits), default=0.0)) / 2


def unknown_identifiers(question: str, hits: Sequence[Hit]) -> list[str]:
    """Return the identifiers in the question, such as `DSH-2` or `12345`, that no passage has.

    A passage about another machine than the one asked for looks very similar, and proves nothing. Years are no identifiers.

    >>> unknown_identifiers("Wie schwer ist die DSH-1 im Jahr 2024?", [])
    ['DSH-1']
    """
    there = {term for hit in hits for term in analyze(_with_place(hit), hit.language)}
    unknown = []
    for match in _IDENTIFIER.finditer(question):
        text = match.group()
        forms = {term for term in analyze(text, "und") if any(map(str.isdigit, term))}
        # `2` alone is no form of `DSH-2`, but `m10` is one of `M10-Schrauben`.
        forms = {form for form in forms if not form.isdecimal()} or forms
        if not _YEAR.fullmatch(text) and not forms & there:
            unknown.append(text)
    return unknown


def missing_from_quotes(answer: str, question: str, quotes: Iterable[str]) -> list[str]:
    """Return the numbers, dates and names of an answer that neither its quotes nor the question have.

    Separators in numbers are ignored, small numbers may be spelled out, and names may be inflected. A word that begins a
    sentence is no name, unless it is the whole answer. The digits of an identifier are no number.

    >>> missing_from_quotes("Frau Ihde zahlt 9,40 Euro", "Wer zahlt?", ["Ansprechpartnerin ist Frau Ihde."])
    ['9,40', 'Euro']
    >>> missing_from_quotes("309", "Wie hoch?", ["E-309 | Lager zu warm"]), missing_from_quotes("E-309", "", ["E-309"])
    (['309'], [])
    """
    known = " ".join((question, *quotes))
    numbers = {(_digits(match.group()), own) for match in _NUMBER.finditer(known) for own in {False, _is_own(match)}}
    words = set(re.findall(r"\w+", known.casefold()))
    missing = [
        match.group()
        for match in _NUMBER.finditer(answer)
        if (_digits(match.group()), _is_own(match)) not in numbers and not words.intersection(_SPELLED.get(match.group(), ()))
    ]
    stems = {stem for language in ("de", "en") for stem in analyze(known, language)}
    for match in _NAME.finditer(answer):
        terms = [term for language in ("de", "en") for term in analyze(match.group(), language)]
        begins = _SENTENCE_START.search(answer[: match.start()])
        alone = match.group() == answer.strip(" .!") and answer.strip(" .!").casefold() not in _YES_OR_NO
        if terms and not stems.intersection(terms) and (alone or not begins):
            missing.append(match.group())
    return list(dict.fromkeys(missing))


def says_something(answer: str, question: str) -> bool:
    """Say whether an answer has a word that is neither a function word nor in the question.

    >>> [says_something(text, "How long must I wait?") for text in ("at", "wait", "eight minutes")]
    [False, False, True]
    """
    return all(set(analyze(answer, language)) - set(analyze(question, language)) for language in ("de", "en"))


def in_words(reason: Reason, question: str) -> str:
    """Say why there is no answer, in the question's language: German or English."""
    from retriever.load.language import detect

    german, english = _WORDS[reason]
    return german if detect(question) == "de" else english


def abstains(answer: str) -> bool:
    """Say whether an answer is one of those that say why there is none.

    >>> abstains("The passages found do not answer the question."), abstains("Nine euros.")
    (True, False)
    """
    return any(answer in said for said in _WORDS.values())


def _coverage(question: str, hit: Hit) -> float:
    asked = set(analyze_query(question, [hit.language]))
    return len(asked.intersection(analyze(_with_place(hit), hit.language))) / len(asked) if asked else 0.0


def _with_place(hit: Hit) -> str:
    return "\n".join((hit.title, *hit.headings, hit.text))


def _is_own(number: re.Match[str]) -> bool:
    """Say whether a number is one, and no part of an identifier."""
    return _OF_IDENTIFIER.search(number.string[max(0, number.start() - 2) : number.start()]) is None


def _digits(number: str) -> str:
    return re.sub(r"\D", "", number)
