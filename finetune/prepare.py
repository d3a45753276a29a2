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

__all__ = ["Example", "Mined", "Parts", "Prepared", "data_hash", "prepare", "read_parts"]

_RUN = 8
"""Words in a row that two texts seldom share by chance."""

_ECHO = 0.5
"""Share of a passage's runs of words that stand in documents which are measured on: such a passage is held out as well."""

_DRAWN = 64
"""Random passages that are looked at where a row's hard negatives ran out."""


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
        golden: all passages that answer it, as far as is known; the positive is one.
    """

    row: int
    question: str
    positive: int
    negatives: tuple[int, ...]
    golden: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Mined:
    """Examples, and what became of the search for negatives.

    Attributes:
        report: counts: rows without a positive, distinct easy passages, hard ones given and mined, dropped ones by reason, how
            many random passages were taken where they ran out, and rows left out since nothing could be told apart from what
            answers them.
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
    allowed = ~_held_out(passages, _documents((*parts.dev, *parts.test)))
    judge = _judge(recipe.negatives.cross_encoder)
    made = []
    for name, rows in (("train", parts.train), ("dev", parts.dev)):
        watch.on_phase("mine", len(rows))
        # Development rows may be told apart from passages of development; the loss on them teaches nothing.
        among = allowed if name == "train" else ~_held_out(passages, _documents(parts.test))
        labels = workspace.labels(rows)
        finder = Finder(passages)
        placed = [(at, number) for at, number in enumerate(finder.positives(rows, labels)) if number is not None]
        queries = encoder.encode_queries([rows[at].question for at, _ in placed])
        golden = _golden(rows, [at for at, _ in placed], labels, finder, apart=recipe.negatives.translations)
        ground = _Ground(passages, np.flatnonzero(among), index, finder, judge)
        made.append(_mine(recipe, _Asked(rows, placed, golden, queries), ground, watch.on_progress))
    if not made[0].examples:
        raise BelegError(
            "No row is left to train on: there is nothing to tell their answers apart from.",
            way_out="Give more rows or documents.",
        )
    return Prepared(parts, passages, *made)


@dataclass(frozen=True)
class _Asked:
    """Rows of a part, and what is known of those that have a positive.

    Attributes:
        placed: number of each row that has a positive, and the positive's.
        golden: of each of these, the passages that answer it.
        queries: vectors of their questions, shape (placed, dimensions).
    """

    rows: Sequence[Row]
    placed: Sequence[tuple[int, int]]
    golden: Sequence[Collection[int]]
    queries: Vectors


@dataclass(frozen=True)
class _Ground:
    """Where negatives are looked for.

    Attributes:
        pool: numbers of the passages that may be negatives.
        judge: see `finetune.negatives.Filter`.
    """

    passages: Passages
    pool: npt.NDArray[np.int64]
    index: Index
    finder: Finder
    judge: Callable[[str, Sequence[str]], Sequence[float]] | None


def _mine(recipe: Recipe, asked: _Asked, ground: _Ground, progress: Callable[[int], None]) -> Mined:
    """Find the negatives that a recipe asks for."""
    rows, placed, golden = asked.rows, asked.placed, asked.golden
    wanted, pool = recipe.negatives, ground.pool
    report: dict[str, object] = {"rows": len(rows), "without a positive": len(rows) - len(placed), "passages": len(pool)}
    easy: list[tuple[int, ...]] = [()] * len(placed)
    chosen: list[tuple[int, ...]] = [()] * len(placed)
    if wanted.easy and placed:
        easy = _easy(recipe, placed, golden, ground.passages, pool)
        report["easy"] = {"used": sum(map(len, easy)), "distinct": len({number for row in easy for number in row})}
    if wanted.hard and placed:
        chosen, report["hard"] = _hard(recipe, asked, ground, progress)
    # A batch's rows have equally many negatives. Who lacks some, in a tiny corpus, has one of them twice.
    easy = [_padded(row, wanted.easy, chosen[place]) for place, row in enumerate(easy)]
    chosen = [_padded(row, wanted.hard, easy[place]) for place, row in enumerate(chosen)]
    whole = [place for place in range(len(placed)) if len(easy[place]) == wanted.easy and len(chosen[place]) == wanted.hard]
    if len(whole) < len(placed):
        report["nothing to tell apart from"] = len(placed) - len(whole)
    examples = [
        Example(at, rows[at].question, positive, (*easy[place], *chosen[place]), frozenset({positive, *golden[place]}))
        for place, (at, positive) in ((place, placed[place]) for place in whole)
    ]
    return Mined(examples, [easy[place] for place in whole], [chosen[place] for place in whole], report)


def _padded(row: tuple[int, ...], wanted: int, others: tuple[int, ...]) -> tuple[int, ...]:
    again = row or others
    return (*row, *(again[at % len(again)] for at in range(wanted - len(row)))) if again else row


def _easy(
    recipe: Recipe,
    placed: Sequence[tuple[int, int]],
    golden: Sequence[Collection[int]],
    passages: Passages,
    pool: npt.NDArray[np.int64],
) -> list[tuple[int, ...]]:
    positives = [number for _, number in placed]

    def same(place: int, row: int) -> bool:
        number = int(pool[place])
        return number in golden[row] or passages.texts[number] == passages.texts[positives[row]]

    places = far(
        passages.vectors[np.asarray(positives)],
        passages.vectors[pool],
        count=recipe.negatives.easy,
        share=recipe.negatives.easy_share,
        seed=recipe.trainer.seed,
        same=same,
    )
    return [tuple(int(pool[place]) for place in row if place >= 0) for row in places]


def _hard(
    recipe: Recipe, asked: _Asked, ground: _Ground, progress: Callable[[int], None]
) -> tuple[list[tuple[int, ...]], dict[str, object]]:
    rows, placed, queries, passages, pool = asked.rows, asked.placed, asked.queries, ground.passages, ground.pool
    wanted = recipe.negatives
    allowed = set(pool.tolist())
    sources: list[list[list[int]]] = [[] for _ in placed]
    given: list[list[int]] = [[] for _ in placed]
    if wanted.given:
        for place, (at, _) in enumerate(placed):
            brought = [_likest(ground.finder.of_context(text), passages, queries[place]) for text in rows[at].hard_negatives]
            given[place] = [number for number in brought if number is not None and number in allowed]
    if "keyword" in wanted.mine:
        numbers = {int(row): number for number, row in enumerate(passages.rows)}
        for place, (at, _) in enumerate(placed):
            terms = analyze_query(rows[at].question, ground.index.languages)
            found = ground.index.candidates(vector=None, terms=terms, depth=wanted.depth, filters={}) if terms else []
            found.sort(key=lambda candidate: (-(candidate.keyword or 0.0), candidate.row))
            sources[place].append([numbers[hit.row] for hit in found if numbers[hit.row] in allowed])
    if "dense" in wanted.mine:
        for place, near in enumerate(nearest(queries, passages.vectors[pool], depth=wanted.depth)):
            sources[place].append(pool[near].tolist())
    items = [
        (rows[at].question, queries[place], [answer.text for answer in rows[at].answers], positive, asked.golden[place])
        for place, (at, positive) in enumerate(placed)
    ]
    filter_ = Filter(passages.texts, passages.vectors, wanted.margin, wanted.answers, ground.judge, inputs=passages.inputs)
    mined = hard(items, sources, filter_, wanted=wanted.hard, first=given, progress=progress)
    # Known to be translations, they need no filter; nearly all would fall to it.
    twins = _translations(rows, placed) if wanted.translations else [[] for _ in placed]
    draw = np.random.default_rng(recipe.trainer.seed)
    chosen, full = [], []
    for item, twin, rest in zip(items, twins, mined.chosen, strict=True):
        row = [*twin, *(number for number in rest if number not in twin)][: wanted.hard]
        more: list[int] = []
        if len(row) < wanted.hard:
            # Random ones pass the same filter: in a small corpus any of them may answer.
            drawn = [number for number in draw.permutation(pool)[:_DRAWN].tolist() if number not in row]
            reasons = filter_.reasons(*item, drawn)
            more = [number for number, reason in zip(drawn, reasons, strict=True) if reason is None]
        chosen.append(row)
        full.append((*row, *more[: wanted.hard - len(row)]))
    used = sum(map(len, chosen))
    report: dict[str, object] = {
        "given": sum(map(len, given)),
        **({"translations": sum(map(len, twins))} if wanted.translations else {}),
        "looked at": mined.dropped.pop("seen", 0),
        "dropped": dict(mined.dropped.most_common()),
        "used": used,
        "distinct": len({number for row in chosen for number in row}),
        "filled with random ones": sum(map(len, full)) - used,
    }
    return full, report


def _golden(
    rows: Sequence[Row],
    placed: Sequence[int],
    labels: Mapping[str, Sequence[Label]],
    finder: Finder,
    *,
    apart: bool,
) -> list[Collection[int]]:
    """Return the passages that answer each row; what answers its translations, which share its id, answers it too.

    Args:
        apart: whether translations are told apart instead.
    """

    def key_of(at: int) -> str:
        name = rows[at].id or f"row {at}"
        return f"{rows[at].language} {name}" if apart else name

    of: dict[str, set[int]] = defaultdict(set)
    for at in placed:
        key = key_of(at)
        of[key].update(number for label in labels[str(at)] for number in finder.holding(label))
        # Where the answer stands in the others is not said: any part of them may hold it.
        of[key].update(number for text in rows[at].positives[1:] for number in finder.of_context(text))
    return [of[key_of(at)] for at in placed]


def _translations(rows: Sequence[Row], placed: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the positives of each row's translations."""
    of: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for at, positive in placed:
        if rows[at].id:
            of[rows[at].id].add((rows[at].language, positive))
    return [sorted(number for language, number in of[rows[at].id] if language != rows[at].language) for at, _ in placed]


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


def _held_out(passages: Passages, documents: Collection[str]) -> npt.NDArray[np.bool_]:
    """Say of each passage whether it is in these documents, or says again what stands there: a context's own file, for one."""
    inside = np.isin(passages.documents, list(documents))
    said = {run for number in np.flatnonzero(inside) for run in _runs(passages.texts[int(number)])}
    for number in np.flatnonzero(~inside):
        runs = _runs(passages.texts[int(number)])
        inside[number] = sum(run in said for run in runs) >= _ECHO * len(runs)
    return inside


def _runs(text: str) -> list[int]:
    """Return a hash of every run of words; a shorter text is one run."""
    words = text.casefold().split()
    return [hash(tuple(words[at : at + _RUN])) for at in range(max(1, len(words) - _RUN + 1))]


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
