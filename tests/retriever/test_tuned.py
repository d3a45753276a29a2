"""What stands beside a model's weights: read if it is right, named if it is not, and no part of the fingerprint."""

from __future__ import annotations

from pathlib import Path

import pytest

from retriever.errors import ModelError
from retriever.models import folder_fingerprint
from retriever.tuned import TUNED_FILE, Tuned, read_tuned


def test_without_the_file_the_defaults_hold(tmp_path: Path) -> None:
    assert read_tuned(tmp_path) == Tuned(alpha=None, weight=1.0, depth=30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", Tuned()),
        ('{"alpha": 0.35}', Tuned(alpha=0.35)),
        ('{"alpha": 0, "weight": 1, "depth": 1}', Tuned(alpha=0, weight=1, depth=1)),
        ('{"alpha": null, "depth": 12}', Tuned(depth=12)),
        ('{"alpha": 1.0, "nDCG@10": {"live": 0.7}, "für": "Menschen 😀"}', Tuned(alpha=1)),
        ('\ufeff{\r\n  "weight": 0.25\r\n}\r\n', Tuned(weight=0.25)),
    ],
)
def test_what_it_may_say(tmp_path: Path, text: str, expected: Tuned) -> None:
    (tmp_path / TUNED_FILE).write_text(text, encoding="utf-8", newline="")
    assert read_tuned(tmp_path) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ("[]", "object"),
        ("0.35", "object"),
        ('{"alpha": 1.01}', "alpha"),
        ('{"alpha": -0.1}', "alpha"),
        ('{"alpha": NaN}', "alpha"),
        ('{"alpha": Infinity}', "alpha"),
        ('{"alpha": "0.35"}', "alpha"),
        ('{"alpha": true}', "alpha"),
        ('{"alpha": [0.35]}', "alpha"),
        ('{"weight": null}', "weight"),
        ('{"weight": 2}', "weight"),
        ('{"depth": 0}', "depth"),
        ('{"depth": 1e9}', "depth"),
        ('{"depth": 2.5}', "depth"),
        ('{"depth": true, "weight": ""}', "depth"),
    ],
)
def test_what_it_may_not_say(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / TUNED_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=named) as caught:
        read_tuned(tmp_path)
    assert str(tmp_path / TUNED_FILE) in caught.value.message
    assert caught.value.way_out


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / TUNED_FILE).write_text('{"alpha": 3, "depth": "x"}', encoding="utf-8")
    with pytest.raises(ModelError, match=r"alpha: .*depth: "):
        read_tuned(tmp_path)


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / TUNED_FILE).write_bytes(b"\xff\xfe{\x00")
    with pytest.raises(ModelError, match="cannot be read"):
        read_tuned(tmp_path)
    (tmp_path / "other" / TUNED_FILE).mkdir(parents=True)
    with pytest.raises(ModelError, match="cannot be read"):
        read_tuned(tmp_path / "other")


def test_it_is_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    before = folder_fingerprint(tmp_path)
    (tmp_path / TUNED_FILE).write_text('{"alpha": 0.35}', encoding="utf-8")
    assert folder_fingerprint(tmp_path) == before
    # Only there: further down a file of that name belongs to the model.
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / TUNED_FILE).write_text("{}", encoding="utf-8")
    assert folder_fingerprint(tmp_path) != before
