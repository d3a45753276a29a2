"""From a recipe to what a training sees: rows in three parts, the passages around them, a positive and negatives for each.

Negatives come from no document that development or test rows are about: what is measured on is not trained on, not even as a
wrong answer.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.data.lines import Problem
from finetune.data.read import read_all
from finetune.data.schema import Row
from finetune.data.split import split
from finetune.negatives import Filter, far, hard, nearest
from finetune.pairs import Finder
from finetune.recipe import Recipe
from finetune.training import Watch
from finetune.workspace import Passages, Workspace, source_of_context
from retriever.analyze import analyze_query
from retriever.encode import Encoder, Vectors
from retriever.errors import BelegError
from retriever.index.base import Index
from retriever.metrics import Label
from retriever.schema import document_id

__all__ = ["Example", "Mined", "Parts", "Prepared", "data_hash", "mine", "prepare", "read_parts"]


@dataclass(frozen=True)
class Parts:
    """Rows for training, for choosing, and for the gate, and how they were told apart."""

    train: Sequence[Row]
    dev: Sequence[Row]
    test: Sequence[Row]
    report: dict[str, object]
    problems: Sequence[Problem]


@dataclass(frozen=True, slots=True)
class Example:
    """A question, what answers it, and what does not: numbers of passages.

    Attributes:
        row: number of the row among those of its part.
    """

    row: int
    question: str
    positive: int
    negatives: tuple[int, ...]


@dataclass(frozen=True)
class Mined:
    """Examples, and what became of the search for negatives.

    Attributes:
        report: counts: rows without a positive, distinct easy passages, hard ones given and mined, dropped ones by reason, rows
            whose hard ones ran out and were filled with random passages.
        easy, hard: of each example.
    """

    examples: Sequence[Example]
    easy: Sequence[tuple[int, ...]]
    hard: Sequence[tuple[int, ...]]
    report: dict[str, object]


@dataclass(frozen=True)
class Prepared:
    """All that a training needs. `dev` are examples too, for the development loss."""

    parts: Parts
    passages: Passages
    train: Mined
    dev: Mined


def read_parts(recipe: Recipe) -> Parts:
    """Read the rows that a recipe names, and split them if it says so.

    Raises:
        BelegError: a file cannot be read, or nothing is left to train on.
    """
    problems: list[Problem] = []
    data = recipe.data

    def rows(sources: Sequence[str]) -> list[Row]:
        return read_all(sources, shape=data.shape, on_problem=problems.append) if sources else []

    train, dev, test = rows(data.train), rows(data.dev), rows(data.test)
    report: dict[str, object] = {"parts": "as given"}
    if data.split != "none" and not (dev and test):
        # What is not given as a file is taken from the rows for training.
        shares = tuple(0.0 if given else share for given, share in zip(([], dev, test), data.split.shares, strict=True))
        if sum(shares[1:]):
            made = split(train, shares=(1 - sum(shares[1:]), *shares[1:]), seed=data.split.seed)
            report = made.report()
            train, dev, test = made.train, dev or made.dev, test or made.test
    train = [row for row in train if row.positives][: data.limit]
    if not train:
        raise BelegError("No row is left to train on.", way_out="`beleg data check` says what is wrong with each.")
    return Parts(train, [row for row in dev if row.positives], [row for row in test if row.positives], report, problems)


def prepare(recipe: Recipe, parts: Parts, workspace: Workspace, encoder: Encoder, watch: Watch) -> Prepared:
    """Encode the passages, and find a positive and negatives for every row of training and development.

    Args:
        workspace: where the rows' contexts and the recipe's documents are already.
        encoder: the one that is tuned, untuned as yet; it mines.
    """
    watch.on_phase("encode", _lacking(workspace, encoder))
    workspace.fill(encoder, progress=watch.on_progress)
    index, passages = workspace.index(encoder), workspace.passages(encoder)
    kept = _documents((*parts.dev, *parts.test))
    allowed = np.array([document not in kept for document in passages.documents])
    judge = _judge(recipe.negatives.cross_encoder)
    made = []
    for name, rows in (("train", parts.train), ("dev", parts.dev)):
        watch.on_phase("mine", len(rows))
        # Development rows may be told apart from passages of development; the loss on them teaches nothing.
        among = allowed if name == "train" else ~np.isin(passages.documents, list(_documents(parts.test)))
        labels = workspace.labels(rows)
        finder = Finder(passages)
        placed = [(at, number) for at, number in enumerate(finder.positives(rows, labels)) if number is not None]
        queries = encoder.encode_queries([rows[at].question for at, _ in placed])
        golden = _golden(rows, [at for at, _ in placed], labels, finder)
        made.append(mine(recipe, rows, placed, golden, queries, passages, among, index, finder, judge, watch.on_progress))
    return Prepared(parts, passages, *made)


def mine(
    recipe: Recipe,
    rows: Sequence[Row],
    placed: Sequence[tuple[int, int]],
    golden: Sequence[Collection[int]],
    queries: Vectors,
    passages: Passages,
    allowed: npt.NDArray[np.bool_],
    index: Index,
    finder: Finder,
    judge: Callable[[str, Sequence[str]], Sequence[float]] | None,
    progress: Callable[[int], None],
) -> Mined:
    """Find the negatives that a recipe asks for.

    Args:
        placed: number of each row that has a positive, and the positive's.
        golden: of each of these, the passages that overlap what answers it.
        queries: vectors of their questions, shape (placed, dimensions).
        allowed: which passages may be negatives.
    """
    wanted = recipe.negatives
    pool = np.flatnonzero(allowed)
    report: dict[str, object] = {"rows": len(rows), "without a positive": len(rows) - len(placed), "passages": len(pool)}
    easy: list[tuple[int, ...]] = [()] * len(placed)
    chosen: list[tuple[int, ...]] = [()] * len(placed)
    positives = [number for _, number in placed]
    if len(pool) < 2 and wanted.easy + wanted.hard:
        raise BelegError("There are no passages to tell answers apart from.", way_out="Give more rows or documents.")
    if wanted.easy and placed:
        columns = [
            pool[_far(passages, pool, positives, share=wanted.easy_share, seed=recipe.trainer.seed + number, skip=number)]
            for number in range(wanted.easy)
        ]
        easy = [tuple(int(number) for number in row) for row in np.stack(columns, axis=1)]
        report["easy"] = {"used": len(placed) * wanted.easy, "distinct": len({number for row in easy for number in row})}
    if wanted.hard and placed:
        chosen, report["hard"] = _hard(recipe, rows, placed, golden, queries, passages, pool, index, finder, judge, progress)
    examples = [
        Example(at, rows[at].question, positive, (*easy[place], *chosen[place])) for place, (at, positive) in enumerate(placed)
    ]
    return Mined(examples, easy, chosen, report)


def _far(
    passages: Passages, pool: npt.NDArray[np.int64], positives: Sequence[int], *, share: float, seed: int, skip: int
) -> npt.NDArray[np.int64]:
    """Return the easy negatives of all rows, as places in the pool; the second column skips what the first has taken."""
    return far(
        passages.vectors[np.asarray(positives)],
        passages.vectors[pool],
        share=share,
        seed=seed,
        skip=skip,
        same=lambda place, row: passages.texts[int(pool[place])] == passages.texts[positives[row]],
    )


def _hard(
    recipe: Recipe,
    rows: Sequence[Row],
    placed: Sequence[tuple[int, int]],
    golden: Sequence[Collection[int]],
    queries: Vectors,
    passages: Passages,
    pool: npt.NDArray[np.int64],
    index: Index,
    finder: Finder,
    judge: Callable[[str, Sequence[str]], Sequence[float]] | None,
    progress: Callable[[int], None],
) -> tuple[list[tuple[int, ...]], dict[str, object]]:
    wanted = recipe.negatives
    allowed = set(pool.tolist())
    sources: list[list[list[int]]] = [[] for _ in placed]
    given = 0
    if wanted.given:
        for place, (at, _) in enumerate(placed):
            brought = [_likest(finder.of_context(text), passages, queries[place]) for text in rows[at].hard_negatives]
            sources[place].append([number for number in brought if number is not None and number in allowed])
            given += len(sources[place][-1])
    if "keyword" in wanted.mine:
        numbers = {int(row): number for number, row in enumerate(passages.rows)}
        for place, (at, _) in enumerate(placed):
            terms = analyze_query(rows[at].question, index.languages)
            found = index.candidates(vector=None, terms=terms, depth=wanted.depth, filters={}) if terms else []
            found.sort(key=lambda candidate: (-(candidate.keyword or 0.0), candidate.row))
            sources[place].append([numbers[hit.row] for hit in found if numbers[hit.row] in allowed])
    if "dense" in wanted.mine:
        for place, near in enumerate(nearest(queries, passages.vectors[pool], depth=wanted.depth)):
            sources[place].append(pool[near].tolist())
    items = [
        (rows[at].question, queries[place], [answer.text for answer in rows[at].answers], positive, golden[place])
        for place, (at, positive) in enumerate(placed)
    ]
    filter_ = Filter(passages.texts, passages.vectors, wanted.margin, wanted.answers, judge)
    mined = hard(items, sources, filter_, wanted=wanted.hard, progress=progress)
    draw = np.random.default_rng(recipe.trainer.seed)
    filled, full = 0, []
    for place, row in enumerate(mined.chosen):
        taken = [*row]
        while len(taken) < wanted.hard:  # a batch's rows have equally many
            other = int(draw.choice(pool))
            if other not in golden[place] and other != placed[place][1]:
                taken.append(other)
                filled += 1
        full.append(tuple(taken))
    report: dict[str, object] = {
        "given": given,
        "looked at": mined.dropped.pop("seen", 0),
        "dropped": dict(mined.dropped.most_common()),
        "used": len(placed) * wanted.hard - filled,
        "distinct": len({number for row in mined.chosen for number in row}),
        "filled with random ones": filled,
    }
    return full, report


def _golden(
    rows: Sequence[Row], placed: Sequence[int], labels: Mapping[str, Sequence[Label]], finder: Finder
) -> list[Collection[int]]:
    """Return the passages that answer each row; what answers its translations, which share its id, answers it too."""
    of: dict[str, set[int]] = defaultdict(set)
    for at in placed:
        of[rows[at].id].update(number for label in labels[str(at)] for number in finder.holding(label))
    return [of[rows[at].id] for at in placed]


def _likest(numbers: Sequence[int], passages: Passages, query: Vectors) -> int | None:
    return max(numbers, key=lambda number: float(passages.vectors[number] @ query), default=None)


def _judge(reference: str) -> Callable[[str, Sequence[str]], Sequence[float]] | None:
    if not reference:
        return None
    from retriever.rerank import open_reranker

    return open_reranker(reference).scores


def _documents(rows: Iterable[Row]) -> set[str]:
    """Return the documents of a workspace that rows are about."""
    return {document_id(source_of_context(text)) for row in rows for text in row.positives}


def _lacking(workspace: Workspace, encoder: Encoder) -> int | None:
    from retriever.fill import Maker

    chunking = Maker(encoder, workspace.size).stamp.chunking
    if next(workspace.store.without_chunks(chunking), None) is not None:
        return None
    return sum(1 for _ in workspace.store.without_vector(encoder.fingerprint, chunking))


def data_hash(parts: Parts) -> str:
    """Return a hash over all rows, in their parts and in order; where they came from does not count."""
    digest = hashlib.sha256()
    for rows in (parts.train, parts.dev, parts.test):
        for row in rows:
            positives = [(text.title, text.text) for text in row.positives]
            given = [(text.title, text.text) for text in (*row.negatives, *row.hard_negatives)]
            answers = [(answer.text, answer.start) for answer in row.answers]
            digest.update(json.dumps([row.id, row.question, answers, positives, given], ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()
