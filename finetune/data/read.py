"""Questions with known answers from files, BEIR folders and the hub, whatever shape they have, as checked rows.

The shapes themselves are the business of `dpr`, `qca`, `squad`, `beir` and `feedback`; answers are checked by `check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from finetune.data import beir, dpr, feedback, qca, squad
from finetune.data.check import check_row
from finetune.data.fields import Malformed
from finetune.data.hub import is_hub_id, open_hub
from finetune.data.lines import Kind, Problem, read_file
from finetune.data.schema import Row
from retriever.errors import BelegError

if TYPE_CHECKING:
    from datasets import IterableDataset

__all__ = ["Kind", "Problem", "Shape", "read_all", "read_rows", "shape_of", "stream"]

Shape = Literal["dpr", "qca", "squad", "beir", "feedback"]

_FILES = (".json", ".jsonl", ".ndjson")
# The order matters: by its fields' names a record of SQuAD is one of query, context and answer too.
_SIGNS: dict[Shape, Callable[[dict[str, Any]], bool]] = {
    "feedback": feedback.is_feedback,
    "dpr": dpr.is_dpr,
    "squad": squad.is_squad,
    "qca": qca.is_qca,
}
_ROWS: dict[Shape, Callable[[object, str], Row | str]] = {
    "feedback": feedback.feedback_row,
    "dpr": dpr.dpr_row,
    "squad": squad.squad_row,
    "qca": qca.qca_row,
    "beir": beir.beir_row,
}
_NEEDS: dict[Shape, str] = {
    "dpr": dpr.NEEDS,
    "qca": qca.NEEDS,
    "squad": squad.NEEDS,
    "beir": beir.NEEDS,
    "feedback": feedback.NEEDS,
}


def read_rows(
    source: str | Path,
    *,
    shape: Shape | None = None,
    limit: int | None = None,
    on_problem: Callable[[Problem], None] | None = None,
) -> Iterator[Row]:
    """Read a file (.json, .jsonl), a BEIR folder or a data set of the hub (`name/name` or `name/name:split`), row by row.

    Args:
        shape: recognised from the first record's fields if None.
        limit: at most so many rows.
        on_problem: is told of every problem, and the rest goes on; if None, the first fatal one is raised.

    Raises:
        BelegError: the source cannot be read, holds no record, or has an unknown shape; without `on_problem` also for the first
            record that is malformed. The message names file, line and field.
    """
    if limit is not None and limit < 0:
        raise ValueError("limit is negative")
    return islice(_checked(str(source), shape, on_problem or _raise_fatal), limit)


def read_all(
    sources: Sequence[str | Path],
    *,
    shape: Shape | None = None,
    limit: int | None = None,
    on_problem: Callable[[Problem], None] | None = None,
) -> list[Row]:
    """Read several sources, one after the other; `limit` is for each of them.

    Raises:
        BelegError: as `read_rows`, or there is no row at all.
    """
    rows = [row for source in sources for row in read_rows(source, shape=shape, limit=limit, on_problem=on_problem)]
    if not rows:
        raise BelegError(
            f"No question to be had from {', '.join(map(str, sources)) or 'nothing'}.",
            way_out="`beleg data check` says what is wrong with each record.",
        )
    return rows


def shape_of(source: str | Path) -> Shape:
    """Return the shape of a source, by the fields of its first record.

    Raises:
        BelegError: it cannot be read, holds no record, or has an unknown shape; the message says what each shape needs.
    """
    if _is_beir(str(source)):
        return "beir"
    for example in _examples(str(source), None):
        if example["shape"]:
            return cast("Shape", example["shape"])
    raise _empty(str(source))


def stream(source: str | Path, *, shape: Shape | None = None) -> IterableDataset:
    """Return the records of a source as a data set that is read while it is used, and can be shuffled, taken from, and so on.

    Each example has `shape`, `origin`, `record` and `problem`; one of the last two is None. Records are as they stand in the
    source, except that SQuAD's articles are taken apart into a record a question, and those of BEIR are put together.
    """
    from datasets import IterableDataset

    # Without features: the library would else ask that all records have the same fields.
    return IterableDataset.from_generator(_examples, gen_kwargs={"source": str(source), "shape": shape})


def _checked(source: str, shape: Shape | None, tell: Callable[[Problem], None]) -> Iterator[Row]:
    read = False
    for example in stream(source, shape=shape):
        read = True
        problem, origin = example["problem"], example["origin"]
        if problem:
            tell(problem)
            continue
        try:
            row = _ROWS[example["shape"]](example["record"], origin)
        except Malformed as error:
            tell(Problem(origin, error.field, error.message, fatal=True))
            continue
        if isinstance(row, str):
            tell(Problem(origin, "", row, fatal=False, kind="unused"))
            continue
        row, problems = check_row(row)
        for problem in problems:
            tell(problem)
        if not any(problem.fatal for problem in problems):
            yield row
    if not read:
        raise _empty(source)


def _examples(source: str, shape: Shape | None) -> Iterator[dict[str, Any]]:
    for item in _records(source, shape):
        if isinstance(item, Problem):
            yield _broken(item, shape)
            continue
        place, number, record = item
        shape = shape or _recognised(record, source)
        questions = squad.flatten(record, number) if shape == "squad" else [(number, record)]
        for question in questions:
            if isinstance(question, Malformed):
                yield _broken(Problem(f"{place} {number}", question.field, question.message, fatal=True), shape)
                continue
            line, one = question
            # Whole files of SQuAD's shape stand in one line.
            name = f", id {one['id']}" if one is not record and isinstance(one, dict) and "id" in one else ""
            yield {"shape": shape, "origin": f"{place} {line}{name}", "record": one, "problem": None}


def _broken(problem: Problem, shape: Shape | None) -> dict[str, Any]:
    return {"shape": shape, "origin": problem.origin, "record": None, "problem": problem}


def _records(source: str, shape: Shape | None) -> Iterator[tuple[str, int, Any] | Problem]:
    """Yield records, each with what is counted and its number."""
    path = Path(source).expanduser()
    items: Iterator[tuple[Any, int, Any] | Problem]
    if _is_beir(source):
        if shape not in (None, "beir"):
            raise BelegError(f"{source} is a BEIR folder, not {shape}.", way_out="Leave out the shape.")
        items = beir.judged(path)
    elif shape == "beir":
        raise BelegError(f"{source} is not of the shape beir.", way_out=f"That needs {beir.NEEDS}.")
    elif path.is_file() and path.suffix.lower() in _FILES:
        items = (item if isinstance(item, Problem) else (source, *item) for item in read_file(path))
    elif path.exists():
        raise BelegError(f"{source} is none of: {', '.join(_FILES)}, {beir.NEEDS}.", way_out="Convert it, or name another.")
    elif is_hub_id(source):
        yield from ((f"{source}, record", *item) for item in open_hub(source))
        return
    else:
        raise BelegError(
            f"There is no {source}.", way_out="Name a .json or .jsonl file, a BEIR folder, or a data set (name/name)."
        )
    for item in items:
        yield item if isinstance(item, Problem) else (f"{item[0]}, line", item[1], item[2])


def _is_beir(source: str) -> bool:
    return beir.is_beir(Path(source).expanduser())


def _recognised(record: Any, source: str) -> Shape:
    if _is_beir(source):
        return "beir"
    for shape, fits in _SIGNS.items():
        if isinstance(record, dict) and fits(record):
            return shape
    has = ", ".join(map(str, list(record)[:12])) if isinstance(record, dict) else "no fields"
    needs = "\n".join(f"  {shape}: {needs}" for shape, needs in _NEEDS.items())
    raise BelegError(f"{source} has no known shape: its first record has {has}.", way_out=f"The shapes need:\n{needs}")


def _empty(source: str) -> BelegError:
    return BelegError(f"{source} holds no record.", way_out="Name a file that has questions in it.")


def _raise_fatal(problem: Problem) -> None:
    if problem.fatal:
        field = f"{problem.field}: " if problem.field else ""
        raise BelegError(
            f"{problem.origin}: {field}{problem.message}.",
            way_out="Mend it, or see all that is wrong with `beleg data check`.",
        )
