"""What titles and headings weigh in a keyword score, by hand; and that the settings reach the engine that they name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from retriever.errors import SettingsError
from retriever.index.base import Formula, Index
from retriever.index.embedded import EmbeddedGenerations
from retriever.index.engines import open_generations
from retriever.schema import Chunk
from retriever.search import Searcher
from retriever.settings import Settings
from retriever.store import Entry, IndexedChunk, Store

TERMS = ["de:hotel", "de:reis", "de:bahn"]


@pytest.fixture
def filled(store: Store, fakes: ModuleType) -> Store:
    """Three documents of which each says the words at another place, and many that say other things."""
    encoder = fakes.FakeEncoder()
    rows = [
        ("Reisen", ("Die Bahn",), "Hotel und Auto"),
        ("Autos", ("Reisen mit dem Hotel",), "Bahn Bahn Bahn"),
        ("Hotel Hotel Reisen", (), "Auto"),
        *(
            (f"Blatt {number}", ("Übersicht", f"Teil {number % 3}"), f"Hotel und Auto {number} " * (number % 4))
            for number in range(9)
        ),
    ]
    for number, (title, headings, text) in enumerate(rows):
        document = fakes.document(f"d{number:02}", text or "nichts", title=title)
        chunk = Chunk(document.id, 0, len(document.text), document.text, headings)
        terms = [f"de:{word}" for word in document.text.lower().split()]
        vectors = {str(number): encoder.encode_query(document.text)}
        item = IndexedChunk(chunk, terms, str(number))
        store.put(document, [item], loader="1", chunking=fakes.STAMP.chunking, encoder="fake-1", vectors=vectors)
    return store


def bm25(fields: Sequence[str], terms: Sequence[str]) -> list[float]:
    """Robertson and Zaragoza's formula as in `test_index.py`, over the chunks' texts in one field."""
    bags = [Counter(field.split()) for field in fields]
    length = sum(bag.total() for bag in bags) / len(bags)
    scores = []
    for bag in bags:
        score = 0.0
        for term in terms:
            having = sum(term in other for other in bags)
            idf = math.log(1 + (len(bags) - having + 0.5) / (having + 0.5))
            score += idf * bag[term] * 2.2 / (bag[term] + 1.2 * (0.25 + 0.75 * bag.total() / length))
        scores.append(score)
    return scores


def open_index(store: Store, folder: Path, fakes: ModuleType, formula: Formula | None) -> Index:
    generations = EmbeddedGenerations(store, folder, formula=formula)
    return generations.open(generations.build(fakes.STAMP, "fake-1", dimensions=32))


def entries(store: Store, fakes: ModuleType) -> list[Entry]:
    return list(store.entries(store.current(store.revision()), chunking=fakes.STAMP.chunking, encoder="fake-1"))


@pytest.mark.parametrize(
    "formula", [None, Formula(), Formula(title=1.5), Formula(headings=0.25), Formula(title=2.0, headings=3.0)]
)
@pytest.mark.parametrize("depth", [2, 100])
def test_the_weighted_sum_by_hand(
    filled: Store, tmp_path: Path, fakes: ModuleType, formula: Formula | None, depth: int
) -> None:
    rows = entries(filled, fakes)
    assert sum("de:reis" in entry.title_terms for entry in rows) == 2
    assert sum("de:bahn" in entry.heading_terms for entry in rows) == 1
    weights = formula or Formula()
    expected = {
        entry.row: terms + weights.title * title + weights.headings * headings
        for entry, terms, title, headings in zip(
            rows,
            bm25([entry.terms for entry in rows], TERMS),
            bm25([entry.title_terms for entry in rows], TERMS),
            bm25([entry.heading_terms for entry in rows], TERMS),
            strict=True,
        )
    }
    index = open_index(filled, tmp_path / "index", fakes, formula)
    # A shallow search finds some by their vectors only: their keyword scores are looked up, and are the same.
    found = index.candidates(vector=np.ones(32, "f4"), terms=TERMS, depth=depth, filters={})
    assert len(found) >= depth or len(found) == len(rows)
    for candidate in found:
        assert candidate.keyword == pytest.approx(expected[candidate.row], rel=1e-4, abs=1e-6)
    best = sorted(expected.values(), reverse=True)[:depth]
    keywords = sorted((candidate.keyword or 0.0 for candidate in found), reverse=True)
    assert keywords[: len(best)] == pytest.approx(best, rel=1e-4, abs=1e-6)


def test_a_weight_changes_the_order(filled: Store, tmp_path: Path, fakes: ModuleType) -> None:
    def first(formula: Formula) -> str:
        index = open_index(filled, tmp_path / "index", fakes, formula)
        return Searcher(index, fakes.FakeEncoder(), alpha=0.5).search("Reisen", mode="keyword")[0].source

    assert first(Formula(title=5.0)) in ("d00", "d02")
    assert first(Formula(headings=5.0)) == "d01"


def test_filters_change_no_weighted_score(filled: Store, tmp_path: Path, fakes: ModuleType) -> None:
    index = open_index(filled, tmp_path / "index", fakes, Formula(title=2.0, headings=3.0))
    asked = {"vector": None, "terms": TERMS, "depth": 100}
    plain = {candidate.row: candidate.keyword for candidate in index.candidates(**asked, filters={})}  # type: ignore[arg-type]
    (only,) = index.candidates(**asked, filters={"source": ["d01"]})  # type: ignore[arg-type]
    assert only.keyword == pytest.approx(plain[only.row], rel=1e-6)


class TestSettings:
    def test_weights_reach_the_embedded_engine(self, filled: Store, tmp_path: Path, fakes: ModuleType) -> None:
        def scores(**weights: float) -> list[float | None]:
            generations = open_generations(Settings(data_dir=tmp_path, **weights), filled)  # type: ignore[arg-type]
            index = generations.open(generations.build(fakes.STAMP, "fake-1", dimensions=32))
            found = index.candidates(vector=None, terms=["de:reis"], depth=9, filters={})
            return [candidate.keyword for candidate in sorted(found, key=lambda candidate: candidate.row)]

        assert scores() == []  # it stands in titles and headings only
        assert len(scores(title_boost=1.0)) == 2
        assert len(scores(title_boost=1.0, heading_boost=0.5)) == 3
        assert (tmp_path / "generations").is_dir()

    def test_elasticsearch_is_not_asked_when_opened(self, store: Store, tmp_path: Path) -> None:
        chosen = Settings(data_dir=tmp_path, index="elasticsearch", elasticsearch_url="http://127.0.0.1:1")
        assert type(open_generations(chosen, store)).__name__ == "ElasticGenerations"

    def test_settings_that_contradict_each_other(self, store: Store, tmp_path: Path) -> None:
        chosen = Settings(data_dir=tmp_path, index="elasticsearch").model_dump()
        given = {"elasticsearch_username": "a", "elasticsearch_password": "b", "elasticsearch_api_key": "c"}
        with pytest.raises(SettingsError, match="elasticsearch_api_key"):
            open_generations(Settings.model_validate({**chosen, **given}), store)


def test_weights_do_not_touch_what_is_stored(filled: Store, tmp_path: Path, fakes: ModuleType) -> None:
    """They are weighed when searching: the same generation serves any."""
    plain = EmbeddedGenerations(filled, tmp_path / "index")
    built = plain.build(fakes.STAMP, "fake-1", dimensions=32)
    weighted = EmbeddedGenerations(filled, tmp_path / "index", formula=replace(Formula(), title=1.0))
    assert weighted.shows_all(built)
    found = [g.open(built).candidates(vector=None, terms=["de:reis"], depth=9, filters={}) for g in (plain, weighted)]
    assert [len(candidates) for candidates in found] == [0, 2]
