"""No row is told that its own answer is wrong, and no row is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from finetune.batches import Shown, batches

TEXTS = st.sets(st.sampled_from("ABCDEFGH"), max_size=3)


@st.composite
def shown(draw: st.DrawFn) -> Shown:
    answers = draw(TEXTS.filter(bool))
    positive = draw(st.sampled_from(sorted(answers)))
    return Shown(draw(st.sampled_from("abcdef")), {positive, *(draw(TEXTS) - answers)}, answers)


@given(st.lists(shown(), max_size=12), st.integers(1, 5), st.randoms(use_true_random=False))
def test_every_row_once_and_never_beside_its_answer(rows: list[Shown], size: int, random: object) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    made = list(batches(rows, order, size))
    assert sorted(at for batch in made for at in batch) == sorted(order)
    for batch in made:
        assert 0 < len(batch) <= size
        for at in batch:
            others = [rows[other] for other in batch if other != at]
            assert not any(rows[at].question == other.question for other in others)
            assert not any(set(rows[at].answers) & set(other.passages) for other in others)


def test_a_negative_that_all_rows_have_does_not_part_them() -> None:
    rows = [Shown(f"q{number}", {f"p{number}", "the farthest"}, {f"p{number}"}) for number in range(8)]
    assert list(batches(rows, range(8), 4)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
