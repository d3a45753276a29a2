"""Questions with known answers and the spans that prove them: one JSON object a line, as in `examples/questions.jsonl`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retriever.errors import BelegError
from retriever.metrics import Label
from retriever.store import Store

__all__ = ["Proof", "Question", "place", "read_questions"]


@dataclass(frozen=True, slots=True)
class Proof:
    """Where the answer stands: the end of a document's source, and its words, with single spaces."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question; without answers and proof if the documents do not tell."""

    id: str
    split: str
    language: str
    question: str
    answers: tuple[str, ...]
    proof: Proof | None
    kind: str


def read_questions(path: Path, *, split: str | None = None) -> list[Question]:
    """Read a question file; `split` keeps one part of it.

    Raises:
        BelegError: the file cannot be read, or a line is malformed; the message names file, line and field.
    """
    found = []
    try:
        # Not `splitlines`: JSON may hold other line separators unescaped, such as U+2028.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BelegError(f"{path} cannot be read: {error}.") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found.append(_question(line, f"{path}, line {number}"))
    chosen = [question for question in found if split in (None, question.split)]
    if not chosen:
        raise BelegError(f"{path} holds no question{f' of the split {split!r}' if split else ''}.")
    return chosen


def place(questions: Sequence[Question], store: Store) -> dict[str, list[Label]]:
    """Return where each question's proof stands in the stored documents, by question id; white space does not matter.

    Raises:
        BelegError: a proof's document is not indexed, or does not have its words.
    """
    sources = {source: known.document for source, known in store.known().items()}
    labels = {}
    for question in questions:
        if question.proof:
            labels[question.id] = [_label(question.id, question.proof, sources, store)]
    return labels


def _label(name: str, proof: Proof, sources: dict[str, str], store: Store) -> Label:
    named = [document for source, document in sources.items() if f"/{source}".endswith(f"/{proof.source}")]
    document = store.document(named[0]) if len(named) == 1 else None
    if document is None:
        raise BelegError(f"Question {name}: {len(named)} indexed documents are called {proof.source}.")
    pattern = r"\s+".join(re.escape(word) for word in proof.text.split())
    match = re.search(pattern, document.text)
    if match is None:
        raise BelegError(f"Question {name}: {proof.source} does not have the words of its proof.")
    return Label(document.id, match.start(), match.end())


def _question(line: str, where: str) -> Question:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BelegError(f"{where}: not valid JSON ({error}).") from error
    if not isinstance(row, dict):
        raise BelegError(f"{where}: not a JSON object.")
    for field in ("id", "question", "answer", "proof"):
        if field not in row:
            raise BelegError(f"{where}: the field {field!r} is missing.")
    answer, others, proof = row["answer"], row.get("answers", []), row["proof"]
    if not isinstance(others, list):
        raise BelegError(f"{where}: the field 'answers' is not a list.")
    if proof is not None and not (
        isinstance(proof, dict) and all(str(proof.get(part) or "").strip() for part in ("source", "text"))
    ):
        raise BelegError(f"{where}: the field 'proof' is neither null nor an object with 'source' and 'text'.")
    return Question(
        id=str(row["id"]),
        split=str(row.get("split", "")),
        language=str(row.get("language", "und")),
        question=str(row["question"]),
        answers=tuple(str(text) for text in (answer, *others)) if answer is not None else (),
        proof=Proof(str(proof["source"]), str(proof["text"])) if proof else None,
        kind=str(row.get("kind", "")),
    )
