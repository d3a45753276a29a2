"""Rankings and measures known by hand; weights that are tuned give the ranking that search gives."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest

from finetune.data.schema import Answer, Context, Row
from finetune.evaluate_retriever import (
    CURVE,
    GRID,
    MEASURES,
    Remembering,
    Scores,
    changes,
    groups_of,
    measure,
    rank,
    systems_of,
    tune_alpha,
    tune_weight,
)
from finetune.workspace import Workspace
from retriever.chunk import ChunkSize
from retriever.errors import BelegError
from retriever.metrics import evaluate
from retriever.search import Searcher

TEXTS = {
    "anker": "Der Anker liegt im Lager. Er wiegt vier Tonnen und gehört der Werft.",
    "balken": "Der Balken liegt im Hof. Er ist aus Eiche und sechs Meter lang.",
    "dübel": "Ein Dübel hält den Balken an der Wand, wenn die Wand trocken ist.",
    "eimer": "Der Eimer steht im Keller neben der Treppe und ist aus Blech.",
    "faden": "Mit dem Faden wird das Segel genäht, das im Lager liegt.",
}
QUESTIONS = [
    ("Was wiegt vier Tonnen?", "anker"),
    ("Wie lang ist der Balken aus Eiche?", "balken"),
    ("Was hält den Balken an der Wand?", "dübel"),
    ("Wo steht der Eimer?", "eimer"),
    ("Womit wird das Segel genäht?", "faden"),
    ("Was liegt im Lager neben dem Anker?", "faden"),
    ("Was ist trocken?", "dübel"),
]


def load_fakes() -> ModuleType:
    name = "retriever_fakes"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "retriever" / "fakes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


fakes = load_fakes()


def row(question: str, context: str, **more: str) -> Row:
    positive = Context(TEXTS[context], context.title())
    return Row(question, question, (Answer(TEXTS[context]),), (positive,), language="de", document=context, **more)  # type: ignore[arg-type]


ROWS = [row(*pair, origin=f"data/{'a' if at < 3 else 'b'}.jsonl, line {at}") for at, pair in enumerate(QUESTIONS)]


@dataclass
class Judge:
    """A reranker that likes passages with many of one letter, and what its words say of itself."""

    letter: str = "e"
    fingerprint: str = "judge"
    weight: float = 0.5
    depth: int = 3
    asked: int = 0

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        self.asked += 1
        return [text.count(self.letter) / len(text) * 5 for text in texts]


class Coarse(fakes.FakeEncoder):  # type: ignore[misc, name-defined]
    """Takes many words for the same, so that the two sides disagree."""

    dimensions = 3


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path / "space", ChunkSize(8, 2)) as opened:
        opened.add_rows(ROWS)
        yield opened


def test_measures_by_hand(workspace: Workspace) -> None:
    """BM25 finds the golden passage of a made-up question first, second, and never."""
    rows = [row("Eiche", "balken"), row("Tonnen Segel Segel genäht Faden", "anker"), row("Zebra", "eimer")]
    labels = workspace.labels(rows)
    *_, keyword = systems_of(Searcher(workspace.index(fakes.FakeEncoder()), fakes.FakeEncoder()))
    scores = measure(keyword, rows, labels)
    assert scores.ranks["0"] == 1
    assert scores.ranks["1"] == 2
    assert scores.ranks["2"] is None
    assert scores.rankings["2"] == []
    assert scores.values["nDCG@10"] == {"0": 1, "1": pytest.approx(1 / math.log2(3)), "2": 0}
    assert scores.values["RR@10"] == {"0": 1, "1": 0.5, "2": 0}
    assert scores.values["R@1"] == {"0": 1, "1": 0, "2": 0}
    assert scores.values["R@10"] == {"0": 1, "1": 1, "2": 0}
    assert scores.values.keys() >= {*MEASURES, *(f"R@{depth}" for depth in CURVE)}


def test_hits_stay_apart_and_as_many_as_asked(workspace: Workspace) -> None:
    searcher = Searcher(workspace.index(fakes.FakeEncoder()), fakes.FakeEncoder())
    chunks = workspace.passages(fakes.FakeEncoder())
    fused, dense, _ = systems_of(searcher)
    assert {len(hits) for hits in rank(dense, ROWS, workspace.labels(ROWS)).values()} == {len(chunks)}
    assert len(chunks) > len(TEXTS)
    seen = []
    few = rank(fused, ROWS, workspace.labels(ROWS), limit=2, progress=lambda: seen.append(1))
    assert {len(hits) for hits in few.values()} == {2}
    assert len(seen) == len(ROWS)


def test_only_rows_with_labels_are_asked(workspace: Workspace) -> None:
    rows = [Row("nothing", "Was ist der Sinn?"), *ROWS]
    fused, *_ = systems_of(Searcher(workspace.index(fakes.FakeEncoder()), fakes.FakeEncoder()))
    found = measure(fused, rows, workspace.labels(rows))
    assert list(found.rankings) == [str(at + 1) for at in range(len(ROWS))]
    with pytest.raises(BelegError, match="No question has a passage"):
        measure(fused, rows, {})


def test_systems(workspace: Workspace) -> None:
    index = workspace.index(fakes.FakeEncoder())
    plain = systems_of(Searcher(index, fakes.FakeEncoder()))
    assert [(system.name, system.mode, system.rerank) for system in plain] == [
        ("fused", "fused", False),
        ("dense", "dense", False),
        ("BM25", "keyword", False),
    ]
    judged = systems_of(Searcher(index, fakes.FakeEncoder(), reranker=Judge()), encoder="law", keyword=False)
    assert [(system.name, system.kind, system.rerank) for system in judged] == [
        ("fused · law", "fused", False),
        ("reranked · law", "reranked", True),
        ("dense · law", "dense", False),
    ]
    by_name = {system.kind: rank(system, ROWS, workspace.labels(ROWS)) for system in judged}
    assert all(hit.reranked is None for hits in by_name["fused"].values() for hit in hits)
    for hits in by_name["reranked"].values():
        assert [hit.reranked is not None for hit in hits] == [at < 3 for at in range(len(hits))]


def test_a_question_is_encoded_once_for_all_systems(workspace: Workspace) -> None:
    class Counting(fakes.FakeEncoder):  # type: ignore[misc, name-defined]
        queries = 0

        def encode_query(self, text: str) -> object:
            self.queries += 1
            return super().encode_query(text)

    counting = Counting()
    searcher = Searcher(workspace.index(fakes.FakeEncoder()), Remembering(counting))
    for system in systems_of(searcher):
        rank(system, [*ROWS, ROWS[0]], workspace.labels([*ROWS, ROWS[0]]))
    tune_alpha(searcher.index, searcher.encoder, ROWS, workspace.labels(ROWS))
    assert counting.queries == len(ROWS)


def test_a_remembering_encoder_is_the_encoder(workspace: Workspace) -> None:
    encoder = fakes.FakeEncoder(alpha=0.25)
    remembering = Remembering(encoder)
    for name in ("fingerprint", "tokenizer", "dimensions", "max_tokens", "alpha"):
        assert getattr(remembering, name) == getattr(encoder, name)
    assert remembering.token_starts("ein Wort") == encoder.token_starts("ein Wort")
    assert (remembering.encode_queries(["ein", "Wort"])[1] == encoder.encode_query("Wort")).all()
    told: list[int] = []
    assert (remembering.encode_passages(["ein Wort"], progress=told.append) == encoder.encode_passages(["ein Wort"])).all()
    assert told == [1]
    assert Searcher(workspace.index(fakes.FakeEncoder()), remembering).alpha == 0.25


def test_an_empty_question_is_named_by_its_place(workspace: Workspace) -> None:
    rows = [replace(ROWS[0], question=" \n", origin="train.jsonl, line 7")]
    fused, *_ = systems_of(Searcher(workspace.index(fakes.FakeEncoder()), fakes.FakeEncoder()))
    with pytest.raises(BelegError, match=r"train\.jsonl, line 7: question: The query is empty"):
        rank(fused, rows, workspace.labels(rows))
    with pytest.raises(BelegError, match=r"The question 'x': question: The query is empty"):
        tune_alpha(fused.searcher.index, fused.searcher.encoder, [replace(rows[0], origin="", id="x")], workspace.labels(rows))


@pytest.mark.parametrize("question", ["🦄", "Straße\r\nGRÖSSE", "\ufeffAnker", "Anker " * 5000, "' OR 1=1 --", "\x00"])
def test_questions_of_any_kind_can_be_asked(workspace: Workspace, question: str) -> None:
    rows = [replace(ROWS[0], question=question)]
    for system in systems_of(Searcher(workspace.index(fakes.FakeEncoder()), fakes.FakeEncoder())):
        assert set(measure(system, rows, workspace.labels(rows)).values["nDCG@10"]) == {"0"}


def test_tuned_alpha_gives_the_ranking_that_search_gives(workspace: Workspace) -> None:
    encoder = Coarse(fingerprint="coarse")
    index = workspace.index(encoder)
    labels = workspace.labels(ROWS)
    tuned = tune_alpha(index, encoder, ROWS, labels)
    assert [alpha for alpha, _ in tuned.curve] == list(GRID)
    assert len(GRID) == 21
    for alpha, value in tuned.curve:
        searcher = Searcher(index, encoder, alpha=alpha)
        rankings = {key: searcher.search(ROWS[int(key)].question, merge=False) for key in labels}
        found = evaluate(labels, rankings)["nDCG@10"]
        assert value == pytest.approx(sum(found.values()) / len(found), abs=1e-12)
    best = max(value for _, value in tuned.curve)
    as_good = [alpha for alpha, value in tuned.curve if value == best]
    assert tuned.alpha == min(as_good, key=lambda alpha: abs(alpha - 0.5))
    assert len({value for _, value in tuned.curve}) > 1


def test_of_equal_weights_the_middle_one_is_taken(workspace: Workspace) -> None:
    rows = [row("Eiche", "balken")]
    tuned = tune_alpha(workspace.index(fakes.FakeEncoder()), fakes.FakeEncoder(), rows, workspace.labels(rows))
    assert tuned.curve[10] == (0.5, 1.0)
    assert tuned.alpha == 0.5
    judged = tune_weight(
        workspace.index(fakes.FakeEncoder()), fakes.FakeEncoder(), Judge(letter="#"), rows, workspace.labels(rows)
    )
    assert judged.weight == 0


@pytest.mark.parametrize("depth", [1, 3, 30])
def test_tuned_weight_gives_the_ranking_that_search_gives(workspace: Workspace, depth: int) -> None:
    encoder = Coarse(fingerprint="coarse")
    index = workspace.index(encoder)
    labels = workspace.labels(ROWS)
    judge = Judge(depth=depth)
    tuned = tune_weight(index, encoder, judge, ROWS, labels, alpha=0.3)
    assert judge.asked == len(ROWS)
    for weight, value in tuned.curve:
        searcher = Searcher(index, encoder, alpha=0.3, reranker=Judge(depth=depth, weight=weight))
        rankings = {key: searcher.search(ROWS[int(key)].question, merge=False) for key in labels}
        found = evaluate(labels, rankings)["nDCG@10"]
        assert value == pytest.approx(sum(found.values()) / len(found), abs=1e-12)
    assert depth == 1 or len({value for _, value in tuned.curve}) > 1
    assert (tuned.weight, max(value for _, value in tuned.curve)) in tuned.curve


def test_nothing_to_tune_on(workspace: Workspace) -> None:
    index = workspace.index(fakes.FakeEncoder())
    with pytest.raises(BelegError, match="No question has a passage"):
        tune_alpha(index, fakes.FakeEncoder(), ROWS, {})


def test_groups() -> None:
    rows = [
        replace(ROWS[0], difficulty="hard"),
        replace(ROWS[1], language="en", difficulty="easy"),
        replace(ROWS[5], origin="x, y/set, part.jsonl, record 3, id 4"),
        replace(ROWS[6], origin=""),
    ]
    assert groups_of(rows, ["0", "1", "2", "3"]) == {
        "language": {"de": ["0", "2", "3"], "en": ["1"]},
        "difficulty": {"easy": ["1"], "hard": ["0"]},
        "source": {"a.jsonl": ["0", "1"], "set, part.jsonl": ["2"]},
    }
    assert groups_of(ROWS, []) == {}


def test_what_changed_most_comes_first(workspace: Workspace) -> None:
    fused, *_ = systems_of(Searcher(workspace.index(fakes.FakeEncoder()), fakes.FakeEncoder()))
    values = ({"0": 0.0, "1": 0.5, "2": 1.0, "3": 0.2, "4": 0.5}, {"0": 1.0, "1": 0.5, "2": 0.0, "3": 0.4, "4": 0.4})
    ranks: tuple[dict[str, int | None], ...] = (
        {"0": None, "1": 2, "2": 1, "3": 5, "4": 2},
        {"0": 1, "1": 2, "2": None, "3": 3, "4": 3},
    )
    old, new = (Scores(fused, {}, {"nDCG@10": side}, places) for side, places in zip(values, ranks, strict=True))
    better, worse = changes(old, new)
    assert [(item.key, item.old_rank, item.new_rank) for item in better] == [("0", None, 1), ("3", 5, 3)]
    assert [(item.key, item.old, item.new) for item in worse] == [("2", None, None), ("4", None, None)]
    assert [item.key for item in changes(old, new, most=1)[0]] == ["0"]
    assert changes(old, old) == ([], [])
