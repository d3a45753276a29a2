"""Rows as other programs train on them, each form by the reader's own renderer: what is trained on is what is served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from finetune.raft.row import RaftRow, hits_of, target, write_lines
from reader.engine.base import Message, Tokenizer
from reader.prompt import Example, render, render_example

__all__ = ["FORMATS", "Form", "example_of", "export", "record"]

Form = Literal["llama2", "mistral", "chatml", "openai", "completion"]
FORMATS: tuple[Form, ...] = get_args(Form)

_LLAMA2 = (
    "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{% if message.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + message.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + message.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
"""As Meta's `generation.py` of Llama 2 writes a dialog."""

_MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system turn') }}"
    "{% elif message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}"
    "{% else %}{{ message.content + eos_token }}{% endif %}{% endfor %}"
)
"""As in Mistral-7B-Instruct-v0.2, which knows no system turn."""

_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class _Letters:
    """A tokenizer whose tokens are code points, so that the renderer gives text back."""

    context_size = 1 << 40
    bos = "<s>"
    eos = "</s>"

    def __init__(self, template: str) -> None:
        self.model = "an export"
        self.chat_template = template

    def tokenize(self, text: str) -> list[int]:
        """Return code points."""
        return list(map(ord, text))

    def count(self, text: str) -> int:
        """Return how many there are."""
        return len(text)


def example_of(engine: Tokenizer, row: RaftRow) -> Example:
    """Return a row as tokens for an engine's model; see `reader.prompt.render_example`."""
    return render_example(engine, row.question, hits_of(row), target(row))


def record(row: RaftRow, form: Form) -> dict[str, object]:
    """Return a row as a record of a form.

    * `llama2`, `mistral`, `chatml`: prompt and completion, which are one text together; marks that begin and end a sequence are
      in it, so tokenize it without adding any.
    * `openai`: messages, as hosted models are tuned with.
    * `completion`: prompt and completion without the marks of any model.
    """
    if form in ("openai", "completion"):
        messages = _messages(row)
        if form == "openai":
            turns = [{"role": one.role, "content": one.content} for one in (*messages, Message("assistant", target(row)))]
            return {"messages": turns}
        return {"prompt": "".join(f"{one.content}\n\n" for one in messages), "completion": target(row)}
    templates = {"llama2": _LLAMA2, "mistral": _MISTRAL, "chatml": _CHATML}
    example = example_of(_Letters(templates[form]), row)
    text = "".join(map(chr, example.tokens))
    return {"prompt": text[: example.prompt_tokens], "completion": text[example.prompt_tokens :]}


def export(rows: Sequence[RaftRow], form: Form, path: Path) -> int:
    """Write rows to a file, an object a line; return how many.

    Raises:
        BelegError: it cannot be written.
    """
    return write_lines(path, (record(row, form) for row in rows))


def _messages(row: RaftRow) -> Sequence[Message]:
    return render(_Letters(""), row.question, hits_of(row), answer_tokens=0).prompt.messages
