"""From query to passages: the modes, what may be asked, and neighbours joined into one passage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from retriever.analyze import ANALYSER
from retriever.chunk import passage_text
from retriever.encode import Vectors
from retriever.errors import IndexMismatch, ModelError, QueryError
from retriever.index.base import Candidate, Filters, Stamp
from retriever.index.embedded import EmbeddedGenerations
from retriever.rerank import CrossEncoderReranker, Reranker
from retriever.schema import GAP, Document
from retriever.search import DEFAULT_ALPHA, Searcher, clean_filters
from retriever.store import Passage, Store

OpenSearcher = Callable[..., Searcher]

IDENTIFIERS = [
    "Die Anlage DSH-2 steht in Halle Nord.",
    "Die Anlage DSH-3 steht in Halle Süd.",
    "Der Vertrag 12345 gilt für alle Anlagen.",
    "Der Vertrag 12346 gilt für keine Anlage und keine Halle.",
    "Nach § 12a wird der Vertrag gekündigt.",
    "Nach § 12 wird der Vertrag nicht gekündigt, auch nicht nach 12b.",
    "Der Betrag von 1.234,56 Euro wird nach Vertrag gezahlt.",
    "Schreiben Sie an anna@example.org wegen der Anlage.",
]


@pytest.fixture
def open_searcher(store: Store, tmp_path: Path, fakes: ModuleType) -> OpenSearcher:
    def index(
        documents: Sequence[Document],
        *,
        alpha: float | None = 0.5,
        spans: Sequence[tuple[int, int]] | None = None,
        reranker: Reranker | None = None,
    ) -> Searcher:
        encoder = fakes.FakeEncoder()
        for document in documents:
            fakes.put_lines(store, encoder, document, spans=spans)
        generations = EmbeddedGenerations(store, tmp_path / "index")
        built = generations.build(fakes.STAMP, "fake-1", dimensions=32)
        return Searcher(generations.open(built), encoder, alpha=alpha, reranker=reranker)

    return index


@pytest.fixture
def facts(open_searcher: OpenSearcher, fakes: ModuleType) -> Searcher:
    return open_searcher([fakes.document(f"d{number}", text) for number, text in enumerate(IDENTIFIERS)])


@pytest.mark.parametrize(
    ("query", "rank_one"),
    [
        ("DSH-2", 0),
        ("dsh-2", 0),
        ("DSH 2", 0),
        ("dsh2", 0),
        ("Wo steht die DSH-3?", 1),
        ("12345", 2),
        ("Was gilt nach Vertrag 12346?", 3),
        ("§ 12a", 4),
        ("§12a", 4),
        ("§ 12", 5),
        ("1.234,56", 6),
        ("anna@example.org", 7),
    ],
)
def test_identifiers_are_found_first(facts: Searcher, query: str, rank_one: int) -> None:
    hits = facts.search(query, mode="keyword")
    assert hits[0].source == f"d{rank_one}"
    assert len(hits) == 1 or hits[0].score > hits[1].score


def test_keyword_mode_returns_matches_only(facts: Searcher) -> None:
    assert {hit.source for hit in facts.search("Halle", mode="keyword")} == {"d0", "d1", "d3"}
    assert facts.search("Zebra", mode="keyword") == []
    assert facts.search("was ist das und wer", mode="keyword") == []


def test_a_hit_says_all_about_its_passage(facts: Searcher) -> None:
    (hit,) = facts.search("12345", mode="keyword")
    assert (hit.source, hit.title, hit.language, hit.headings, hit.page) == ("d2", "d2", "de", (), None)
    assert (hit.start, hit.end, hit.text) == (0, len(IDENTIFIERS[2]), IDENTIFIERS[2])
    assert (hit.revision, hit.dense) == (3, None)
    assert hit.score == hit.keyword
    assert hit.score > 0


def test_dense_mode_orders_by_cosine(facts: Searcher, fakes: ModuleType) -> None:
    hits = facts.search(IDENTIFIERS[5], mode="dense", limit=50)
    assert hits[0].source == "d5"
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert len(hits) == len(IDENTIFIERS)
    assert [hit.dense for hit in hits] == [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.keyword is None for hit in hits)


@pytest.mark.parametrize("mode", ["fused", "rrf"])
def test_both_sides_count(facts: Searcher, mode: str) -> None:
    hits = facts.search("DSH-2 Halle", mode=mode)  # type: ignore[arg-type]
    assert hits[0].source == "d0"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.dense is not None and hit.keyword is not None for hit in hits)


@pytest.mark.parametrize(("alpha", "single"), [(0.0, "keyword"), (1.0, "dense")])
def test_alpha_goes_from_one_side_to_the_other(
    open_searcher: OpenSearcher, fakes: ModuleType, alpha: float, single: str
) -> None:
    searcher = open_searcher([fakes.document(f"d{n}", text) for n, text in enumerate(IDENTIFIERS)], alpha=alpha)
    alone = [hit.source for hit in searcher.search("Anlage in Halle Nord", mode=single)]  # type: ignore[arg-type]
    fused = [hit.source for hit in searcher.search("Anlage in Halle Nord")]
    assert fused[:3] == alone[:3]


@pytest.mark.parametrize(
    ("given", "tuned", "used"),
    [(0.2, 0.8, 0.2), (0.0, 0.8, 0.0), (None, 0.8, 0.8), (None, 0.0, 0.0), (None, None, DEFAULT_ALPHA), (1.0, None, 1.0)],
)
def test_which_alpha_is_used(fakes: ModuleType, given: float | None, tuned: float | None, used: float) -> None:
    assert Searcher(Fixed([]), fakes.FakeEncoder(alpha=tuned), alpha=given).alpha == used


@pytest.mark.parametrize("query", ["", "   ", "\n\t"])
def test_an_empty_query_is_refused(facts: Searcher, query: str) -> None:
    with pytest.raises(QueryError, match=r"The query is empty\. Write"):
        facts.search(query)


@pytest.mark.parametrize("query", ["?", "…", "😀", "a" * 10_000, "\0", "AND OR NOT (", 'x" OR *:*'])
def test_any_other_query_is_answered(facts: Searcher, query: str) -> None:
    for mode in ("fused", "dense", "keyword", "rrf"):
        facts.search(query, mode=mode)  # type: ignore[arg-type]


def test_an_unknown_filter_is_refused(facts: Searcher) -> None:
    with pytest.raises(QueryError, match="colour"):
        facts.search("Halle", filters={"colour": ["red"]})


def test_filters(facts: Searcher) -> None:
    assert {hit.source for hit in facts.search("Halle", filters=clean_filters({"source": "d1"}))} == {"d1"}
    assert {hit.source for hit in facts.search("Halle", filters={"source": ["d0", "d7"]})} == {"d0", "d7"}
    assert facts.search("Halle", filters={"language": ["en"]}) == []


@pytest.mark.parametrize("mode", ["fused", "dense", "keyword", "rrf"])
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_at_most_limit(facts: Searcher, mode: str, limit: int) -> None:
    hits = facts.search("Der Vertrag der Anlage in der Halle", mode=mode, limit=limit)  # type: ignore[arg-type]
    assert len(hits) == limit


def test_an_empty_index(open_searcher: OpenSearcher) -> None:
    assert open_searcher([]).search("Halle") == []


@pytest.mark.parametrize(
    ("stamp", "what"),
    [(Stamp("another", "lines", ANALYSER), "encoder"), (Stamp("fake-1", "lines", "0"), "analyser")],
)
def test_an_index_of_another_encoder_or_analyser_is_refused(fakes: ModuleType, stamp: Stamp, what: str) -> None:
    with pytest.raises(IndexMismatch, match=what):
        Searcher(Fixed([], stamp=stamp), fakes.FakeEncoder(), alpha=0.5)


TEXT = "Alpha beta gamma. Delta epsilon zeta.\nEta theta iota.\n\nKappa lambda my. Ny xi omikron. Pi rho sigma."


class Fixed:
    """An index of one document that finds its passages in the order that a test gives."""

    name = "fixed"
    revision = 1
    languages = ("de",)

    def __init__(self, spans: Sequence[tuple[int, int]], *, stamp: Stamp | None = None, brings: Collection[int] = ()) -> None:
        self.stamp = stamp or Stamp("fake-1", "lines", ANALYSER)
        self.asked: list[int] = []
        self._spans = spans
        self._brings = brings

    def candidates(self, *, vector: Vectors | None, terms: Sequence[str], depth: int, filters: Filters) -> list[Candidate]:
        found = reversed(range(len(self._spans)))
        return [Candidate(row, 1 - row / 100, 0.0, self._passage(row) if row in self._brings else None) for row in found]

    def passages(self, rows: Sequence[int]) -> Mapping[int, Passage]:
        self.asked += rows
        return {row: self._passage(row) for row in rows}

    def document(self, document: str, revision: int) -> Document | None:
        raise AssertionError("a search needs no whole document")

    def _passage(self, row: int) -> Passage:
        start, end = self._spans[row]
        return Passage("d", 1, "s", "t", "de", (), None, start, end, TEXT[start:end], TEXT[end : end + GAP])


def span(first: str, last: str) -> tuple[int, int]:
    return TEXT.index(first), TEXT.index(last) + len(last)


ALPHA, DELTA, ETA, KAPPA, NY, PI = (
    span(word, word_end)
    for word, word_end in [
        ("Alpha", "gamma."),
        ("Delta", "zeta."),
        ("Eta", "iota."),
        ("Kappa", "my."),
        ("Ny", "omikron."),
        ("Pi", "sigma."),
    ]
)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 20), (10, 30)], [(0, 30)]),  # overlap
        ([(10, 30), (0, 20)], [(0, 30)]),
        ([(0, 20), (20, 30)], [(0, 30)]),  # touch
        ([(0, 30), (10, 20)], [(0, 30)]),  # one in the other
        ([(10, 20), (0, 30)], [(0, 30)]),
        ([(0, 20), (0, 20)], [(0, 20)]),  # the same
        ([ALPHA, DELTA], [span("Alpha", "zeta.")]),  # a space between
        ([ETA, DELTA], [span("Delta", "iota.")]),  # a line break
        ([ETA, KAPPA], [span("Eta", "my.")]),  # a paragraph
        ([ALPHA, ETA], [ALPHA, ETA]),  # a sentence between
        ([ALPHA, DELTA, ETA], [span("Alpha", "iota.")]),
        ([ALPHA, ETA, DELTA], [span("Alpha", "iota.")]),  # the one between comes last
        ([ETA, ALPHA, NY, DELTA], [span("Alpha", "iota."), NY]),
        ([DELTA, ETA, ALPHA, KAPPA], [span("Alpha", "iota."), KAPPA]),  # not more than three
    ],
)
def test_neighbours_are_one_passage(fakes: ModuleType, spans: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    searcher = Searcher(Fixed(spans), fakes.FakeEncoder(), alpha=1)
    hits = searcher.search("x", limit=50)
    assert [(hit.start, hit.end) for hit in hits] == expected
    assert [hit.text for hit in hits] == [TEXT[start:end] for start, end in expected]
    assert hits[0].dense == 1
    assert [(hit.start, hit.end) for hit in searcher.search("x", limit=50, merge=False)] == spans


@pytest.mark.parametrize("brings", [(), (0, 1, 2, 3), (1, 2)])
def test_passages_that_candidates_bring_along_are_not_asked_for(fakes: ModuleType, brings: tuple[int, ...]) -> None:
    index = Fixed([ALPHA, ETA, DELTA, NY], brings=brings)
    hits = Searcher(index, fakes.FakeEncoder(), alpha=1).search("x", limit=4)
    assert [(hit.start, hit.end) for hit in hits] == [span("Alpha", "iota."), NY]
    assert sorted(index.asked) == sorted({0, 1, 2, 3} - set(brings))


def test_documents_are_never_joined(open_searcher: OpenSearcher, fakes: ModuleType) -> None:
    searcher = open_searcher([fakes.document("a", "Hotel eins\nHotel zwei"), fakes.document("b", "Hotel drei\nHotel vier")])
    assert sorted(hit.text for hit in searcher.search("Hotel")) == ["Hotel drei\nHotel vier", "Hotel eins\nHotel zwei"]


def test_joined_passages_are_slices_of_real_documents(open_searcher: OpenSearcher, store: Store, fakes: ModuleType) -> None:
    made = fakes.document("a", TEXT)
    searcher = open_searcher([made], spans=[ALPHA, (ALPHA[0] + 6, DELTA[1]), ETA, KAPPA, NY, PI])
    for query in ("Alpha", "Eta", "Kappa Ny", "Delta Eta Pi"):
        for hit in searcher.search(query, limit=3):
            assert hit.text == TEXT[hit.start : hit.end]
            assert hit.document == made.id


# -- judged again -----------------------------------------------------------------------------------------------------

SINGLE = [ALPHA, ETA, NY]
"""Passages that do not touch; the first is by far the best for `Fixed`."""


def by_text(chances: Mapping[str, float]) -> Callable[[str, str], float]:
    """Judge a text by the word that it begins with, below its place."""
    return lambda _, text: chances[text.partition("\n")[2].split()[0]]


@pytest.mark.parametrize("mode", ["fused", "rrf"])
def test_the_reranker_has_its_say(fakes: ModuleType, mode: str) -> None:
    reranker = fakes.FakeReranker(by_text({"Alpha": 0.1, "Eta": 0.9, "Ny": 0.5}))
    searcher = Searcher(Fixed(SINGLE), fakes.FakeEncoder(), alpha=1, reranker=reranker)
    hits = searcher.search("x", mode=mode)  # type: ignore[arg-type]
    assert [(hit.start, hit.end) for hit in hits] == [ETA, NY, ALPHA]
    assert [hit.score for hit in hits] == [hit.reranked for hit in hits] == [0.9, 0.5, 0.1]
    assert [hit.dense for hit in hits] == [0.99, 0.98, 1.0]
    # It reads what the encoder does, of all of them at once.
    assert reranker.asked == [("x", [f"t\n{TEXT[start:end]}" for start, end in SINGLE])]


@pytest.mark.parametrize("mode", ["dense", "keyword"])
def test_a_side_alone_is_never_reranked(facts: Searcher, fakes: ModuleType, mode: str) -> None:
    before = facts.search("Vertrag 12345", mode=mode)  # type: ignore[arg-type]
    reranker = fakes.FakeReranker(lambda *_: 0.5)
    after = Searcher(facts.index, facts.encoder, reranker=reranker)
    assert after.search("Vertrag 12345", mode=mode) == before  # type: ignore[arg-type]
    assert reranker.asked == []
    with pytest.raises(QueryError, match=f"Mode {mode} is never reranked") as caught:
        after.search("Vertrag 12345", mode=mode, rerank=True)  # type: ignore[arg-type]
    assert caught.value.way_out
    assert after.search("Vertrag 12345", mode=mode, rerank=False) == before  # type: ignore[arg-type]


def test_with_and_without(facts: Searcher, fakes: ModuleType) -> None:
    plain = facts.search("Vertrag 12345")
    assert all(hit.reranked is None for hit in plain)
    with pytest.raises(QueryError, match="no reranker"):
        facts.search("Vertrag 12345", rerank=True)
    assert facts.search("Vertrag 12345", rerank=False) == plain
    searcher = Searcher(facts.index, facts.encoder, alpha=0.5, reranker=fakes.FakeReranker(lambda _, text: "Halle" in text))
    assert searcher.search("Vertrag 12345", rerank=False) == plain
    reranked = searcher.search("Vertrag 12345")
    assert searcher.search("Vertrag 12345", rerank=True) == reranked
    assert ["Halle" in hit.text for hit in reranked] == [True] * 3 + [False] * 5


@pytest.mark.parametrize("depth", [1, 3, 8, 30, 500])
@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_beyond_the_depth_the_fused_order_stays(facts: Searcher, fakes: ModuleType, depth: int, weight: float) -> None:
    query = "Der Vertrag der Anlage in der Halle"
    fused = [hit.source for hit in facts.search(query, limit=50)]
    reranker = fakes.FakeReranker(lambda _, text: (len(text) * 7 % 11) / 11, weight=weight, depth=depth)
    hits = Searcher(facts.index, facts.encoder, alpha=0.5, reranker=reranker).search(query, limit=50)
    assert [hit.source for hit in hits[depth:]] == fused[depth:]
    assert {hit.source for hit in hits[:depth]} == set(fused[:depth])
    assert [hit.reranked is None for hit in hits] == [False] * min(depth, 8) + [True] * max(8 - depth, 0)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    ((_, texts),) = reranker.asked
    assert len(texts) == min(depth, 8)
    if weight == 0:
        assert [hit.source for hit in hits] == fused
    if weight == 1:
        chances = [hit.reranked for hit in hits[:depth] if hit.reranked is not None]
        assert chances == sorted(chances, reverse=True)


def test_it_may_bring_up_what_a_small_limit_would_have_left_out(facts: Searcher, fakes: ModuleType) -> None:
    query = "Vertrag 12345"
    last = facts.search(query, limit=50)[-1]
    reranker = fakes.FakeReranker(lambda _, text: text.endswith(last.text))
    (hit,) = Searcher(facts.index, facts.encoder, reranker=reranker).search(query, limit=1)
    assert (hit.source, hit.reranked) == (last.source, 1)


def test_more_are_looked_for_where_it_judges_more(fakes: ModuleType) -> None:
    depths = []

    class Noting(Fixed):
        def candidates(self, *, depth: int, **more: object) -> list[Candidate]:  # type: ignore[override]
            depths.append(depth)
            return super().candidates(depth=depth, **more)  # type: ignore[arg-type]

    searcher = Searcher(Noting(SINGLE), fakes.FakeEncoder(), reranker=fakes.FakeReranker(depth=200))
    searcher.search("x")
    searcher.search("x", rerank=False)
    assert depths == [200, 50]


def test_neighbours_are_joined_after_they_were_judged(fakes: ModuleType) -> None:
    reranker = fakes.FakeReranker(by_text({"Alpha": 0.1, "Delta": 0.7, "Ny": 0.9, "Eta": 0.6}))
    searcher = Searcher(Fixed([ALPHA, DELTA, NY, ETA]), fakes.FakeEncoder(), alpha=1, reranker=reranker)
    hits = searcher.search("x")
    assert [(hit.start, hit.end) for hit in hits] == [NY, span("Alpha", "iota.")]
    # The better one's judgement counts.
    assert [(hit.reranked, hit.dense) for hit in hits] == [(0.9, 0.98), (0.7, 0.99)]
    alone = searcher.search("x", merge=False)
    assert [(hit.start, hit.end) for hit in alone] == [NY, DELTA, ETA, ALPHA]


def test_filters_come_first(facts: Searcher, fakes: ModuleType) -> None:
    reranker = fakes.FakeReranker()
    searcher = Searcher(facts.index, facts.encoder, reranker=reranker)
    hits = searcher.search("Die Anlage DSH-2 in Halle Nord", filters={"source": ["d1", "d7"]})
    assert {hit.source for hit in hits} == {"d1", "d7"}
    assert len(reranker.asked[0][1]) == 2
    assert searcher.search("Halle", filters={"language": ["en"]}) == []
    assert len(reranker.asked) == 1  # there was nothing to judge


def test_title_and_headings_are_judged_too(open_searcher: OpenSearcher, fakes: ModuleType) -> None:
    documents = [
        fakes.document(f"d{n}", "Die Grenze liegt bei 145 Euro.", title=title) for n, title in enumerate(["Bahn", "Hotel"])
    ]
    searcher = open_searcher(documents, reranker=fakes.FakeReranker())
    assert [hit.title for hit in searcher.search("Hotel Grenze")] == ["Hotel", "Bahn"]


def test_a_reranker_that_fails_is_not_passed_over(facts: Searcher, fakes: ModuleType) -> None:
    def fail(query: str, text: str) -> float:
        raise ModelError("damaged")

    with pytest.raises(ModelError, match="damaged"):
        Searcher(facts.index, facts.encoder, reranker=fakes.FakeReranker(fail)).search("Halle")


def test_a_whole_model(facts: Searcher, tiny_reranker: Path) -> None:
    reranker = CrossEncoderReranker(tiny_reranker, precision="fp32", threads=1)
    hits = Searcher(facts.index, facts.encoder, reranker=reranker).search("Halle Nord", limit=50)
    assert [hit.reranked for hit in hits] == sorted((hit.reranked or 0 for hit in hits), reverse=True)
    texts = [passage_text(hit.title, hit.headings, hit.text, facts.encoder) for hit in hits]
    assert reranker.scores("Halle Nord", texts) == pytest.approx([hit.reranked for hit in hits], abs=1e-5)
