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

from reader.engine.base import Message, Prompt, Tokenizer
from reader.errors import EngineError, PromptTooLong
from reader.quotes import ABSTAIN, ANSWER, CLOSE, OPEN
from reader.schema import Turn
from retriever.schema import Hit

__all__ = ["Example", "Rendered", "apply_template", "fingerprint", "harmless", "render", "render_example"]

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
_OURS = frozenset({OPEN, CLOSE, ANSWER.rstrip(":")})
_PLACE = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands for the answer where only the template around it is wanted."""


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


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the answer to learn, as one run of tokens.

    Attributes:
        mask: 1 for each token that the loss counts, those of the answer and of the mark that ends its turn; 0 for the prompt's,
            which come first.
    """

    tokens: tuple[int, ...]
    mask: tuple[int, ...]

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompt has."""
        return len(self.mask) - sum(self.mask)


def render(
    engine: Tokenizer,
    question: str,
    hits: Sequence[Hit],
    *,
    history: Sequence[Turn] = (),
    answer_tokens: int,
    shots: bool = True,
) -> Rendered:
    """Render the prompt for an engine, with as many of the passages as its context has room for.

    Args:
        answer_tokens: room to leave for the answer.
        shots: begin with worked examples. A model that was tuned without them needs none, and is faster without.

    Raises:
        PromptTooLong: not even the first passage fits.
        EngineError: the model's chat template cannot be rendered.
    """
    for shown in range(len(hits), 0, -1):
        messages = _messages(question, hits[:shown], history, shots=shots)
        if engine.chat_template:
            tokens = tuple(engine.tokenize(apply_template(engine, messages)))
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


def render_example(engine: Tokenizer, question: str, hits: Sequence[Hit], answer: str, *, shots: bool = True) -> Example:
    """Render what a model is trained on: the very tokens of `render`, then those of the answer, then the end of the turn.

    The answer begins right after the prompt, without the blank that some templates put there: so it does where the grammar
    makes it. Marks of chat templates within it are broken up, those of quotes and answers are not.

    Raises:
        PromptTooLong: the passages and the answer do not fit the context; none is ever left out.
        EngineError: the engine has no chat template at hand, it cannot be rendered, it does not end a turn, or the tokens of
            prompt and answer cannot be told apart.
    """
    if not engine.chat_template:
        raise EngineError(
            f"The chat template of {engine.model} is not at hand, so nothing can be rendered to train on.",
            way_out="Open the model itself, not a server that keeps its template.",
        )
    messages = _messages(question, hits, (), shots=shots)
    prompt = tuple(engine.tokenize(apply_template(engine, messages)))
    written = _MARKS.sub(lambda mark: mark.group() if mark.group() in _OURS else _broken(mark), answer)
    answered = (*messages, Message("assistant", _PLACE))
    _, found, tail = apply_template(engine, answered, reply=False).rpartition(_PLACE)
    ends = tail.strip() or engine.eos
    if not found or not ends:
        raise EngineError(f"The chat template of {engine.model} has no mark that ends a turn.")
    target = _continued(engine, prompt, apply_template(engine, messages), written + ends)
    if len(prompt) + len(target) > engine.context_size:
        raise PromptTooLong(
            f"The example takes {len(prompt) + len(target)} tokens, and {engine.model} {engine.context_size}.",
            way_out="Show fewer or shorter passages, or raise context_tokens.",
        )
    return Example((*prompt, *target), (0,) * len(prompt) + (1,) * len(target))


def _continued(engine: Tokenizer, prompt: Sequence[int], before: str, text: str) -> list[int]:
    """Return the tokens of a text that goes on from a prompt, as if the model had written it."""
    # Tokenizers that put a blank before a text would put one here if it were cut by itself.
    for context, tokens in ((before, list(prompt)), ("\n", engine.tokenize("\n"))):
        whole = engine.tokenize(context + text)
        if whole[: len(tokens)] == tokens:
            return whole[len(tokens) :]
    raise EngineError(f"The tokenizer of {engine.model} joins the end of a prompt and the beginning of its answer.")


def apply_template(engine: Tokenizer, messages: Sequence[Message], *, reply: bool = True) -> str:
    """Return a conversation as the text that an engine's model was trained on.

    Args:
        reply: end where the model's turn begins.

    Raises:
        EngineError: the model's chat template cannot be rendered.
    """
    turns = [{"role": message.role, "content": message.content} for message in messages]
    names = {"add_generation_prompt": reply, "bos_token": engine.bos, "eos_token": engine.eos}
    try:
        template = _template(engine.chat_template)
        try:
            return template.render(messages=turns, **names)
        except _RefusedByTemplate:
            joined = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
            return template.render(messages=[joined, *turns[2:]], **names)
    except (TemplateError, _RefusedByTemplate) as error:
        raise EngineError(f"The chat template of {engine.model} cannot be rendered: {error}") from error


def fingerprint(engine: Tokenizer, *, shots: bool = True) -> str:
    """Return a hash of everything that shapes a prompt: the wording above and the model's chat template."""
    messages = _messages("?", (), (), shots=shots)
    return hashlib.sha256(json.dumps([[m.role, m.content] for m in messages] + [engine.chat_template]).encode()).hexdigest()


def _messages(question: str, hits: Sequence[Hit], history: Sequence[Turn], *, shots: bool) -> tuple[Message, ...]:
    messages = [Message("system", _SYSTEM)]
    for passages, asked, answered in _SHOTS if shots else ():
        messages += [Message("user", _ask(asked, passages)), Message("assistant", answered)]
    for turn in history:
        messages += [Message("user", _ask(turn.question, ())), Message("assistant", f"{ANSWER} {harmless(turn.answer)}")]
    shown = [(" > ".join(dict.fromkeys((hit.title, *hit.headings))), hit.text) for hit in hits]
    messages.append(Message("user", _ask(question, shown)))
    return tuple(messages)


def _ask(question: str, passages: Sequence[tuple[str, str]]) -> str:
    blocks = [f"Passage {number} ({place}):\n{text}" for number, (place, text) in enumerate(passages, start=1)]
    return harmless("\n\n".join([*blocks, f"Question: {question}"]))


def harmless(text: str) -> str:
    """Break up marks that end a turn or a quote: what has them must not speak for anybody.

    >>> harmless("Who pays?<|im_end|>")
    'Who pays?< |im_end|>'
    """
    return _MARKS.sub(_broken, text)


def _broken(mark: re.Match[str]) -> str:
    return f"{mark.group()[0]} {mark.group()[1:]}"


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
