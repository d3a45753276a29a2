"""Figures that can be counted by hand, and a page that shows what it is given without believing it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest

from finetune.data.plots import page, pictures
from finetune.data.schema import Answer, Context, Row
from finetune.data.stats import LENGTHS, measure, overlap, stats

ROWS = [
    Row("1", "Wer zahlt die Reise?", (Answer("Der Verein", 0),), (Context("Der Verein zahlt."),), (Context("Nein."),), (),
        "a", "de", "", "easy"),
    Row("2", "Wer zahlt?", (Answer("Verein", 4), Answer("nichts davon")), (Context("der  Verein zahlt."),), (), (), "a", "de"),
    Row("3", "Who?", (), (), (), (Context("Nobody knows."),), "b", "en"),
]  # fmt: skip


def test_counted_by_hand() -> None:
    found = stats(ROWS)
    assert (found["rows"], found["documents"], found["contexts"], found["unanswerable"]) == (3, 2, 3, 1)
    assert found["languages"] == {"de": 2, "en": 1}
    assert found["answers"] == {"with_start": 2, "without_start": 1, "rows_without": 1}
    assert found["difficulty"] == {"easy": 1, "not measured": 2}
    assert found["question_words"]["least"] == 1
    assert found["question_words"]["median"] == 2
    assert found["question_words"]["most"] == 4
    assert found["negatives_per_row"]["most"] == found["hard_negatives_per_row"]["most"] == 1
    assert found["rows_per_document"]["most"] == 2
    assert found["most_repeated"] == [{"rows": 2, "document": "a", "text": "Der Verein zahlt."}]


def test_overlap_counts_what_keyword_search_sees() -> None:
    assert overlap("Wer zahlt die Reise?", "Der Verein zahlt.", "de") == 0.5
    assert overlap("???", "Text", "und") == 0.0
    assert measure(ROWS)["overlap"] == [0.5, 1.0]


def test_nothing_is_all_zeros_and_makes_a_page() -> None:
    found = stats([])
    assert all(set(found[name].values()) == {0.0} for name in LENGTHS)
    assert "<svg" not in page(found, measure([]), title="nichts")


def test_json_can_hold_it() -> None:
    assert json.loads(json.dumps(stats(ROWS))) == stats(ROWS)


def test_a_page_escapes_and_needs_nothing_else() -> None:
    evil = "<script>alert(1)</script> & $x^2$ 東京"
    rows = [
        Row(str(number), evil, (Answer(evil),), (Context(evil + " x" * number),), (), (), evil, evil[:12])
        for number in range(3)
        for _ in range(2)
    ]
    text = page(stats(rows), measure(rows), title=evil)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//|@import|url\(https?:", text)


@pytest.mark.parametrize("language", ["de", "a$b$", "日本", "<b>", ""])
def test_pictures_are_whole_svg(language: str) -> None:
    rows = [Row(str(number), "Wort " * number, (), (Context("Wort " * 3**number),), (), (), str(number), language, "", "hard")
            for number in range(1, 9)]  # fmt: skip
    drawn = pictures(stats(rows), measure(rows))
    assert len(drawn) == 6
    assert all(ET.fromstring(picture).tag.endswith("svg") for picture in drawn)
    assert drawn == pictures(stats(rows), measure(rows))
