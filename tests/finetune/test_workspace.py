"""A workspace holds each context once, encodes nothing twice, and says where answers stand."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from finetune.data.schema import Answer, Context, Row
from finetune.workspace import Workspace, source_of_context
from retriever.chunk import ChunkSize
from retriever.errors import StoreError
from retriever.metrics import Label
from retriever.schema import document_id
from retriever.search import Searcher

SIZE = ChunkSize(16, 4)
HOUSE, GARDEN, SHED = Context("Das Haus ist rot. 🧾", "Häuser & Höfe"), Context("Der Garten ist grün."), Context("A shed.", "S")
ROWS = [
    Row("1", "Wie ist das Haus?", (Answer("rot", 13),), (HOUSE,), (GARDEN,), (SHED,), language="de"),
    Row("2", "Wie ist der Garten?", (), (GARDEN, HOUSE), language="de"),
    Row("3", "Wieso?", (Answer("rot"),), (), (HOUSE,)),
]


def test_every_context_once(tmp_path: Path, fakes: ModuleType) -> None:
    with Workspace(tmp_path, SIZE) as workspace:
        assert workspace.add_rows(ROWS) == 3
        assert workspace.add_rows(ROWS) == 0
        encoder = fakes.FakeEncoder()
        found = workspace.passages(encoder)
        assert len(found) == len(encoder.encoded) == 3
        assert sorted(found.texts) == ["A shed.", "Das Haus ist rot. 🧾", "Der Garten ist grün."]
        assert set(found.inputs) == set(encoder.encoded)
        assert (np.diff(found.rows) > 0).all()
        np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
        searcher = Searcher(workspace.index(encoder), encoder, alpha=0.5)
        assert searcher.search("Garten", limit=1)[0].text == GARDEN.text
        first = workspace.index(encoder)
    with Workspace(tmp_path, SIZE) as again:
        another = fakes.FakeEncoder()
        assert again.index(another).revision == first.revision
        assert another.encoded == []
        assert len(list((tmp_path / "generations").iterdir())) == 1
        again.add_rows([Row("4", "?", (), (Context("New."),))])
        assert len(again.index(another)) == 4
        assert len(another.encoded) == 1


def test_labels(tmp_path: Path) -> None:
    house, garden = (document_id(source_of_context(text)) for text in (HOUSE, GARDEN))
    with Workspace(tmp_path, SIZE) as workspace:
        assert workspace.labels(ROWS) == {
            "0": [Label(house, 13, 16)],
            "1": [Label(garden, 0, len(GARDEN.text), share=0.0), Label(house, 0, len(HOUSE.text), share=0.0)],
        }


def test_sources_tell_contexts_apart() -> None:
    texts = [Context("a", "b"), Context("b", "a"), Context("a"), Context("", "a"), Context("a", "b c"), Context("a", "b/c")]
    assert len({source_of_context(text) for text in texts}) == len(texts)
    assert source_of_context(Context("a", "x" * 500)) != source_of_context(Context("a", "x" * 501))
    assert source_of_context(texts[2]).startswith("context#")
    assert "/" not in source_of_context(texts[5])


def test_files_lie_among_them(tmp_path: Path, fakes: ModuleType) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.md").write_text("# Lager\n\nDas Lager ist kalt.\n", encoding="utf-8")
    (files / "b.pdf").write_bytes(b"no pdf at all")
    with Workspace(tmp_path / "w", SIZE) as workspace:
        problems = workspace.add_files([files, tmp_path / "missing"])
        assert sorted(problem.source.rpartition("/")[2] for problem in problems) == ["b.pdf", "missing"]
        workspace.add_rows(ROWS)
        assert any("Lager ist kalt" in text for text in workspace.passages(fakes.FakeEncoder()).texts)
        assert len(workspace.add_files([files])) == 1


def test_nothing_to_search(tmp_path: Path, fakes: ModuleType) -> None:
    with Workspace(tmp_path, SIZE) as workspace, pytest.raises(StoreError, match="no text"):
        workspace.passages(fakes.FakeEncoder())
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        Workspace(tmp_path / "file", SIZE)
