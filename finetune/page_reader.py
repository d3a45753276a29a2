"""The page of a measurement of answers: one file that shows what `report_reader` has put together. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.measures import MEASURES, TOTAL
from finetune.mistakes import KINDS
from finetune.pages import render_page, safe, write_page
from finetune.significance import Mean

__all__ = ["render", "write_report"]

_APART = ("cosine", "seconds")
"""Measures with a picture or table of their own: one begins below zero, the other has another unit."""


def render(data: Mapping[str, Any]) -> str:
    """Return the page; see `finetune.pages.render_page`."""
    names = {TOTAL: "weighted mean of the measures named above", **MEASURES}
    return render_page(
        "reader.html",
        data=data,
        charts=safe(_charts(data)),
        measures={name: text for name, text in names.items() if any(name in one["measures"] for one in data["systems"])},
        kinds=KINDS,
    )


def write_report(folder: Path, data: Mapping[str, Any]) -> Path:
    """Write report.json and report.html; return the page.

    Raises:
        BelegError: the folder cannot be written to.
    """
    return write_page(folder, "report", data, render, way_out="Name another `--out`.")


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
