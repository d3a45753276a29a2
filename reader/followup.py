"""A follow-up such as “and in Harrowick?” as the question that it means, which is then searched for.

By rule, which knows German and English and costs next to nothing; or by asking the reader's own model, which takes a large one.
A question that stands by itself is left as it is, so that a change of topic does not drag the old one along.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from reader.engine.base import Engine, Message, Prompt, never
from reader.errors import PromptTooLong
from reader.prompt import apply_template, harmless
from reader.schema import Turn
from reader.support import abstains
from retriever.encode import Encoder
from retriever.settings import Followups
from retriever.stopwords import STOP_WORDS

__all__ = ["by_model", "by_rule", "standalone"]

_TURNS = 5
"""Earlier turns that are looked at."""

_LONGEST_SAID = 1000
"""Characters of each question and answer that are looked at; a longer question needs nothing of what was said before it."""

_LONGEST_TOPIC = 30
"""Words that are kept of earlier turns: more would outweigh the question itself."""

_LONGEST_ANSWER = 12
"""Words of an answer that a pronoun may stand for; a longer one is a text of its own."""

_SAME_KIND = 0.5
"""Cosine from which two words mean things of the same kind: gold and silver have .7, words at random .3 at most."""

_LONGEST_BEFORE_A_NOUN = 3
"""Words that an article and adjectives may be."""

_STOP_WORDS = STOP_WORDS["de"] | STOP_WORDS["en"]
_WORD = re.compile(r"\w+(?:[-/.'’]\w+)*")
_IDENTIFIER = re.compile(r"\b(?=[\w/.-]*\d)\w+(?:[-/.]\w+)*")
_LINK = re.compile(
    r"\W*(?:(?:und|oder|aber|and|or|but)\b[\s,]*)?(?:(?:auch|dann|also|then)\b[\s,]*)?"
    r"(?:(?:was ist|wie (?:ist|sieht|steht)(?: es| das)?) (?=(?:mit|bei|in|im|für|am|an|auf)\b)(?:mit\b)?"
    r"|(?:what|how)(?: is it| is that)? (?:about|with)\b)?\s*",
    re.IGNORECASE,
)
_ASKING = """
    wer wen wem wessen was wann wo wohin woher womit wofür wozu wie warum wieso weshalb welche welcher welches welchen welchem
    darf dürfen kann können muss müssen soll sollen gibt ist sind hat haben wird werden
    who whom whose what when where why how which may can could must should do does did is are was were has have will would
"""
_POINTING = """
    er ihn ihm ihnen deren dessen dafür davon damit dabei dazu daran darauf darin danach dagegen dort dorthin hierfür hiervon
    dies diese dieser dieses diesen diesem jene jener jenes derselbe dieselbe dasselbe denselben demselben
    its they them their he she him her his these those
"""
_POINTING_ALONE = "das it this that"
_POINTING_AT_THE_END = "das der die den dem es ihr there then this that it one ones"
_ASKS, _POINTS = frozenset(_ASKING.split()), frozenset(_POINTING.split())
_POINTS_ALONE, _POINTS_AT_THE_END = frozenset(_POINTING_ALONE.split()), frozenset(_POINTING_AT_THE_END.split())
_PREPOSITIONS = (
    frozenset({"in", "im", "bei", "beim", "an", "am", "auf", "on", "at"}),
    frozenset({"für", "for"}),
    frozenset({"mit", "with", "unter", "under"}),
    frozenset({"nach", "zu", "zum", "zur", "to"}),
    frozenset({"von", "vom", "aus", "of", "from"}),
)

_SYSTEM = (
    "Rewrite the last question of a conversation so that it can be understood without the conversation. Use its words and keep "
    "its language. Repeat a question that can be understood as it is."
)
_SHOTS = (
    ("Q: What does a main dish cost in the canteen?\nA: 6.80 euros\nLast: And for guests?",
     "What does a main dish cost in the canteen for guests?"),
    ("Q: Wer bucht Poolfahrzeuge?\nA: die Leitstelle\nLast: Wo finde ich die?", "Wo finde ich die Leitstelle?"),
    ("Q: Who lends books?\nA: Mr Osei\nLast: Wo treffen sich alle, wenn es brennt?", "Wo treffen sich alle, wenn es brennt?"),
)  # fmt: skip
_WRITTEN_TOKENS = 40


def standalone(
    question: str,
    history: Sequence[Turn],
    how: Followups,
    *,
    encoder: Encoder,
    engine: Engine,
    cancelled: Callable[[], bool] = never,
) -> str:
    """Return what a question means after the earlier ones, as a question that stands by itself.

    Args:
        history: oldest first.
        how: `off` leaves every question as it is.
        encoder: see `by_rule`.
        engine: the model that is asked, if it is to be.
        cancelled: see `Engine.generate`.

    Raises:
        EngineError: the model failed.
    """
    if how == "off" or not history or len(question) > _LONGEST_SAID:
        return question
    near = [Turn(turn.question[:_LONGEST_SAID], turn.answer[:_LONGEST_SAID]) for turn in history[-_TURNS:]]
    written = by_model(question, near, engine, cancelled) if how == "model" else None
    return written or by_rule(question, near, encoder)


def by_model(question: str, history: Sequence[Turn], engine: Engine, cancelled: Callable[[], bool] = never) -> str | None:
    """Return a question as a model writes it so that it stands by itself; None if it cannot be used.

    It may say nothing but words of the conversation, and must keep one of the question's words and all of its numbers. A
    conversation that is too long for the model is not shown to it.
    """
    said = [line for turn in history for line in (f"Q: {turn.question}", "" if abstains(turn.answer) else f"A: {turn.answer}")]
    asked = harmless("\n".join([*filter(None, said), f"Last: {question}"]))
    messages = [Message("system", _SYSTEM)]
    for before, written in (*_SHOTS, (asked, "")):
        messages += [Message("user", before), Message("assistant", written)]
    messages.pop()
    tokens = tuple(engine.tokenize(apply_template(engine, messages))) if engine.chat_template else ()
    prompt = Prompt(tokens, tuple(messages))
    try:
        text = "".join(engine.generate(prompt, grammar=None, max_tokens=_WRITTEN_TOKENS, cancelled=cancelled)).strip()
    except PromptTooLong:
        return None
    own, used, known = ({word.casefold() for word in _content(words)} for words in (question, text, asked))
    numbers = set(_IDENTIFIER.findall(question))
    sound = used <= known and numbers.issubset(_IDENTIFIER.findall(text)) and (own & used or not own)
    return text if sound and text.endswith("?") and "\n" not in text else None


def by_rule(question: str, history: Sequence[Turn], encoder: Encoder) -> str:
    """Return a question that follows up on earlier ones as one that stands by itself; others as they are.

    Args:
        history: oldest first.
        encoder: tells which word of an earlier question a new one takes the place of: dinner that of lunch, not of London.
    """
    topic = answer = ""
    for turn in history:
        topic, answer = _resolved(turn.question, topic, answer, encoder)[:_LONGEST_SAID], turn.answer
    return _resolved(question, topic, answer, encoder)


def _resolved(question: str, topic: str, answer: str, encoder: Encoder) -> str:
    """Return what a question means after another one, which stands by itself, and its answer."""
    if not topic:
        return question
    link = _LINK.match(question)
    rest = question[link.end() if link else 0 :]
    words, own = _WORD.findall(rest), _content(rest)
    linked = len(words) < len(_WORD.findall(question))
    if not any(word.casefold() in _ASKS for word in words[:3]):
        # “Wie sieht es in Harrowick aus?”
        new = rest.rstrip(" ?!.").removesuffix(" aus")
        return _contrasted(topic, new, encoder) if linked or _is_fragment(question, words) else question
    points = _points(words)
    if (points and len(own) <= 3) or (linked and len(own) <= 2) or not own or len(words) <= 2:
        return _about(question, topic, answer if points else "")
    return question


def _is_fragment(question: str, words: Sequence[str]) -> bool:
    """Say whether a question without a verb is only a part of one, even if nothing links it with what was said before.

    >>> [_is_fragment(text, text.split()) for text in ("Harrowick?", "for trainees?", "Nearest car park?", "Danke!")]
    [True, True, False, False]
    """
    begins = bool(words) and any(words[0].casefold() in group for group in _PREPOSITIONS)
    names = any(_IDENTIFIER.fullmatch(word) for word in words)
    return question.rstrip().endswith("?") and (len(words) == 1 or (len(words) <= 3 and (begins or names)))


def _points(words: Sequence[str]) -> bool:
    """Say whether one of the words stands for something that was said before.

    >>> [_points(text.split()) for text in ("Was kostet das", "Was kostet das Fett", "Is it safe", "Is it safe to go")]
    [True, False, True, False]
    """
    for at, word in enumerate(words):
        # “Sie” is how people are addressed.
        if word.casefold() in _POINTS or word == "sie":
            return True
        after = words[at + 1 :]
        has_noun = any(one[0].isupper() for one in after[:2]) and after[0].casefold() not in _STOP_WORDS
        if word.casefold() in _POINTS_ALONE and not has_noun and "to" not in after:
            return True
    return bool(words) and words[-1].casefold() in _POINTS_AT_THE_END


def _about(question: str, topic: str, answer: str) -> str:
    """Return a question with the words of what it is about."""
    said = [] if abstains(answer) else _content(answer)
    known = {word.casefold() for word in _content(question)}
    words = [*_content(topic), *(said if len(said) <= _LONGEST_ANSWER else ())]
    new = [word for word in dict.fromkeys(words) if word.casefold() not in known][-_LONGEST_TOPIC:]
    return f"{question} ({' '.join(new)})" if new else question


def _contrasted(topic: str, new: str, encoder: Encoder) -> str:
    """Return a topic with what is new in the place of what it is said instead of; behind it where that cannot be told."""
    named = {_shape(identifier): identifier for identifier in _IDENTIFIER.findall(new)}
    replaced = topic
    # From the end, so that the places before it stay what they are.
    for old in reversed(list(_IDENTIFIER.finditer(topic))):
        identifier = named.pop(_shape(old.group()), None)
        if identifier:
            replaced = f"{replaced[: old.start()]}{identifier}{replaced[old.end() :]}"
    if replaced != topic:
        return replaced
    word = _alike(topic, new, encoder)
    place = word or _phrase(topic, new)
    if place is None:
        return f"{topic} {new}".strip()
    return f"{topic[: place[0]]}{' '.join(_content(new)) if word else new}{topic[place[1] :]}"


def _alike(topic: str, new: str, encoder: Encoder) -> tuple[int, int] | None:
    """Return the place of the word that means something of the same kind; None if none clearly does."""
    own = _content(new)
    known = _STOP_WORDS.union(word.casefold() for word in own)
    words = [
        word
        for word in _WORD.finditer(topic)
        if word.group().casefold() not in known and not _IDENTIFIER.fullmatch(word.group())
    ][-_LONGEST_TOPIC:]
    if not own or not words:
        return None
    cosines = encoder.encode_passages([word.group() for word in words]) @ encoder.encode_query(" ".join(own))
    best = int(cosines.argmax())
    return words[best].span() if cosines[best] >= _SAME_KIND else None


def _phrase(topic: str, new: str) -> tuple[int, int] | None:
    """Return the place of the topic's last phrase with a preposition like that of the new one, or of its only name."""
    from retriever.load.language import detect

    found = list(_WORD.finditer(topic))
    words = [word.group() for word in found]
    first = next(iter(_WORD.findall(new)), "")
    alike = next((group for group in _PREPOSITIONS if first.casefold() in group), frozenset())
    german = detect(topic) == "de"
    for at in range(len(words) - 2, -1, -1):
        end = _end_of_phrase(words, at + 1, german=german) if words[at].casefold() in alike else 0
        if end:
            return found[at].start(), found[end - 1].end()
    # In German every noun has a capital letter.
    names = [word.span() for word in found[1:] if word.group()[0].isupper() and not _IDENTIFIER.fullmatch(word.group())]
    return names[0] if len(names) == 1 and not german and first[:1].isupper() else None


def _end_of_phrase(words: Sequence[str], at: int, *, german: bool) -> int:
    """Return after which word a noun ends, with what stands before it; 0 if there is none.

    What follows an English noun without a function word belongs to it; what follows a German one is often a verb.

    >>> _end_of_phrase("in der neuen Halle wohnen".split(), 1, german=True)
    4
    >>> _end_of_phrase("at the back door".split(), 1, german=False)
    4
    """
    begin = at
    while at < len(words) and (not words[at][0].isupper() if german else words[at].casefold() in _STOP_WORDS):
        at += 1
    if at == len(words) or at - begin > _LONGEST_BEFORE_A_NOUN:
        return 0
    while at < len(words) and (words[at][0].isupper() if german else words[at].casefold() not in _STOP_WORDS):
        at += 1
    return at


def _shape(identifier: str) -> str:
    """Return what identifiers of one kind share.

    >>> _shape("DSH-2") == _shape("DSH-31"), _shape("12a") == _shape("12b"), _shape("12a") == _shape("SRV-0104")
    (True, True, False)
    """
    return re.sub(r"\d+[a-z]?\b", "0", identifier.casefold())


def _content(text: str) -> list[str]:
    return [word for word in _WORD.findall(text) if word.casefold() not in _STOP_WORDS]
