"""The tables by language of a question file, checked by hand."""

from __future__ import annotations

from finetune.evaluate import golden_span, score_answers, verbatim
from finetune.reading import Asked, Outcome
from reader.schema import Answer, Quote
from retriever.metrics import Label
from retriever.schema import Hit

TEXT = "Guests pay 75 Euro."
LABEL = Label("d", 7, 18)
"""Where `pay 75 Euro` stands."""


def answered(
    key: str,
    language: str,
    *,
    gold: str | None,
    given: str | None,
    start: int = 0,
    text: str = TEXT,
    seconds: float = 1.0,
    failure: str = "",
) -> Outcome:
    """Answer with a quote at `start`, or abstain."""
    hit = Hit("d", "s", "t", "en", (), None, 0, len(TEXT), TEXT, 1.0, None, None, 1)
    asked = Asked(key, "?", (gold,) if gold else (), (hit,), ("golden",), (), "s", language)
    quotes = (Quote("d", "s", "t", None, start, start + len(text), text),) if given else ()
    abstained = given is None and not failure
    answer = Answer(given or "", abstained, "unproven" if abstained else None, quotes, (hit,), "", (), "r")
    return Outcome(asked, answer, seconds, failure=failure)


def test_scores_by_hand() -> None:
    outcomes = [
        answered("1", "de", gold="75 Euro", given="75 Euro", seconds=2),
        answered("2", "de", gold="75 Euro", given="70 Euro", text="Guests", seconds=2),
        answered("3", "de", gold="75 Euro", given=None, seconds=0),
        answered("4", "de", gold=None, given=None, seconds=0),
        answered("5", "en", gold=None, given="yes", text="nowhere", seconds=1),
        answered("6", "en", gold="yes", given="yes", seconds=0.5),
    ]
    labels = {key: [LABEL] for key in "1236"}
    table = score_answers(outcomes, labels, {"6": 0.5})
    assert list(table) == ["all", "de", "en"]
    assert table["all"] == {
        "questions": 6,
        "answerable": 4,
        "answered": 3,
        "verbatim_share": 0.75,
        "golden_quote_share": round(2 / 3, 4),
        "exact_match": 0.5,
        "f1": round((1 + 0.5 + 0 + 1) / 4, 4),
        "answered_f1": round((1 + 0.5 + 1) / 3, 4),
        "abstention_precision": 0.5,
        "abstention_recall": 0.5,
        "seconds_per_question": 1.0,
    }
    assert table["de"]["abstention_recall"] == 1
    assert table["en"]["abstention_precision"] is None
    assert table["en"]["abstention_recall"] == 0


def test_nothing_answered_gives_no_shares() -> None:
    scores = score_answers([answered("1", "de", gold=None, given=None)], {}, {})["all"]
    assert scores["verbatim_share"] is None
    assert scores["f1"] is None
    assert (scores["abstention_precision"], scores["abstention_recall"]) == (1, 1)


def test_a_failure_is_no_abstention() -> None:
    scores = score_answers([answered("1", "de", gold="x", given=None, failure="down")], {"1": [LABEL]}, {})["all"]
    assert (scores["answered"], scores["f1"], scores["exact_match"]) == (0, 0, 0)
    assert scores["abstention_precision"] is None
    assert scores["seconds_per_question"] is None


def test_a_quote_beside_the_proof_is_not_golden() -> None:
    assert golden_span(answered("1", "de", gold="x", given="x", start=0, text="Guests p"), [LABEL])
    assert not golden_span(answered("1", "de", gold="x", given="x", start=0, text="Guests "), [LABEL])
    assert not golden_span(answered("1", "de", gold="x", given="x"), [Label("other", 7, 18)])


def test_a_quote_one_letter_off_is_not_verbatim() -> None:
    assert verbatim(answered("1", "de", gold="x", given="x", start=7, text="pay 75"))
    assert not verbatim(answered("1", "de", gold="x", given="x", start=8, text="pay 75"))
    assert not verbatim(answered("1", "de", gold="x", given="x", start=7, text="pay 76"))
