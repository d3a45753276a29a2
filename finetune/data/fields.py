"""What the shapes share: fields taken from a record, and what is filled in where the record does not say. Reads no file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ValidationError

from finetune.data.schema import Answer, Context, Difficulty, Row
from retriever.errors import BelegError
from retriever.load.language import detect

__all__ = [
    "Contexts",
    "GivenContext",
    "Malformed",
    "Name",
    "Named",
    "Text",
    "Texts",
    "make_row",
    "parse",
    "short_hash",
    "unzipped",
]

_Model = TypeVar("_Model", bound=BaseModel)


class Malformed(BelegError):
    """A record does not have the fields of its shape."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a character (U+{ord(text[error.start]):04X}) stands at {error.start}") from error
    return text


def unzipped(value: Any) -> Any:
    """Return a dictionary of lists as a list of dictionaries, and anything else as it is.

    >>> unzipped({"title": ["A", "B"], "text": ["a", "b"]})
    [{'title': 'A', 'text': 'a'}, {'title': 'B', 'text': 'b'}]
    """
    if not isinstance(value, dict) or not value or not all(isinstance(column, list) for column in value.values()):
        return value
    if len({len(column) for column in value.values()}) > 1:
        raise ValueError(f"the lists {', '.join(value)} are not of one length")
    return [dict(zip(value, values, strict=True)) for values in zip(*value.values(), strict=True)]


def _named(value: Any) -> Any:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _listed(value: Any) -> Any:
    value = unzipped(value)
    return [] if value is None else [value] if isinstance(value, str | dict) else value


Text = Annotated[str, AfterValidator(_encodable)]
Name = Annotated[Text, BeforeValidator(_named)]
"""A text that may also be a number or null in the file."""
Texts = Annotated[list[Text], BeforeValidator(_listed)]
"""Texts; one alone may stand without its list."""


class GivenContext(BaseModel):
    """A context as files have it."""

    text: Text
    title: Name = ""

    def plain(self) -> Context:
        """Return it without what belongs to its file."""
        return Context(self.text, self.title)


Contexts = Annotated[
    list[Annotated[GivenContext, BeforeValidator(lambda value: {"text": value} if isinstance(value, str) else value)]],
    BeforeValidator(_listed),
]
"""Contexts: objects, texts, or one of them without its list; null is an empty list."""


class Named(BaseModel):
    """Fields that a record of any shape may have."""

    id: Name = ""
    document: Name = ""
    title: Name = ""
    language: Name = ""
    difficulty: Difficulty = ""


def parse(model: type[_Model], value: object) -> _Model:
    """Return `value` as a `model`.

    Raises:
        Malformed: with the first field that does not fit.
    """
    if not isinstance(value, dict):
        raise Malformed("", f"not a JSON object, but {_KINDS.get(type(value), type(value).__name__)}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_input=False)
        more = f" (and {len(others)} more)" if others else ""
        message = "missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
        raise Malformed(".".join(map(str, first["loc"])), message + more) from error


_KINDS: dict[type, str] = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def make_row(
    named: Named,
    question: str,
    *,
    answers: Sequence[Answer] = (),
    positives: Sequence[Context] = (),
    negatives: Sequence[Context] = (),
    hard_negatives: Sequence[Context] = (),
    origin: str,
) -> Row:
    """Return the row, with what `named` leaves open: see `Row` for the fields.

    The id is a hash of the question and the first context, the document the title or a hash of that context, the language
    that of the context or else of the question.
    """
    context = next(iter((*positives, *hard_negatives, *negatives)), Context(""))
    return Row(
        id=named.id or short_hash(question, context.text),
        question=question,
        answers=tuple(answers),
        positives=tuple(positives),
        negatives=tuple(negatives),
        hard_negatives=tuple(hard_negatives),
        document=named.document or named.title or context.title or short_hash(context.text),
        language=_code(named.language) or _language(context.text, question),
        origin=origin,
        difficulty=named.difficulty,
    )


def short_hash(*texts: str) -> str:
    """Return 16 hexadecimal digits that stand for `texts`, today and tomorrow.

    >>> short_hash("a", "b") == short_hash("a", "b") != short_hash("ab", "")
    True
    """
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


def _code(language: str) -> str:
    """Return the first part of a language tag, or nothing if it is none.

    >>> _code("de-AT"), _code("German")
    ('de', '')
    """
    code = re.split(r"[-_]", language.strip().lower())[0]
    return code if re.fullmatch(r"[a-z]{2,3}", code) else ""


def _language(context: str, question: str) -> str:
    found = _detected(context)
    return found if found != "und" else _detected(question)


@lru_cache(maxsize=256)
def _detected(text: str) -> str:
    # Cached: the questions of a paragraph follow each other.
    return detect(text)
