"""Questions with the passages that every reader is shown: searched once, or the ones that came with them. Asks no reader."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from finetune.data.lines import read_lines
from finetune.data.schema import Context, Row
from finetune.evaluate import score_search
from finetune.evaluate_retriever import Remembering
from finetune.raft.row import Passage, PassageKind, read_raft, whole
from finetune.reading import Asked, asked_of
from finetune.served import open_served
from finetune.trial import Trial, open_trial, read_asked
from finetune.workspace import source_of_context
from retriever.encode import Encoder
from retriever.errors import BelegError, IndexDamaged
from retriever.metrics import Label
from retriever.questions import Question
from retriever.schema import Hit, document_id
from retriever.search import Searcher
from retriever.settings import Settings

__all__ = ["Posed", "Telling", "is_raft_file", "pose", "quiet"]


class Telling(Protocol):
    """Is told what begins and how much of it there is, and returns what is told how much more of it is done."""

    def __call__(self, what: str, total: int | None = None) -> Callable[[int], None]:
        """Begin."""


def quiet(what: str, total: int | None = None) -> Callable[[int], None]:  # noqa: ARG001 - nobody listens
    """Tell nobody."""
    return lambda _: None


@dataclass(frozen=True)
class Posed:
    """What every reader is asked.

    Attributes:
        encoder: the one that passages were searched with, or that is served.
        labels: of questions from question files: where the proof stands, by id.
        searching: seconds that finding its passages took, by id; empty where they came with the questions.
        search: of question files: how good the search was, by mode, language and measure; else None.
        documents, chunks: how many were searched.
        left_out: reason and count of questions that are not asked.
    """

    asked: Sequence[Asked]
    encoder: Encoder
    labels: Mapping[str, Sequence[Label]] = field(default_factory=dict)
    searching: Mapping[str, float] = field(default_factory=dict)
    search: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None
    documents: int = 0
    chunks: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


def is_raft_file(source: str) -> bool:
    """Say whether a source is a file of examples for the reader: lines of JSON whose first has `passages`."""
    path = Path(source)
    if not path.is_file() or path.suffix.lower() == ".json":
        return False
    first = next(iter(read_lines(path)), None)
    return isinstance(first, tuple) and isinstance(first[1], dict) and "passages" in first[1]


def pose(
    settings: Settings,
    sources: Sequence[str],
    *,
    passages: int | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    tell: Telling = quiet,
) -> Posed:
    """Read questions and find their passages.

    A question file is searched in the live index, training data in an index of its own contexts, and examples made by
    `beleg raft` bring their own passages.

    Args:
        passages: how many to show; None for the setting.
        split: of question files: only questions of this one.
        limit: at most so many questions, drawn by the seed.

    Raises:
        BelegError: a source cannot be read, kinds are mixed, nothing is indexed, or nothing is left to ask.
    """
    rafts = [is_raft_file(source) for source in sources]
    if all(rafts):
        return _own_passages(settings, sources, passages, split, limit, seed)
    if any(rafts):
        raise BelegError(
            f"{sources[rafts.index(True)]} brings its own passages, and {sources[rafts.index(False)]} is searched.",
            way_out="Measure on one kind at a time.",
        )
    asked = read_asked(sources, split=split)
    with open_trial(settings, asked, tell=tell) as trial:
        return _searched(trial, asked.questions, passages or settings.passages, limit, seed, tell)


def _own_passages(
    settings: Settings, sources: Sequence[str], passages: int | None, split: str | None, limit: int | None, seed: int
) -> Posed:
    for option, given in (("passages", passages), ("split", split)):
        if given is not None:
            raise BelegError(f"{sources[0]} brings its own passages, and has no splits.", way_out=f"Leave out `--{option}`.")
    rows = [row for source in sources for row in read_raft(Path(source))]
    asked = [replace(asked_of(row), id=key) for key, row in zip(_keys([row.id for row in rows]), rows, strict=True)]
    with open_served(settings) as served:
        encoder = served.encoder(1)
    return Posed([asked[at] for at in _drawn(len(asked), limit, seed)], Remembering(encoder))


def _searched(trial: Trial, questions: Sequence[Question], passages: int, limit: int | None, seed: int, tell: Telling) -> Posed:
    searcher = next(iter(trial.searchers.values()))
    keys = _keys([row.id for row in trial.rows])
    left_out: Counter[str] = Counter()
    able = []
    for at, row in enumerate(trial.rows):
        reason = _not_asked(row, answered=str(at) in trial.labels)
        if reason:
            left_out[reason] += 1
        else:
            able.append(at)
    if not able:
        raise BelegError("No question has an answer in words, and the passage that proves it.", way_out="Give such questions.")
    chosen = [able[at] for at in _drawn(len(able), limit, seed)]
    done = tell("Searching", len(chosen))
    asked, searching = [], {}
    for at in chosen:
        begin = time.perf_counter()
        hits = searcher.search(trial.rows[at].question, limit=passages)
        searching[keys[at]] = time.perf_counter() - begin
        _check_places(hits, searcher)
        golden = _proof(trial.rows[at], questions[at] if questions else None)
        asked.append(_asked(keys[at], trial.rows[at], hits, trial.labels.get(str(at), ()), golden))
        done(1)
    labels = {keys[at]: trial.labels[str(at)] for at in chosen if str(at) in trial.labels}
    return Posed(
        asked,
        searcher.encoder,
        labels,
        searching,
        _search_table(searcher, asked, labels, tell) if questions and labels else None,
        trial.documents,
        trial.chunks,
        left_out,
    )


def _search_table(
    searcher: Searcher, asked: Sequence[Asked], labels: Mapping[str, Sequence[Label]], tell: Telling
) -> dict[str, dict[str, dict[str, float]]]:
    done = tell("Measuring search", 4 * len(labels))
    languages = {one.id: one.language for one in asked}
    return score_search(searcher, {one.id: one.question for one in asked}, labels, languages, progress=lambda: done(1))


def _not_asked(row: Row, *, answered: bool) -> str:
    """Return why a row cannot be asked, or nothing."""
    if answered:
        return "" if row.answers else "a passage answers it, but no answer in words is known"
    return "an answer is known, but not what proves it" if row.answers else ""


def _asked(key: str, row: Row, hits: Sequence[Hit], labels: Sequence[Label], golden: tuple[str, ...]) -> Asked:
    given: dict[str, PassageKind] = {
        **dict.fromkeys(_documents(row.hard_negatives), "hard"),
        **dict.fromkeys(_documents(row.negatives), "easy"),
    }
    return Asked(
        id=key,
        question=row.question,
        answers=tuple(dict.fromkeys(answer.text for answer in row.answers)),
        hits=tuple(hits),
        kinds=tuple("golden" if _holds(hit, labels) else given.get(hit.document, "retrieved") for hit in hits),
        golden=golden,
        document=row.document or key,
        language=row.language,
    )


def _proof(row: Row, question: Question | None) -> tuple[str, ...]:
    """Return the sentences that prove the answer; none where only the context is known."""
    if question is not None:
        return (question.proof.text,) if question.proof else ()
    placed = next((answer for answer in row.answers if answer.start is not None), None)
    if placed is None or placed.start is None or not row.positives:
        return ()
    text = row.positives[0].text
    span = whole(Passage(text, "", (), "golden", "", 0, len(text), row.language), placed.start, placed.start + len(placed.text))
    return (text[slice(*span)],) if span else ()


def _holds(hit: Hit, labels: Sequence[Label]) -> bool:
    for label in labels:
        common = min(hit.end, label.end) - max(hit.start, label.start)
        if hit.document == label.document and common > 0 and common >= label.share * (label.end - label.start):
            return True
    return False


def _check_places(hits: Sequence[Hit], searcher: Searcher) -> None:
    """Make sure that passages stand where they say: quotes are proven in them, and get their places from them."""
    for hit in hits:
        document = searcher.index.document(hit.document, hit.revision)
        if document is None or document.text[hit.start : hit.end] != hit.text:
            raise IndexDamaged(f"A passage of {hit.source} is not what the document has there.", way_out="Run `beleg rebuild`.")


def _documents(contexts: Sequence[Context]) -> Iterator[str]:
    return (document_id(source_of_context(text)) for text in contexts)


def _keys(ids: Sequence[str]) -> list[str]:
    """Return ids that no two share: translations of a question may have one.

    >>> _keys(["a", "b", "a"])
    ['a', 'b', 'a#2']
    """
    seen: Counter[str] = Counter()
    found = []
    for name in ids:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return found


def _drawn(count: int, limit: int | None, seed: int) -> Sequence[int]:
    if limit is None or limit >= count:
        return range(count)
    return sorted(random.Random(seed).sample(range(count), limit))
