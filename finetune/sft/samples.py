"""What a reader wrote while it learnt, as a page. Knows no models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from finetune.charts_reader import over_time
from finetune.pages import render_page, safe, write_page

__all__ = ["write_samples"]

_MEASURED = ("f1", "exact_match", "golden_quote", "quote_proven", "abstained_rightly")


def write_samples(path: Path, name: str) -> Path | None:
    """Write a page of the samples in a file beside it; return it, or None if there are no samples.

    Args:
        path: the samples, an object a line.
        name: of the candidate.

    Raises:
        BelegError: the folder cannot be written to.
    """
    # Of a step that was measured twice, before and after a kill, the later answers count.
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        one = json.loads(line)
        found.setdefault(one["step"], {})[one["id"]] = one
    if not found:
        return None
    data = {"name": name, "points": [_point(step, rows) for step, rows in sorted(found.items())], "rows": _rows(found)}
    return write_page(path.parent, path.stem, data, _render, way_out="Make room, and run this again.")


def _point(step: int, rows: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    means = {name: [one[name] for one in rows.values() if name in one] for name in _MEASURED}
    return {"step": step, "measures": {name: fmean(values) for name, values in means.items() if values}}


def _rows(found: Mapping[int, Mapping[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    last = found[max(found)]
    return [
        {
            "question": one["question"],
            "wanted": one["wanted"],
            "wrote": [
                {"step": step, "text": rows[key]["wrote"], "f1": rows[key]["f1"]}
                for step, rows in sorted(found.items())
                if key in rows
            ],
        }
        for key, one in last.items()
    ]


def _render(data: Mapping[str, Any]) -> str:
    chart = over_time([(point["step"], point["measures"]) for point in data["points"]])
    return render_page("samples.html", data=data, charts=safe({"over_time": chart}))
