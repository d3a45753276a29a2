"""Tell the language of a text, offline. Knows nothing of documents."""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ["detect"]

# The languages that keyword search has stemmers for, and two neighbours that would else be taken for one of them.
# Fewer candidates also make short texts surer.
_LANGUAGES = ("da", "de", "en", "es", "fi", "fr", "hu", "it", "nl", "no", "pt", "ro", "ru", "sv", "tr", "pl", "cs")
_MIN_LETTERS = 20
_MIN_PROBABILITY = 0.5
_SAMPLE = 2000


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(_LANGUAGES)
    return identifier


def detect(text: str) -> str:
    """Return the ISO 639-1 code of the language of `text`, `und` if there is too little of it or it is unsure.

    Looks at the beginning, the middle and the end, since a cover page may be in another language than the rest.
    """
    if len(text) > 3 * _SAMPLE:
        middle = (len(text) - _SAMPLE) // 2
        text = f"{text[:_SAMPLE]} {text[middle : middle + _SAMPLE]} {text[-_SAMPLE:]}"
    if sum(map(str.isalpha, text)) < _MIN_LETTERS:
        return "und"
    language, probability = _identifier().classify(text)
    return str(language) if probability >= _MIN_PROBABILITY else "und"
