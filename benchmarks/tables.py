"""Write the tables and plots of the docs from the lines that the benchmarks appended: the newest line of each kind counts.

A table stands between `<!-- table NAME -->` and `<!-- end -->`.

    python benchmarks/tables.py [--results benchmarks/results.jsonl]
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from record import DEFAULT_OUT

DOCS = Path(__file__).resolve().parent.parent / "docs"
COLOURS = ("#1b4d5c", "#c2571a", "#4a7d3a", "#7a4a8c", "#8a7a2a")

Line = dict[str, Any]


def newest(lines: Sequence[Line], name: str, *keys: str) -> list[Line]:
    """Return the last line of each distinct combination of `keys`, in the order of their first."""
    found: dict[tuple[Any, ...], Line] = {}
    for line in lines:
        if line["name"] == name:
            found[tuple(line[key] for key in keys)] = line
    return list(found.values())


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    parts = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in parts)


def scale(lines: Sequence[Line]) -> str:
    header = ("chunks", "engine", "built /s", "p50 ms", "p95 ms", "8 at once: p50", "p95", "queries /s", "recall@10",
              "× bare", "memory MB", "disk MB")  # fmt: skip
    found = sorted(newest(lines, "scale", "chunks", "engine"), key=lambda line: (line["chunks"], line["engine"] != "embedded"))
    rows = [
        (f"{line['chunks']:,}", line["engine"], f"{line['built_per_s']:,.0f}",
         f"{line['fused_p50_ms']:.1f}", f"{line['fused_p95_ms']:.1f}", f"{line['fused_8_p50_ms']:.1f}",
         f"{line['fused_8_p95_ms']:.1f}", f"{line['fused_8_per_s']:.0f}", f"{line['recall_at_10']:.3f}",
         f"{line['fused_to_bare']:.1f}", f"{line['memory_mb']:,.0f}", f"{line['index_disk_mb']:,.0f}")
        for line in found
    ]  # fmt: skip
    return table(header, rows)


def scoring(lines: Sequence[Line]) -> str:
    found = newest(lines, "scoring", "file", "variant")
    files = list(dict.fromkeys(line["file"] for line in found))
    header = [
        "variant",
        *(f"{file}: nDCG@10" for file in files),
        *(f"{part}, {files[-1]}" for part in ("recall@10", "p50 ms", "p95 ms")),
    ]
    rows = []
    for variant in dict.fromkeys(line["variant"] for line in found):
        by_file = {line["file"]: line for line in found if line["variant"] == variant}
        last = by_file[files[-1]]
        numbers = [f"{by_file[file]['ndcg_at_10']:.3f}" for file in files]
        rows.append([variant, *numbers, f"{last['recall_at_10']:.3f}", f"{last['p50_ms']:.1f}", f"{last['p95_ms']:.1f}"])
    return table(header, rows)


def load(lines: Sequence[Line]) -> str:
    names = {"rebuild": "rebuild with another encoder", "restart": "the only node is killed, and started again",
             "node": "one node of three is killed"}  # fmt: skip
    header = ("what happens", "engine", "queries", "failed", "of these not 503", "mismatched", "updates", "lost", "seen again",
              "p50 / p95 / max ms before", "during", "after")  # fmt: skip
    rows = []
    for line in newest(lines, "load", "event", "engine"):
        times = [
            " / ".join(f"{line[f'{when}_{part}_ms']:.0f}" for part in ("p50", "p95", "max"))
            for when in ("before", "during", "after")
        ]
        checked = f"{line['hits_mismatched']} of {line['hits_checked']}" if line["hits_checked"] else "–"
        rows.append((names[line["event"]], line["engine"], line["queries"], line["failed"], line["failed_not_503"], checked,
                     line["updates"], line["updates_lost"], line["removed_seen_again"], *times))  # fmt: skip
    return table(header, rows)


TABLES: dict[str, Callable[[Sequence[Line]], str]] = {"scale": scale, "scoring": scoring, "load": load}


def write_tables(lines: Sequence[Line]) -> None:
    for page in DOCS.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for name, make in TABLES.items():
            pattern = rf"(<!-- table {name} -->\n).*?(<!-- end -->)"
            text = re.sub(pattern, lambda match, make=make: f"{match[1]}{make(lines)}\n{match[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
        page.write_text(text, encoding="utf-8")


def draw_scale(lines: Sequence[Line]) -> None:
    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.hashsalt": "beleg", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    found = newest(lines, "scale", "chunks", "engine")
    engines = [engine for engine in dict.fromkeys(line["engine"] for line in found)
               if sum(line["engine"] == engine for line in found) > 1]  # fmt: skip
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.4))
    panels = [
        ("fused_p95_ms", "one question at a time: p95, ms"),
        ("fused_8_per_s", "eight at once: questions a second"),
        ("built_per_s", "building: chunks a second"),
    ]
    for axis, (key, title) in zip(axes, panels, strict=True):
        for engine, colour in zip(engines, COLOURS, strict=False):
            points = sorted((line["chunks"], line[key]) for line in found if line["engine"] == engine)
            axis.plot(*zip(*points, strict=True), marker="o", color=colour, label=engine)
        axis.set(xscale="log", yscale="log", xlabel="chunks")
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(visible=True, which="major", color="#e4e4e4")
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_formatter(lambda value, _: f"{value:,g}")
            scale.set_minor_formatter(lambda *_: "")
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=len(labels), frameon=False, fontsize=9)
    figure.savefig(DOCS / "scaling.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.results.read_text(encoding="utf-8").splitlines()]
    write_tables(lines)
    draw_scale(lines)


if __name__ == "__main__":
    main()
