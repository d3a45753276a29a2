"""What a divergence looks like says what went wrong."""

from __future__ import annotations

import pytest

from finetune.parity.diagnosis import of_length
from finetune.parity.limits import Bound
from finetune.parity.logits import Divergence
from finetune.parity.result import Cause

BOUND = Bound(mean_kl=0.003, p99_kl=0.045, top1=0.95)


@pytest.mark.parametrize(
    ("short", "full", "cut"),
    [
        (0.0027, 2.6, True),
        (0.0, 0.01, True),
        (0.0027, 0.0031, False),  # coarse weights, as measured with q8_0
        (0.0027, 0.0029, False),
        (0.5, 2.6, False),  # wrong at any length
        (None, 2.6, False),
    ],
)
def test_only_what_goes_wrong_on_long_prompts_alone_is_cut_off(short: float | None, full: float, cut: bool) -> None:
    found = of_length(Divergence(0.0027, 0.04, 0.99, short, full, 100), BOUND)
    assert (found.cause if found else None) == (Cause.TRUNCATED if cut else None)
