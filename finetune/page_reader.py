"""The page of a measurement of answers: one file that shows what `report_reader` has put together. Measures nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.measures import MEASURES, TOTAL
from finetune.mistakes import KINDS
from finetune.significance import Mean
from retriever.errors import BelegError

__all__ = ["render", "write_report"]

_APART = ("cosine", "seconds")
"""Measures with a picture or table of their own: one begins below zero, the other has another unit."""


def render(data: Mapping[str, Any]) -> str:
    """Return the page: one file with its style and pictures inside; it loads nothing and runs nothing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("finetune", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["p"] = lambda value: "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")
    environment.filters["signed"] = lambda value: f"{value:+.3f}".replace("-", "−")
    charts = {name: Markup(svg) for name, svg in _charts(data).items()}  # noqa: S704 - made by matplotlib, which escapes
    names = {TOTAL: "weighted mean of the measures named above", **MEASURES}
    return environment.get_template("reader.html").render(
        data=data,
        charts=charts,
        measures={name: text for name, text in names.items() if any(name in one["measures"] for one in data["systems"])},
        kinds=KINDS,
    )


def write_report(folder: Path, data: Mapping[str, Any]) -> Path:
    """Write report.json and report.html; return the page.

    Raises:
        BelegError: the folder cannot be written to.
    """
    page = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A lone surrogate, which JSON may hold, has no UTF-8.
        text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8", errors="backslashreplace")
        page.write_text(render(data), encoding="utf-8", errors="replace")
    except OSError as error:
        raise BelegError(
            f"The report cannot be written to {folder}: {error.strerror}.", way_out="Name another `--out`."
        ) from error
    return page


def _charts(data: Mapping[str, Any]) -> dict[str, str]:
    from finetune.charts_reader import cosine_chart, measures_chart, mistakes_chart

    systems = data["systems"]
    table = {
        name: {one["name"]: _mean(one["measures"][name]) for one in systems if name in one["measures"]}
        for name in (TOTAL, *MEASURES)
        if name not in _APART
    }
    counts = {one["name"]: one["mistakes"] for one in systems}
    charts = {"measures": measures_chart("measures", {name: found for name, found in table.items() if found}, list(counts))}
    if any(counts.values()):
        charts["mistakes"] = mistakes_chart("mistakes", counts, list(KINDS))
    if any(one["cosines"] for one in systems):
        charts["cosines"] = cosine_chart("cosines", {one["name"]: one["cosines"] for one in systems})
    return charts


def _mean(found: Mapping[str, float]) -> Mean:
    return Mean(found["value"], found["low"], found["high"])
