"""The prompt: rendered here and nowhere else, for serving, evaluation and training alike.

What all questions share comes first, so that engines evaluate it once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import Template
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from reader.engine.base import Engine, Message, Prompt
from reader.errors import EngineError, PromptTooLong
from reader.quotes import ABSTAIN, ANSWER, CLOSE, OPEN
from reader.schema import Turn
from retriever.schema import Hit

__all__ = ["Rendered", "fingerprint", "render"]

_SYSTEM = f"""\
You answer questions from numbered passages of a company's documents. First quote the sentence of a passage that proves \
the answer, word for word, between {OPEN} and {CLOSE}. Then write {ANSWER} and the answer, as short as possible, in the \
language of the question. If no passage tells, write {ANSWER} {ABSTAIN}"""

_SHOTS = (
    (
        (("Canteen > Prices", "A main dish costs 6.80 euros for staff. Guests pay 9.40 euros."),),
        "What does a guest pay for a main dish?",
        f"Passage 1: {OPEN}Guests pay 9.40 euros.{CLOSE}\n{ANSWER} 9.40 euros",
    ),
    (
        (
            ("Fuhrpark > Buchung", "Poolfahrzeuge bucht die Leitstelle. Ansprechpartnerin ist Frau Ihde."),
            ("Fuhrpark > Rückgabe", "Das Fahrzeug ist vollgetankt bis 18 Uhr zurückzugeben."),
        ),
        "Bis wann muss ich ein Poolfahrzeug zurückbringen?",
        f"Passage 2: {OPEN}Das Fahrzeug ist vollgetankt bis 18 Uhr zurückzugeben.{CLOSE}\n{ANSWER} bis 18 Uhr",
    ),
    (
        (("Library > Loans", "Books are lent by Mr Osei for 28 days, journals for one week."),),
        "Who lends books?",
        f"Passage 1: {OPEN}Books are lent by Mr Osei for 28 days, journals for one week.{CLOSE}\n{ANSWER} Mr Osei",
    ),
    (
        (("Fuhrpark > Kosten", "Fahrzeug | Tagessatz | Kaution\nKombi | 42 Euro | 300 Euro\nBus | 67 Euro | 500 Euro"),),
        "Wie hoch ist die Kaution für den Bus?",
        f"Passage 1: {OPEN}Bus | 67 Euro | 500 Euro{CLOSE}\n{ANSWER} 500 Euro",
    ),
    (
        (("Brandschutz", "Bei Alarm ist das Gebäude sofort zu verlassen. Sammelplatz ist der Parkplatz Nord."),),
        "Wo treffen sich alle, wenn es brennt?",
        f"Passage 1: {OPEN}Sammelplatz ist der Parkplatz Nord.{CLOSE}\n{ANSWER} Parkplatz Nord",
    ),
)
_MARKS = re.compile(
    r"<\|[^|>\s]{1,40}\|>|<｜[^｜>]{1,40}｜>|</?[a-z]{2,}(?:_[a-z]+)*>|</?s>|\[/?[A-Z_]{3,24}\]|<</?SYS>>"
    r"|##(?:begin|end)_quote##|<ANSWER>"
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt and what is in it.

    Attributes:
        hits: the passages shown, in the order of their numbers from 1.
        dropped: passages that did not fit, from the end of the list.
    """

    prompt: Prompt
    hits: tuple[Hit, ...]
    dropped: int


def render(engine: Engine, question: str, hits: Sequence[Hit], *, history: Sequence[Turn] = (), answer_tokens: int) -> Rendered:
    """Render the prompt for an engine, with as many of the passages as its context has room for.

    Args:
        answer_tokens: room to leave for the answer.

    Raises:
        PromptTooLong: not even the first passage fits.
        EngineError: the model's chat template cannot be rendered.
    """
    for shown in range(len(hits), 0, -1):
        messages = _messages(question, hits[:shown], history)
        if engine.chat_template:
            tokens = tuple(engine.tokenize(_apply_template(engine, messages)))
            size = len(tokens)
        else:
            tokens = ()
            size = sum(engine.count(message.content) + 8 for message in messages)
        if size + answer_tokens <= engine.context_size:
            return Rendered(Prompt(tokens, messages), tuple(hits[:shown]), len(hits) - shown)
    raise PromptTooLong(
        f"The question and its first passage do not fit {engine.context_size} tokens with {answer_tokens} left for the answer.",
        way_out="Ask a shorter question, or raise context_tokens.",
    )


def fingerprint(engine: Engine) -> str:
    """Return a hash of everything that shapes a prompt: the wording above and the model's chat template."""
    messages = _messages("?", (), ())
    return hashlib.sha256(json.dumps([[m.role, m.content] for m in messages] + [engine.chat_template]).encode()).hexdigest()


def _messages(question: str, hits: Sequence[Hit], history: Sequence[Turn]) -> tuple[Message, ...]:
    messages = [Message("system", _SYSTEM)]
    for passages, asked, answered in _SHOTS:
        messages += [Message("user", _ask(asked, passages)), Message("assistant", answered)]
    for turn in history:
        messages += [Message("user", _ask(turn.question, ())), Message("assistant", f"{ANSWER} {_harmless(turn.answer)}")]
    shown = [(" > ".join(dict.fromkeys((hit.title, *hit.headings))), hit.text) for hit in hits]
    messages.append(Message("user", _ask(question, shown)))
    return tuple(messages)


def _ask(question: str, passages: Sequence[tuple[str, str]]) -> str:
    blocks = [f"Passage {number} ({place}):\n{text}" for number, (place, text) in enumerate(passages, start=1)]
    return _harmless("\n\n".join([*blocks, f"Question: {question}"]))


def _harmless(text: str) -> str:
    """Break up marks that end a turn or a quote: a document that has them must not speak for anybody."""
    return _MARKS.sub(lambda match: f"{match.group()[0]} {match.group()[1:]}", text)


def _apply_template(engine: Engine, messages: Sequence[Message]) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    names = {"add_generation_prompt": True, "bos_token": engine.bos, "eos_token": engine.eos}
    try:
        template = _template(engine.chat_template)
        try:
            return template.render(messages=turns, **names)
        except _RefusedByTemplate:
            joined = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
            return template.render(messages=[joined, *turns[2:]], **names)
    except (TemplateError, _RefusedByTemplate) as error:
        raise EngineError(f"The chat template of {engine.model} cannot be rendered: {error}") from error


class _RefusedByTemplate(Exception):
    """The template refuses the conversation as it is; Mistral's first ones know no system turn."""


@lru_cache(maxsize=8)
def _template(source: str) -> Template:
    def refuse(message: str) -> None:
        raise _RefusedByTemplate(message)

    # Set up as transformers does it: models' templates are written for that.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = refuse
    return environment.from_string(source)
