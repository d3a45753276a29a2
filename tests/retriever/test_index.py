"""What every index engine must do, asked of each; then what only the embedded one promises."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retriever.analyze import analyze_query
from retriever.errors import IndexMissing, QueryError, StoreError, SwapLost
from retriever.index.base import Candidate, Formula, Generation, Generations, Index, Stamp
from retriever.index.elastic.client import connect
from retriever.index.elastic.generations import ElasticGenerations
from retriever.index.elastic.search import SearchOptions
from retriever.index.embedded import EmbeddedGenerations
from retriever.schema import Document
from retriever.store import Store

MakeGenerations = Callable[..., tuple[Store, Generations]]
MakeIndex = Callable[..., Index]

WORDS = ["reise", "kosten", "beleg", "frist", "urlaub", "antrag", "auto", "bahn", "hotel", "essen"]


@pytest.fixture(params=["embedded", "elasticsearch"])
def make_generations(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fakes: ModuleType
) -> Iterator[MakeGenerations]:
    """Return a function that opens a new store and its generations in the engine in question, with exact vectors."""
    stores: list[Store] = []
    place = request.getfixturevalue("elastic_place") if request.param == "elasticsearch" else None
    client = connect(place[0]) if place else None

    def make(formula: Formula | None = None) -> tuple[Store, Generations]:
        folder = tmp_path_factory.mktemp("index")
        store = Store(folder)
        stores.append(store)
        if place is None or client is None:
            return store, EmbeddedGenerations(store, folder / "index", formula=formula)
        name = f"{place[1]}-{secrets.token_hex(4)}"
        options = SearchOptions(formula=formula or Formula())
        return store, ElasticGenerations(store, client, name=name, vectors="flat", options=options, remember_s=0)

    yield make
    for store in stores:
        store.close()
    if client:
        client.close()


@pytest.fixture
def make_index(make_generations: MakeGenerations, fakes: ModuleType) -> MakeIndex:
    """Return a function that indexes documents, a chunk for each line."""

    def make(documents: Sequence[Document], formula: Formula | None = None) -> Index:
        store, generations = make_generations(formula)
        for document in documents:
            fakes.put_lines(store, fakes.FakeEncoder(), document)
        return generations.open(generations.build(fakes.STAMP, "fake", dimensions=32))

    return make


def corpus(fakes: ModuleType, count: int = 30) -> list[Document]:
    """Return documents of four lines; which words stand in them follows from their numbers."""
    documents = []
    for number in range(count):
        lines = [" ".join(WORDS[(number * step + at) % len(WORDS)] for at in range(3 + step)) for step in range(1, 5)]
        language = "de" if number % 3 else "en"
        kind = {"kind": "pdf" if number % 2 else "html", "year": str(2020 + number % 4)}
        documents.append(fakes.document(f"d{number:02}", "\n".join(lines), language=language, metadata=kind))
    return documents


def by_row(candidates: Sequence[Candidate]) -> dict[int, Candidate]:
    rows = {candidate.row: candidate for candidate in candidates}
    assert len(rows) == len(candidates)
    return rows


class TestContract:
    def test_it_says_what_it_was_made_of(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        index = make_index(corpus(fakes))
        assert index.stamp == fakes.STAMP
        assert index.revision == 30
        assert index.languages == ("de", "en")

    @pytest.mark.parametrize("depth", [1, 5, 40, 1000])
    def test_the_dense_score_is_the_cosine(self, make_index: MakeIndex, fakes: ModuleType, depth: int) -> None:
        index, encoder = make_index(corpus(fakes)), fakes.FakeEncoder()
        vector = encoder.encode_query("reise kosten hotel")
        terms = analyze_query("reise kosten hotel", index.languages)
        found = by_row(index.candidates(vector=vector, terms=terms, depth=depth, filters={}))
        assert len(found) >= min(depth, 120)
        for row, passage in index.passages(list(found)).items():
            score = found[row].dense
            assert score is not None
            assert abs(score - float(encoder.encode_query(passage.text) @ vector)) < 1e-5

    def test_the_dense_side_finds_the_nearest(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        index, vector = make_index(corpus(fakes)), fakes.FakeEncoder().encode_query("bahn hotel")
        everything = index.candidates(vector=vector, terms=[], depth=1000, filters={})
        assert len(everything) == 120
        assert all(candidate.keyword is None for candidate in everything)
        best = sorted((candidate.dense or 0.0 for candidate in everything), reverse=True)
        found = index.candidates(vector=vector, terms=[], depth=10, filters={})
        scores = sorted((candidate.dense or 0.0 for candidate in found), reverse=True)
        assert np.allclose(scores, best[:10], atol=1e-6)

    def test_the_keyword_side_alone(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        index = make_index(corpus(fakes))
        found = by_row(index.candidates(vector=None, terms=["de:hotel"], depth=1000, filters={}))
        assert all(candidate.dense is None and (candidate.keyword or 0) > 0 for candidate in found.values())
        passages = index.passages(list(found))
        assert all("hotel" in passage.text and passage.language == "de" for passage in passages.values())
        everything = index.passages(
            [c.row for c in index.candidates(vector=np.ones(32, "f4"), terms=[], depth=999, filters={})]
        )
        assert len(found) == sum("hotel" in passage.text and passage.language == "de" for passage in everything.values())

    @pytest.mark.parametrize("depth", [1, 3, 10])
    def test_a_chunk_of_one_side_has_the_exact_score_of_the_other(
        self, make_index: MakeIndex, fakes: ModuleType, depth: int
    ) -> None:
        index = make_index(corpus(fakes))
        # The two sides are asked for different things, so that their lists have little in common.
        vector = fakes.FakeEncoder().encode_query("essen bahn")
        terms = analyze_query("reise kosten beleg frist essen", index.languages)
        plain = by_row(index.candidates(vector=None, terms=terms, depth=1000, filters={}))
        cosines = by_row(index.candidates(vector=vector, terms=[], depth=1000, filters={}))
        found = by_row(index.candidates(vector=vector, terms=terms, depth=depth, filters={}))
        best = {row for row in found if row in plain and found[row].dense}
        assert best
        for row, candidate in found.items():
            assert candidate.dense == pytest.approx(cosines[row].dense, abs=1e-6)
            assert candidate.keyword == pytest.approx(plain[row].keyword if row in plain else 0.0, rel=1e-6)
        by_dense = set(by_row(index.candidates(vector=vector, terms=[], depth=depth, filters={})))
        by_words = set(by_row(index.candidates(vector=None, terms=terms, depth=depth, filters={})))
        assert set(found) == by_dense | by_words
        assert any((found[row].keyword or 0) > 0 for row in by_dense - by_words)

    def test_filters_hold_before_the_search_on_both_sides(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        index = make_index(corpus(fakes))
        vector, terms = fakes.FakeEncoder().encode_query("hotel"), ["de:hotel", "en:hotel"]
        filters = {"year": ["2021", "2023"], "kind": ["pdf"]}
        # A depth below the number of better chunks that do not pass: filtered afterwards, these would be too few.
        for side in ({"vector": vector, "terms": []}, {"vector": None, "terms": terms}):
            found = by_row(index.candidates(**side, depth=6, filters=filters))
            assert len(found) == 6
            sources = {passage.source for passage in index.passages(list(found)).values()}
            assert all(int(source[1:]) % 2 and int(source[1:]) % 4 in (1, 3) for source in sources)

    def test_filters_change_no_score(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        index = make_index(corpus(fakes))
        vector, terms = fakes.FakeEncoder().encode_query("hotel"), ["de:hotel", "en:hotel"]
        plain = by_row(index.candidates(vector=vector, terms=terms, depth=1000, filters={}))
        found = by_row(index.candidates(vector=vector, terms=terms, depth=1000, filters={"kind": ["pdf"]}))
        assert 0 < len(found) < len(plain)
        for row, candidate in found.items():
            assert candidate.dense == pytest.approx(plain[row].dense, abs=1e-6)
            assert candidate.keyword == pytest.approx(plain[row].keyword, rel=1e-6)

    @pytest.mark.parametrize(
        ("filters", "sources"),
        [
            ({"document": ["{id}"]}, {"d07"}),
            ({"source": ["d07", "d08", "nobody"]}, {"d07", "d08"}),
            ({"title": ["d09"]}, {"d09"}),
            ({"language": ["en"], "source": ["d06", "d07"]}, {"d06"}),
            ({"language": ["fr"]}, set()),
            ({"language": []}, set()),
            ({"kind": ["pdf"], "source": ["d06"]}, set()),
        ],
    )
    def test_what_documents_can_be_filtered_by(
        self, make_index: MakeIndex, fakes: ModuleType, filters: dict[str, list[str]], sources: set[str]
    ) -> None:
        index = make_index(corpus(fakes))
        filled = {key: [value.replace("{id}", fakes.document("d07").id) for value in values] for key, values in filters.items()}
        terms = [f"{language}:{word}" for language in ("de", "en") for word in WORDS]
        for side in ({"vector": np.ones(32, "f4"), "terms": []}, {"vector": None, "terms": terms}):
            found = by_row(index.candidates(**side, depth=500, filters=filled))
            assert {passage.source for passage in index.passages(list(found)).values()} == sources

    def test_an_unknown_filter_is_refused(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        index = make_index(corpus(fakes))
        with pytest.raises(QueryError, match="“colour” to filter by") as caught:
            index.candidates(vector=None, terms=["de:hotel"], depth=5, filters={"colour": ["red"]})
        assert caught.value.way_out == "Known: document, kind, language, source, title, year."
        with pytest.raises(QueryError):
            index.candidates(vector=None, terms=["de:hotel"], depth=5, filters={"revision": ["1"]})

    def test_an_empty_index_finds_nothing(self, make_index: MakeIndex) -> None:
        index = make_index([])
        assert index.languages == ()
        assert index.candidates(vector=np.ones(32, "f4"), terms=["de:hotel"], depth=5, filters={"any": ["x"]}) == []

    def test_documents_without_chunks(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        index = make_index([fakes.document("leer", ""), fakes.document("a", "hotel"), fakes.document("auch", "")])
        found = index.candidates(vector=np.ones(32, "f4"), terms=["de:hotel"], depth=5, filters={"source": ["a", "leer"]})
        assert [index.passages([candidate.row])[candidate.row].text for candidate in found] == ["hotel"]

    def test_terms_that_occur_nowhere(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        index = make_index(corpus(fakes))
        assert index.candidates(vector=None, terms=["de:xyz"], depth=5, filters={}) == []
        assert index.candidates(vector=None, terms=[], depth=5, filters={}) == []
        found = index.candidates(vector=np.ones(32, "f4"), terms=["de:xyz"], depth=5, filters={})
        assert [candidate.keyword for candidate in found] == [0.0] * 5

    def test_a_language_meets_its_own_documents_only(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        index = make_index([fakes.document("e", "gift", language="en"), fakes.document("d", "Gift", language="de")])
        found = index.candidates(vector=None, terms=["en:gift"], depth=5, filters={})
        assert [index.passages([candidate.row])[candidate.row].source for candidate in found] == ["e"]

    def test_long_terms_and_odd_characters_are_terms(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        number = "DE" + "1234567890" * 30
        index = make_index([fakes.document("a", f"Konto {number}"), fakes.document("b", "§ 12a 😀 ÄÖÜ/2024")])
        for query, source in [(number, "a"), ("§12a", "b"), ("äöü/2024", "b")]:
            found = index.candidates(vector=None, terms=analyze_query(query, ["de"]), depth=5, filters={})
            assert [index.passages([candidate.row])[candidate.row].source for candidate in found] == [source]

    def test_the_same_documents_give_the_same_answer(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        vector, terms = fakes.FakeEncoder().encode_query("hotel auto"), ["de:hotel", "de:auto", "en:auto"]
        # Every document twice: all scores are tied, and depth cuts through the ties.
        documents = corpus(fakes) + [fakes.document(f"copy {item.source}", item.text) for item in corpus(fakes)]
        first, second = (make_index(documents).candidates(vector=vector, terms=terms, depth=7, filters={}) for _ in range(2))
        assert by_row(first) == by_row(second)

    def test_it_hands_out_passages_and_documents(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        made = fakes.document("a", "hotel\n\nauto 😀", metadata={"": "leer", "a.b": "c", "a": "ä"})
        empty = fakes.document("leer")
        index = make_index([made, empty])
        candidates = index.candidates(vector=np.ones(32, "f4"), terms=[], depth=5, filters={})
        passages = index.passages([*(candidate.row for candidate in candidates), 999])
        assert [passages[row].text for row in sorted(passages)] == ["hotel", "auto 😀"]
        assert [passages[row].after for row in sorted(passages)] == ["\n\n", ""]
        for candidate in candidates:
            assert candidate.passage in (None, passages[candidate.row])
        for passage in passages.values():
            assert index.document(passage.document, passage.revision) == made
        assert index.document(empty.id, 2) == empty
        assert index.document(made.id, 3) is None

    def test_titles_and_headings_count_more_where_the_formula_says_so(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        documents = [fakes.document("a", "hotel", title="Reise"), fakes.document("b", "hotel reise", title="Bahn")]

        def scores(formula: Formula) -> list[float]:
            index = make_index(documents, formula)
            found = by_row(index.candidates(vector=np.ones(32, "f4"), terms=["de:hotel", "de:reis"], depth=5, filters={}))
            return [found[row].keyword or 0.0 for row in sorted(found)]

        plain, weighted = scores(Formula()), scores(Formula(title=3.0, headings=2.0))
        assert weighted[1] == pytest.approx(plain[1])
        # One of two titles has the term: its idf is log 2, and its length is the average.
        assert weighted[0] == pytest.approx(plain[0] + 3 * math.log(2), rel=1e-4)

    def test_a_question_of_thousands_of_words(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        index = make_index(corpus(fakes), Formula(title=1.0, headings=1.0))
        terms = ["de:hotel", *(f"de:wort{number}" for number in range(5000))]
        vector = fakes.FakeEncoder().encode_query("hotel")
        filters = {"source": [f"d{number:02}" for number in range(3000)]}
        assert len(index.candidates(vector=vector, terms=terms, depth=5, filters=filters)) >= 5

    def test_a_filter_s_key_and_value_do_not_run_together(self, make_index: MakeIndex, fakes: ModuleType) -> None:
        index = make_index(
            [
                fakes.document("one", "hotel", metadata={"a": "b=c"}),
                fakes.document("two", "hotel", metadata={"a=b": "c"}),
            ]
        )
        found = index.candidates(vector=None, terms=["de:hotel"], depth=5, filters={"a": ["b=c"]})
        assert [index.passages([candidate.row])[candidate.row].source for candidate in found] == ["one"]

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_a_filter_finds_exactly_what_passes(self, make_index: MakeIndex, fakes: ModuleType, data: st.DataObject) -> None:
        keys = st.sampled_from(["a", "b", "a=b", "Ä ö", ""])
        values = st.sampled_from(["", "x", "y", "b=x", "X", "x y", "ß"]) | st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5
        )
        metadata = data.draw(st.lists(st.dictionaries(keys, values, max_size=3), min_size=1, max_size=12))
        documents = [fakes.document(f"d{at}", f"hotel {at}", metadata=own) for at, own in enumerate(metadata)]
        index = make_index(documents)
        known = sorted({key for own in metadata for key in own})
        for _ in range(3):
            wanted = st.dictionaries(st.sampled_from(known), st.lists(values, max_size=3), max_size=2) if known else st.just({})
            filters = data.draw(wanted)
            expected = {
                f"d{at}" for at, own in enumerate(metadata) if all(own.get(key) in some for key, some in filters.items())
            }
            for side in ({"vector": np.ones(32, "f4"), "terms": []}, {"vector": None, "terms": ["de:hotel"]}):
                found = by_row(index.candidates(**side, depth=50, filters=filters))
                assert {passage.source for passage in index.passages(list(found)).values()} == expected


class TestDates:
    """Ranges of dates, beside the values that are meant exactly."""

    DAYS = ("2023-12-31", "2024-01-01", "2024-06-30", "2024-12-31", "2025-01-01", "2024", "Herbst 2024", "")

    @pytest.fixture
    def dated(self, make_index: MakeIndex, fakes: ModuleType) -> Index:
        """An index of a document for each of the days, named after it, and of one without any."""
        made = [fakes.document(f"d {day}", "hotel", metadata={"date": day, "kind": "pdf"}) for day in self.DAYS]
        return make_index([*made, fakes.document("undated", "hotel", metadata={"kind": "2024-06-30"})])

    @pytest.mark.parametrize(
        ("values", "found"),
        [
            (["2024-01-01..2024-12-31"], {"2024-01-01", "2024-06-30", "2024-12-31"}),
            (["2024-06-30..2024-06-30"], {"2024-06-30"}),
            (["2024-07-01.."], {"2024-12-31", "2025-01-01"}),
            (["..2024-01-01"], {"2023-12-31", "2024-01-01", "2024"}),
            (["..2023-01-01", "2025-01-01.."], {"2025-01-01"}),
            (["2023-12-31", "2024-12-01.."], {"2023-12-31", "2024-12-31", "2025-01-01"}),
            (["2026-01-01..2026-12-31"], set()),
            (["2024-06-30"], {"2024-06-30"}),
            (["Herbst 2024"], {"Herbst 2024"}),
        ],
    )
    def test_both_sides_find_what_is_within(self, dated: Index, values: list[str], found: set[str]) -> None:
        for side in ({"vector": np.ones(32, "f4"), "terms": []}, {"vector": None, "terms": ["de:hotel"]}):
            rows = by_row(dated.candidates(**side, depth=50, filters={"date": values}))
            assert {passage.source.removeprefix("d ") for passage in dated.passages(list(rows)).values()} == found

    def test_with_another_filter(self, dated: Index) -> None:
        filters = {"date": ["2024-01-01.."], "kind": ["html"]}
        assert dated.candidates(vector=np.ones(32, "f4"), terms=["de:hotel"], depth=50, filters=filters) == []

    def test_only_dates_have_ranges(self, dated: Index) -> None:
        filters = {"kind": ["2024-01-01..2024-12-31"]}
        assert dated.candidates(vector=np.ones(32, "f4"), terms=["de:hotel"], depth=50, filters=filters) == []

    @pytest.mark.parametrize(
        "value",
        ["..", "2024..", "2024-01-01..2024-13-01", "2024-02-30..", "20240101..20241231", "2024-W01-1..", "gestern..heute",
         "2024-01-01...2024-02-01", "2024-01-01..2024-02-01..2024-03-01", "2024-12-31..2024-01-01", " 2024-01-01..",
         "٢٠٢٤-01-01.."],
    )  # fmt: skip
    def test_a_malformed_range_is_refused(self, dated: Index, value: str) -> None:
        for side in ({"vector": np.ones(32, "f4"), "terms": []}, {"vector": None, "terms": ["de:hotel"]}):
            with pytest.raises(QueryError):
                dated.candidates(**side, depth=50, filters={"date": ["2024-06-30", value]})


class TestGenerations:
    def test_a_document_is_given_as_it_is_now(self, make_generations: MakeGenerations, fakes: ModuleType) -> None:
        store, generations = make_generations()
        names = {name: fakes.document(name).id for name in "abc"}
        assert (generations.revision(), generations.document(names["a"])) == (0, None)
        put = [fakes.document("a", "hotel\nbahn", title="Alt"), fakes.document("b", "bahn")]
        for document in put:
            fakes.put_lines(store, fakes.FakeEncoder(), document)
        first = generations.build(fakes.STAMP, "one", dimensions=32)
        generations.swap(first, expected=None, keep=False)
        assert [generations.document(names[name]) for name in "abc"] == [*put, None]
        before = generations.revision()
        changed = fakes.document("a", "hotel\nessen", title="Neu")
        fakes.put_lines(store, fakes.FakeEncoder(), changed)
        store.remove("b")
        second = generations.update(first)
        generations.swap(second, expected=first, keep=False)
        assert [generations.document(names[name]) for name in "abc"] == [changed, None, None]
        assert generations.revision() == store.revision() > before

    def test_none_at_first(self, make_generations: MakeGenerations, fakes: ModuleType) -> None:
        _, generations = make_generations()
        assert generations.live() is None
        assert generations.previous() is None
        generations.forget_previous()
        generations.collect(building=None)

    def test_a_swap_and_the_way_back(self, make_generations: MakeGenerations, fakes: ModuleType) -> None:
        store, generations = make_generations()
        fakes.put_lines(store, fakes.FakeEncoder(), fakes.document("a", "hotel"))
        first = generations.build(fakes.STAMP, "one", dimensions=32)
        assert generations.live() is None
        generations.swap(first, expected=None, keep=False)
        assert (generations.live(), generations.previous()) == (first, None)
        fakes.put_lines(store, fakes.FakeEncoder(), fakes.document("b", "hotel"))
        second = generations.build(fakes.STAMP, "two", dimensions=32)
        generations.swap(second, expected=first, keep=True)
        assert (generations.live(), generations.previous()) == (second, first)
        # Back and forth again, as a rollback does.
        generations.swap(first, expected=second, keep=True)
        assert (generations.live(), generations.previous()) == (first, second)
        generations.swap(second, expected=first, keep=True)
        third = generations.build(fakes.STAMP, "three", dimensions=32)
        generations.swap(third, expected=second, keep=False)
        assert (generations.live(), generations.previous()) == (third, first)
        generations.collect(building=None)
        with pytest.raises(IndexMissing):
            generations.open(second)
        assert generations.open(first).languages == ("de",)
        generations.forget_previous()
        assert (generations.live(), generations.previous()) == (third, None)
        generations.collect(building=None)
        with pytest.raises(IndexMissing):
            generations.open(first)
        assert generations.open(third).revision == 2

    def test_nothing_keeps_it_from_publishing_what_it_has_made(
        self, make_generations: MakeGenerations, fakes: ModuleType
    ) -> None:
        store, generations = make_generations()
        assert generations.place
        generations.check()
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        generations.swap(built, expected=None, keep=False)
        generations.check()
        fakes.put_lines(store, fakes.FakeEncoder(), fakes.document("a", "hotel"))
        generations.check()
        assert generations.examine()
        assert generations.live(fresh=True) == built

    def test_a_swap_that_somebody_else_has_won(self, make_generations: MakeGenerations, fakes: ModuleType) -> None:
        _, generations = make_generations()
        first, second, third = (generations.build(fakes.STAMP, name, dimensions=32) for name in "abc")
        generations.swap(first, expected=None, keep=False)
        with pytest.raises(SwapLost):
            generations.swap(second, expected=None, keep=False)
        with pytest.raises(SwapLost):
            generations.swap(second, expected=third, keep=True)
        assert (generations.live(), generations.previous()) == (first, None)

    def test_what_is_being_built_is_not_collected(self, make_generations: MakeGenerations, fakes: ModuleType) -> None:
        _, generations = make_generations()
        other = Stamp("fake-1", "lines", "other")
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        doomed = generations.build(other, "a", dimensions=32)
        generations.collect(building=fakes.STAMP)
        assert generations.open(built).stamp == fakes.STAMP
        with pytest.raises(IndexMissing):
            generations.open(doomed)

    def test_verifying(self, make_generations: MakeGenerations, fakes: ModuleType) -> None:
        store, generations = make_generations()
        for document in corpus(fakes, 5):
            fakes.put_lines(store, fakes.FakeEncoder(), document)
        built = generations.build(fakes.STAMP, "a", dimensions=32)
        generations.verify(built)
        assert generations.shows_all(built)
        assert store.remove("d01")
        assert not generations.shows_all(built)
        built = generations.update(built)
        assert generations.shows_all(built)
        generations.verify(built)
        with pytest.raises(IndexMissing):
            generations.verify(Generation("nobody", fakes.STAMP, "a"))
        assert not generations.shows_all(Generation("nobody", fakes.STAMP, "a"))

    def test_an_earlier_revision_may_be_asked_for(self, make_generations: MakeGenerations, fakes: ModuleType) -> None:
        store, generations = make_generations()

        def sources(generation: Generation) -> set[str]:
            index = generations.open(generation)
            found = index.candidates(vector=np.ones(32, "f4"), terms=[], depth=50, filters={})
            return {passage.source for passage in index.passages([one.row for one in found]).values()}

        for source in "abc":
            fakes.put_lines(store, fakes.FakeEncoder(), fakes.document(source, "hotel"))
        assert store.remove("a")
        built = generations.build(fakes.STAMP, "a", dimensions=32, revision=2)
        assert (sources(built), generations.open(built).revision) == ({"a", "b"}, 2)
        generations.verify(built)
        updated = generations.update(built, revision=3)
        assert (sources(updated), generations.shows_all(updated)) == ({"a", "b", "c"}, False)
        generations.verify(updated)
        updated = generations.update(updated)
        assert (sources(updated), generations.shows_all(updated)) == ({"b", "c"}, True)

    def test_a_generation_without_its_vectors_is_not_built(self, make_generations: MakeGenerations, fakes: ModuleType) -> None:
        store, generations = make_generations()
        fakes.put_lines(store, fakes.FakeEncoder(), fakes.document("a", "hotel"))
        with pytest.raises(StoreError, match="no vector"):
            generations.build(Stamp("another", "lines", fakes.STAMP.analyser), "a", dimensions=32)

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        rounds=st.lists(
            st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["", "hotel", "hotel\nauto", None])), max_size=5),
            min_size=1,
            max_size=4,
        )
    )
    def test_it_shows_exactly_what_the_store_holds(
        self, make_generations: MakeGenerations, fakes: ModuleType, rounds: list[list[tuple[str, str | None]]]
    ) -> None:
        store, generations = make_generations()
        encoder = fakes.FakeEncoder()
        live = generations.build(fakes.STAMP, "a", dimensions=32)
        for changes in rounds:
            for source, text in changes:
                if text is None:
                    store.remove(source)
                else:
                    fakes.put_lines(store, encoder, fakes.document(source, text, metadata={f"key {source}": "x"}))
            live = generations.update(live)
            index = generations.open(live)
            assert index.revision == store.revision()
            assert (index.languages, generations.shows_all(live)) == (store.vocabulary(store.revision())[0], True)
            generations.verify(live)
            entries = list(store.entries(store.current(store.revision()), chunking=fakes.STAMP.chunking, encoder="fake-1"))
            expected = {entry.row: (entry.passage, float(entry.vector.sum())) for entry in entries}
            found = by_row(index.candidates(vector=np.ones(32, "f4"), terms=["de:hotel"], depth=100, filters={}))
            passages = index.passages(list(found))
            assert {row: passages[row] for row in found} == {row: passage for row, (passage, _) in expected.items()}
            for row, candidate in found.items():
                assert ((candidate.keyword or 0) > 0) == ("hotel" in passages[row].text)
            for key in sorted({f"key {passage.source}" for passage, _ in expected.values()}):
                inside = index.candidates(vector=np.ones(32, "f4"), terms=[], depth=100, filters={key: ["x"]})
                assert {passages[one.row].source for one in inside} == {key[-1]}


class TestKeywordScores:
    def test_they_are_bm25(self, make_generations: MakeGenerations, fakes: ModuleType) -> None:
        """Robertson and Zaragoza's formula with k1 1.2 and b 0.75, and Lucene's idf, which is never negative."""
        store, generations = make_generations()
        for document in corpus(fakes, 5):
            fakes.put_lines(store, fakes.FakeEncoder(), document)
        index = generations.open(generations.build(fakes.STAMP, "a", dimensions=32))
        entries = store.entries(store.current(5), chunking=fakes.STAMP.chunking, encoder="fake-1")
        bags = {entry.row: Counter(entry.terms.split()) for entry in entries}
        length = sum(bag.total() for bag in bags.values()) / len(bags)
        terms = ["de:hotel", "de:auto", "en:auto"]
        candidates = index.candidates(vector=np.ones(32, "f4"), terms=terms, depth=100, filters={})
        assert len(candidates) == len(bags) == 20
        for candidate in candidates:
            expected = 0.0
            bag = bags[candidate.row]
            for term in terms:
                having = sum(term in other for other in bags.values())
                idf = math.log(1 + (len(bags) - having + 0.5) / (having + 0.5))
                expected += idf * bag[term] * 2.2 / (bag[term] + 1.2 * (0.25 + 0.75 * bag.total() / length))
            assert candidate.keyword == pytest.approx(expected, rel=1e-4)


class TestEmbedded:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "index"

    @pytest.fixture
    def generations(self, store: Store, folder: Path, fakes: ModuleType) -> EmbeddedGenerations:
        for document in corpus(fakes, 5):
            fakes.put_lines(store, fakes.FakeEncoder(), document)
        return EmbeddedGenerations(store, folder)

    @pytest.fixture
    def built(self, generations: EmbeddedGenerations, fakes: ModuleType) -> Generation:
        return generations.build(fakes.STAMP, "a", dimensions=32)

    def test_each_file_is_needed_whole(self, generations: EmbeddedGenerations, folder: Path, built: Generation) -> None:
        files = [path for path in sorted((folder / built.name).rglob("*")) if path.is_file() and not path.name.startswith(".")]
        assert len(files) > 8
        for file in files:
            whole = file.read_bytes()
            for size in (0, len(whole) // 2, len(whole) - 1):
                file.write_bytes(whole[:size])
                with pytest.raises(IndexMissing, match="cannot be read"):
                    generations.open(built)
            file.unlink()
            with pytest.raises(IndexMissing, match="cannot be read"):
                generations.open(built)
            file.write_bytes(whole)
        assert len(generations.open(built)) == 20

    def test_a_generation_that_is_not_there(self, generations: EmbeddedGenerations, fakes: ModuleType) -> None:
        with pytest.raises(IndexMissing) as caught:
            generations.open(Generation("nobody", fakes.STAMP, "a"))
        assert caught.value.way_out == "Run `beleg index`."

    def test_an_open_generation_survives_its_deletion(
        self, generations: EmbeddedGenerations, folder: Path, built: Generation
    ) -> None:
        index = generations.open(built)
        asked = {"vector": np.ones(32, "f4"), "terms": ["de:hotel"], "depth": 10, "filters": {"kind": ["pdf"]}}
        before = index.candidates(**asked)
        shutil.rmtree(folder)
        assert index.candidates(**asked) == before

    def test_leftovers_are_dropped(self, generations: EmbeddedGenerations, folder: Path, built: Generation) -> None:
        generations.swap(built, expected=None, keep=False)
        (folder / ".000000009-abc.partial" / "terms").mkdir(parents=True)
        (folder / "000000001-old").mkdir()
        (folder / "note.txt").touch()
        generations.collect(building=None)
        assert sorted(path.name for path in folder.iterdir()) == [built.name, "note.txt"]

    def test_a_build_that_fails_leaves_nothing(self, generations: EmbeddedGenerations, folder: Path, built: Generation) -> None:
        stamp = Stamp("another", built.stamp.chunker, built.stamp.analyser)
        with pytest.raises(StoreError, match="no vector"):
            generations.build(stamp, "a", dimensions=32)
        assert [path.name for path in folder.iterdir()] == [built.name]

    def test_a_folder_that_cannot_be_made(self, store: Store, tmp_path: Path, fakes: ModuleType) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreError, match="could not be written"):
            EmbeddedGenerations(store, tmp_path / "file").build(fakes.STAMP, "a", dimensions=32)

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on file sizes")
    def test_a_full_disk_is_an_error_whoever_meets_it(self, tmp_path: Path) -> None:
        """Of the limits, the first ones stop tantivy, the next NumPy and the vectors of FAISS, the last one nobody."""
        program = (
            "import random, resource, sys; from pathlib import Path\n"
            "from fakes import STAMP, FakeEncoder, document, put_lines\n"
            "from retriever.errors import StoreError; from retriever.index.embedded import EmbeddedGenerations\n"
            "from retriever.store import Store\n"
            "folder = Path(sys.argv[1]); store, index = Store(folder), folder / 'index'\n"
            "generations = EmbeddedGenerations(store, index)\n"
            "lines = [f'Zeile {number} {random.random()}' for number in range(3000)]\n"
            "put_lines(store, FakeEncoder(), document('a', '\\n'.join(lines)))\n"
            "for limit in [10_000, 60_000, 90_000, 150_000, 300_000, 10_000_000]:\n"
            "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
            "    try:\n"
            "        sys.stdout.write(f'built {generations.build(STAMP, str(), dimensions=32)}\\n')\n"
            "    except StoreError as error:\n"
            "        assert list(index.iterdir()) == []\n"
            "        sys.stdout.write(f'{error}\\n')\n"
        )
        paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
        command = [sys.executable, "-c", program, str(tmp_path)]
        said = subprocess.check_output(command, env={**os.environ, "PYTHONPATH": paths}, text=True).splitlines()
        assert len(said) == 6
        assert said[-1].startswith("built ")
        assert all(line.startswith("The index could not be written to ") for line in said[:-1])
        assert all(line.endswith("The one before it is still in use.") for line in said[:-1])

    def test_progress_counts_chunks(self, store: Store, folder: Path, fakes: ModuleType) -> None:
        fakes.put_lines(store, fakes.FakeEncoder(), fakes.document("a", "ja\n" * 10_500))
        told: list[int] = []
        EmbeddedGenerations(store, folder).build(fakes.STAMP, "a", dimensions=32, progress=told.append)
        assert told == [10_000]
