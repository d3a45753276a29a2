"""The report says what was measured, shows what others wrote as text only, and needs nothing beside itself."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from selectolax.lexbor import LexborHTMLParser

from finetune.canvas import SERIES
from finetune.charts import change_chart, curve_chart, interval_chart, weight_chart
from finetune.data.schema import Answer, Context, Row
from finetune.evaluate_retriever import Scores, Tuned, measure, systems_of, tune_alpha
from finetune.report import compared, render, summary, write_report
from finetune.significance import Mean
from finetune.workspace import Workspace
from retriever.chunk import ChunkSize
from retriever.errors import BelegError
from retriever.search import Searcher

EVIL = "<script>alert(1)</script> & $x_1$ ]]> -- \"q\" 'q' 🦄 \u202e"
WORDS = ["Anker", "Balken", "Dübel", "Eimer", "Faden", "Garten", "Hammer"]
ABOUT: dict[str, Any] = {"sources": [EVIL], "documents": 7, "chunks": 7, "unanswerable": 2, "unread": []}


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


@dataclass
class Judge:
    """A reranker that likes long passages."""

    fingerprint: str = "judge"
    weight: float = 1.0
    depth: int = 5

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        return [len(text) / 1000 for text in texts]


class Blind(fakes.FakeEncoder):  # type: ignore[misc, name-defined]
    """Sees hardly any difference between texts."""

    dimensions = 2


def rows_of(words: Sequence[str]) -> list[Row]:
    return [
        Row(
            word,
            f"Wo ist der {word}? {EVIL}",
            (Answer(f"Der {word}"),),
            (Context(f"Der {word} ist hier bei {words[at - 1]}. {EVIL}", f"{word} {EVIL}"),),
            document=f"{word} {EVIL}",
            language="de" if at % 2 else "en",
            origin=f"a{at % 3}.jsonl, line {at}",
            difficulty="hard" if at == 1 else "",
        )
        for at, word in enumerate(words)
    ]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Scores], list[Row], dict[str, Tuned]]:
    """Two encoders, the first with a name that means harm, and a reranker."""
    rows = rows_of(WORDS)
    scores: list[Scores] = []
    tuned = {}
    with Workspace(tmp_path_factory.mktemp("report") / "space", ChunkSize(12, 2)) as space:
        space.add_rows(rows)
        labels = space.labels(rows)
        for name, encoder in ((EVIL, Blind(fingerprint="blind")), ("tuned", fakes.FakeEncoder())):
            searcher = Searcher(space.index(encoder), encoder, reranker=Judge())
            scores += [measure(item, rows, labels) for item in systems_of(searcher, encoder=name, keyword=name == EVIL)]
            tuned[name] = tune_alpha(searcher.index, encoder, rows, labels)
    return scores, rows, tuned


@pytest.fixture(scope="module")
def data(measured: tuple[list[Scores], list[Row], dict[str, Tuned]]) -> dict[str, Any]:
    scores, rows, tuned = measured
    return summary(scores, rows, about=ABOUT, tuned=tuned)


def test_what_is_compared_with_what(measured: tuple[list[Scores], list[Row], dict[str, Tuned]]) -> None:
    pairs = [
        (old.system.name.split()[0], old.system.encoder, new.system.name.split()[0], new.system.encoder)
        for old, new in compared(measured[0])
    ]
    assert pairs == [
        ("fused", EVIL, "reranked", EVIL),
        ("fused", EVIL, "dense", EVIL),
        ("fused", EVIL, "BM25", EVIL),
        ("fused", EVIL, "fused", "tuned"),
        ("reranked", EVIL, "reranked", "tuned"),
        ("dense", EVIL, "dense", "tuned"),
    ]


def test_the_numbers_are_those_of_the_scores(
    measured: tuple[list[Scores], list[Row], dict[str, Tuned]], data: dict[str, Any]
) -> None:
    scores, rows, _ = measured
    assert data["questions"] == data["groups_of_questions"] == len(rows)
    assert [item["name"] for item in data["systems"]] == [item.system.name for item in scores]
    for item, shown in zip(scores, data["systems"], strict=True):
        for name, found in shown["measures"].items():
            values = list(item.values[name].values())
            assert found["value"] == pytest.approx(sum(values) / len(values))
            assert found["low"] <= found["value"] <= found["high"]
        assert shown["alpha"] == (0.5 if shown["mode"] == "fused" else None)
        assert shown["reranker"] == ("judge" if shown["kind"] == "reranked" else None)
    values = {item["name"]: item["measures"]["nDCG@10"]["value"] for item in data["systems"]}
    for found in data["comparisons"]:
        if found["measure"] == "nDCG@10":
            assert found["difference"] == pytest.approx(values[found["new"]] - values[found["old"]])
    assert {kind: [(group["name"], group["questions"]) for group in groups] for kind, groups in data["by"].items()} == {
        "language": [("de", 3), ("en", 4)],
        "difficulty": [("hard", 1)],
        "source": [("a0.jsonl", 3), ("a1.jsonl", 2), ("a2.jsonl", 2)],
    }
    for question, row in zip(data["per_question"], rows, strict=True):
        assert question["question"] == row.question
        assert question["systems"].keys() == values.keys()


def test_one_question_of_a_kind_is_a_tie(data: dict[str, Any]) -> None:
    (hard,) = data["by"]["difficulty"]
    assert {found["verdict"] for found in hard["comparisons"]} == {"tie"}


def test_a_clear_difference_is_called_by_its_name(data: dict[str, Any]) -> None:
    found = next(item for item in data["comparisons"] if item["new"] == "dense · tuned" and item["measure"] == "nDCG@10")
    assert (found["verdict"], found["difference"] > 0.2) == ("better", True)
    cells = [
        [cell.text(strip=True) for cell in row.css("th, td")]
        for row in LexborHTMLParser(render(data)).css("table")[1].css("tbody tr")
    ]
    assert next(cells[-1] for cells in cells if cells[0] == "dense · tuned") == "better"


def test_the_page_shows_text_as_text(data: dict[str, Any]) -> None:
    page = render(data)
    tree = LexborHTMLParser(page)
    assert tree.css("script") == []
    assert "<script" not in page
    assert page.count(EVIL.split()[0]) == 0
    names = [head.text() for head in tree.css("table")[0].css("tbody th")]
    assert names[0] == f"fused · {EVIL}"
    titles = {heading.text() for heading in tree.css("h4")}
    assert titles
    assert titles <= {f"Wo ist der {word}? {EVIL}" for word in WORDS}
    labels = "".join(node.text() for node in tree.css("figure text"))
    assert "$x_1$" in labels


def test_the_page_needs_nothing_beside_itself(data: dict[str, Any]) -> None:
    page = render(data)
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(?!#)[^"'\s#]""", page)
    assert not re.search(r"@import|url\((?!#)", page)
    known = Counter(re.findall(r'\bid="([^"]+)"', page))
    assert [name for name, count in known.items() if count > 1] == []
    assert set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page)) <= known.keys()


def test_every_colour_suits_light_and_dark(data: dict[str, Any]) -> None:
    page = render(data)
    for figure in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        assert re.findall(r"(?:fill|stroke): (#\w+)", figure) == []
    style = page[: page.index("</style>")]
    light, dark = style.split("prefers-color-scheme: dark")
    used = set(re.findall(r"var\((--[\w-]+)\)", page))
    assert {f"--series-{number}" for number in range(SERIES)} >= {name for name in used if "series" in name}
    for name in used:
        assert f"{name}:" in light
        assert f"{name}:" in dark


def test_one_system_and_one_question(measured: tuple[list[Scores], list[Row], dict[str, Tuned]]) -> None:
    scores, rows, _ = measured
    one = Scores(
        scores[0].system,
        scores[0].rankings,
        {name: {"0": found["0"]} for name, found in scores[0].values.items()},
        scores[0].ranks,
    )
    data = summary([one], rows, about=ABOUT)
    assert (data["comparisons"], data["side_by_side"], data["alpha"], data["questions"]) == ([], [], {}, 1)
    assert "1 question on 1 document," in " ".join(LexborHTMLParser(render(data)).body.text().split())  # type: ignore[union-attr]


def test_what_is_written(data: dict[str, Any], tmp_path: Path) -> None:
    changed = {**data, "sources": ["half a \ud83d pair"]}
    page = write_report(tmp_path / "new" / "folder", changed)
    text = (page.parent / "report.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == json.loads(json.dumps(changed))
    assert "half a ? pair" in page.read_text(encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BelegError, match=r"cannot be written to .*file.*Name another"):
        write_report(tmp_path / "file", data)


def test_the_same_numbers_give_the_same_page(data: dict[str, Any]) -> None:
    assert render(data) == render(json.loads(json.dumps(data)))


def test_charts_of_more_systems_than_colours() -> None:
    names = [f"system {number}" for number in range(SERIES + 2)]
    for svg in (
        interval_chart("a", {name: Mean(0.5, 0.4, 0.6) for name in names}, measure="nDCG@10"),
        curve_chart("b", {name: [(1, 0.5), (10, 0.5), (100, 0.5)] for name in names}),
        weight_chart("c", {name: [(0.0, 0.5), (1.0, 0.5)] for name in names}, {names[0]: 0.3}, weight="alpha"),
    ):
        places = {}
        for node in LexborHTMLParser(svg).css("text"):
            if node.text() in names:
                style = (node.attributes.get("transform") or "") + (node.attributes.get("y") or "")
                places[node.text()] = style
        # Equal values, and yet no name stands on another.
        assert len(set(places.values())) == len(places) == len(names)


@pytest.mark.parametrize("differences", [[], [0.0, 0.0], [1.0, -1.0, 1e-12, 0.05]])
def test_histogram_counts(differences: list[float]) -> None:
    labels = [node.text() for node in LexborHTMLParser(change_chart("h", differences, old="a", new="b")).css("text")]
    better = sum(value > 0.001 for value in differences)
    worse = sum(value < 0 for value in differences)
    assert f"{better} better" in labels
    assert f"{worse} worse" in labels
    assert any(f"{len(differences) - better - worse} unchanged" in label for label in labels)
