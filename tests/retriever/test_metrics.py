"""Measures that can be checked by hand, on labels that outlive a chunking."""

import math

import pytest

from retriever.chunk import ChunkSize, chunk
from retriever.metrics import Label, evaluate
from retriever.schema import Document, Hit

ALL = ("nDCG@10", "RR@10", "R@5", "Success@1")


def hit(start: int, end: int, document: str = "d") -> Hit:
    return Hit(document, "s", "t", "de", (), None, start, end, "", 1.0, None, None, 1)


def values(labels: list[Label], hits: list[Hit]) -> dict[str, float]:
    return {measure: found["q"] for measure, found in evaluate({"q": labels}, {"q": hits}, measures=ALL).items()}


MISS = hit(900, 950)


def test_the_first_hit_is_right() -> None:
    assert values([Label("d", 10, 20)], [hit(0, 30), MISS]) == {"nDCG@10": 1, "RR@10": 1, "R@5": 1, "Success@1": 1}


def test_the_third_hit_is_right() -> None:
    found = values([Label("d", 10, 20)], [MISS, MISS, hit(0, 30)])
    assert found["nDCG@10"] == pytest.approx(1 / math.log2(4))
    assert found["RR@10"] == pytest.approx(1 / 3)
    assert (found["R@5"], found["Success@1"]) == (1, 0)


def test_one_of_two_labels_is_found() -> None:
    found = values([Label("d", 10, 20), Label("e", 0, 5)], [MISS, hit(0, 30)])
    assert found["nDCG@10"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert (found["RR@10"], found["R@5"]) == (0.5, 0.5)


def test_what_is_too_deep_does_not_count() -> None:
    found = values([Label("d", 10, 20)], [MISS] * 10 + [hit(0, 30)])
    assert set(found.values()) == {0}


def test_overlapping_chunks_do_not_count_twice() -> None:
    labels = [Label("d", 10, 20), Label("d", 100, 110)]
    assert values(labels, [hit(0, 30), hit(5, 40)])["R@5"] == 0.5
    doubled = values(labels, [hit(0, 30), hit(5, 40), hit(90, 120)])
    apart = values(labels, [hit(0, 30), MISS, hit(90, 120)])
    assert doubled == apart
    assert all(value <= 1 for value in values([Label("d", 10, 20)], [hit(0, 30)] * 5).values())


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [(0, 15, 1), (0, 14, 0), (15, 40, 1), (16, 40, 0), (10, 20, 1), (12, 17, 1), (12, 16, 0), (20, 30, 0)],
)
def test_half_a_label_must_be_held(start: int, end: int, found: int) -> None:
    assert values([Label("d", 10, 20)], [hit(start, end)])["R@5"] == found


def test_the_same_place_in_another_document_is_a_miss() -> None:
    assert values([Label("d", 10, 20)], [hit(0, 30, "e")])["R@5"] == 0


def test_an_empty_label_is_never_found() -> None:
    assert values([Label("d", 10, 10)], [hit(0, 30)])["R@5"] == 0


def test_questions_without_ranking_or_hits_score_nothing() -> None:
    found = evaluate({"a": [Label("d", 0, 5)], "b": [Label("d", 0, 5)], "c": [Label("d", 0, 5)]}, {"a": [], "b": [hit(0, 9)]})
    assert found == {"nDCG@10": {"a": 0, "b": 1, "c": 0}}


def test_rankings_of_other_questions_are_left_out() -> None:
    assert evaluate({"a": [Label("d", 0, 5)]}, {"a": [hit(0, 9)], "x": [hit(0, 9)]}) == {"nDCG@10": {"a": 1}}


def test_nothing_to_evaluate() -> None:
    assert evaluate({}, {}) == {"nDCG@10": {}}


class Words:
    def token_starts(self, text: str) -> list[int]:
        return [at for at, letter in enumerate(text) if letter != " " and (at == 0 or text[at - 1] == " ")]


@pytest.mark.parametrize("tokens", [4, 8, 16, 64])
@pytest.mark.parametrize("overlap", [0, 3])
def test_labels_survive_another_chunking(tokens: int, overlap: int) -> None:
    text = " ".join(f"Satz {number} sagt etwas." for number in range(20))
    at = text.index("Satz 13")
    label = Label("d", at, at + len("Satz 13 sagt etwas."))
    chunks = chunk(Document("d", "s", "t", text, "de", ""), ChunkSize(tokens, overlap), Words())
    ranking = sorted((hit(piece.start, piece.end) for piece in chunks), key=lambda piece: abs(piece.start - at))
    assert evaluate({"q": [label]}, {"q": ranking}, measures=("R@100",)) == {"R@100": {"q": 1}}
