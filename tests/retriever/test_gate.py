"""A new generation may be a little worse than the live one, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from retriever.errors import BelegError, GateFailed
from retriever.gate import Gate, Verdict
from retriever.index.embedded import EmbeddedGenerations
from retriever.questions import Proof, Question
from retriever.search import Searcher
from retriever.store import Store

WORDS = ["Anker", "Balken", "Dübel", "Eimer"]
QUESTIONS = [
    Question(word, "", "de", f"Wo ist der {word}?", ("hier",), Proof("haus.txt", f"Der {word} ist hier."), "") for word in WORDS
]


@pytest.fixture
def searcher(store: Store, tmp_path: Path, fakes: ModuleType) -> Searcher:
    text = "\n".join(f"Der {word} ist hier." for word in [*WORDS, "Faden", "Garten"])
    fakes.put_lines(store, fakes.FakeEncoder(), fakes.document("haus.txt", text))
    generations = EmbeddedGenerations(store, tmp_path / "index")
    return Searcher(generations.open(generations.build(fakes.STAMP, "fake-1", dimensions=32)), fakes.FakeEncoder(), alpha=0.5)


class Blind(Searcher):
    """Finds nothing for some of the questions."""

    def __init__(self, searcher: Searcher, *unseen: str) -> None:
        self._searcher, self._unseen = searcher, unseen

    def search(self, query: str, **options: Any) -> Any:
        found = self._searcher.search(query, merge=False)
        return [] if any(word in query for word in self._unseen) else found[:1]


@pytest.mark.parametrize(
    ("live", "new", "margin", "passes"),
    [
        ([], [], 0.0, True),
        (["Anker"], [], 0.0, True),
        ([], ["Anker"], 0.02, False),
        ([], ["Anker"], 0.25, True),
        ([], ["Anker", "Eimer"], 0.3, False),
        (["Anker"], ["Eimer"], 0.0, True),
    ],
)
def test_what_passes(searcher: Searcher, store: Store, live: list[str], new: list[str], margin: float, passes: bool) -> None:
    gate = Gate(QUESTIONS, margin)
    scores = (1 - len(live) / 4, 1 - len(new) / 4)
    if passes:
        assert gate.check(Blind(searcher, *live), Blind(searcher, *new), store) == Verdict(*scores, 4)
        return
    with pytest.raises(GateFailed) as caught:
        gate.check(Blind(searcher, *live), Blind(searcher, *new), store)
    assert caught.value.message == (
        f"The new index has an nDCG@10 of {scores[1]:.3f} on 4 questions, the live one {scores[0]:.3f}."
    )
    assert "--margin" in caught.value.way_out


def test_a_proof_that_is_not_in_the_store(searcher: Searcher, store: Store) -> None:
    gate = Gate([Question("q", "", "de", "Wo?", ("hier",), Proof("haus.txt", "Nirgends."), "")], 0)
    with pytest.raises(BelegError, match="does not have the words"):
        gate.check(searcher, searcher, store)


def write(path: Path, *proofs: object) -> Path:
    rows = [
        {"id": f"q{at}", "question": "Wo?", "answer": "x" if proof else None, "proof": proof} for at, proof in enumerate(proofs)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_questions_without_a_proof_are_left_out(tmp_path: Path) -> None:
    gate = Gate.read(write(tmp_path / "q.jsonl", None, {"source": "a", "text": "b"}), margin=0.1)
    assert [question.id for question in gate.questions] == ["q1"]


@pytest.mark.parametrize("proofs", [(), (None,)])
def test_a_file_without_any_proof_is_refused(tmp_path: Path, proofs: tuple[object, ...]) -> None:
    """It would let everything pass, or fail after the whole index was built."""
    with pytest.raises(BelegError, match=r"q\.jsonl (holds no question|has no question with a proof)"):
        Gate.read(write(tmp_path / "q.jsonl", *proofs), margin=0.1)
