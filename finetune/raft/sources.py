"""What rows are made from: questions in files, and the workspace that search finds passages in."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from finetune.data.lines import Problem
from finetune.data.read import Shape, read_all
from finetune.data.schema import Row
from finetune.raft.finding import Finding
from finetune.raft.pubmed import is_pubmed, read_pubmed
from finetune.served import OpenEncoder, open_served
from finetune.workspace import Workspace
from retriever.encode import open_encoder
from retriever.errors import LoadError, StoreError
from retriever.load import discover, source_of
from retriever.rerank import open_reranker
from retriever.schema import document_id
from retriever.search import Searcher
from retriever.settings import Settings

__all__ = ["Where", "open_finding", "read_sources"]

Given = tuple[Row, tuple[int, int] | None]
"""A row, and where its evidence stands in its first positive if that is not its answer's place."""


@dataclass(frozen=True, slots=True)
class Where:
    """What is searched, beside the rows' own contexts.

    Attributes:
        documents: files and folders.
        with_index: the documents of the live index as well.
        about: files and folders that questions are written about; they are searched too.
        workspace: folder that is kept; what lies in it is searched as well. None takes a temporary one.
    """

    documents: Sequence[Path] = ()
    with_index: bool = False
    about: Sequence[Path] = ()
    workspace: Path | None = None


class Tells(Protocol):
    """Hears of progress, as `retriever.watched.Watched` does."""

    @property
    def on_phase(self) -> Callable[[str, int | None], None]:
        """A phase begins."""

    @property
    def on_progress(self) -> Callable[[int], None]:
        """So many more are done."""

    @property
    def on_note(self) -> Callable[[str], None]:
        """Something in words."""


def read_sources(sources: Sequence[str], shape: Shape | None, on_problem: Callable[[Problem], None]) -> list[Given]:
    """Read training data of any shape, and PubMedQA as it is published.

    Raises:
        BelegError: a source cannot be read, or gives no row.
    """
    rows: list[Given] = []
    for source in sources:
        if shape is None and is_pubmed(Path(source)):
            found, wrong = read_pubmed(Path(source))
            rows += found
            for problem in wrong:
                on_problem(problem)
        else:
            rows += [(row, None) for row in read_all([source], shape=shape, on_problem=on_problem)]
    return rows


@contextmanager
def open_finding(
    settings: Settings, rows: Sequence[Given], where: Where, *, tell: Tells, open_: OpenEncoder = open_encoder
) -> Iterator[tuple[Finding, frozenset[str]]]:
    """Open the workspace with the served encoder, alpha and reranker; yield it with the ids of the documents `about`.

    Raises:
        BelegError: something cannot be opened or read.
    """
    with ExitStack() as stack:
        served = stack.enter_context(open_served(settings, open_))
        reranker = open_reranker(settings.reranker) if settings.reranker else None
        folder = where.workspace or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beleg-")))
        space = stack.enter_context(Workspace(folder, served.size()))
        if space.store.recall("live") is not None:
            raise StoreError(f"{folder} holds a live index.", way_out="Give `--workspace` another folder, or leave it out.")
        for error in space.add_files([*where.documents, *where.about]):
            tell.on_note(str(error))
        space.add_rows(row for row, _ in rows)
        if where.with_index:
            space.add_documents(served.documents())
        tell.on_phase("encode", None)
        index = space.index(served.encoder(None), progress=tell.on_progress)
        # One thread for queries: see `MiniLM`.
        searcher = Searcher(index, served.encoder(1), alpha=settings.alpha, reranker=reranker)
        found = discover(list(where.about)) if where.about else []
        about = frozenset(document_id(source_of(path)) for path in found if not isinstance(path, LoadError))
        yield Finding(space, searcher, [row for row, _ in rows]), about
