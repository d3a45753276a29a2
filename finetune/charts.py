"""Charts as SVG that stands inside a page: its colours are the page's, its words are text. Knows numbers and names only.

Colours are CSS variables (`--ink`, `--faint`, `--series-0` …), so that one picture suits light and dark; whoever shows a chart
defines them. Series are told apart by their names beside them and by their dashes, not by colour alone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

from finetune.significance import Mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SERIES", "change_chart", "curve_chart", "interval_chart", "weight_chart"]

SERIES = 6
"""Colours that there are; after them they begin again, with other dashes."""

_WIDTH = 5.6
# Stand-ins for the page's colours: no chart has these by itself.
_INK, _FAINT = "#010203", "#040506"
_COLOURS = tuple(f"#0a0b{number:02x}" for number in range(SERIES))
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))


def interval_chart(name: str, means: Mapping[str, Mean], *, measure: str) -> str:
    """Return a dot for each system with its interval, in the order given, the first one's mean as a line through all.

    Args:
        name: of the chart, unique on its page.
    """
    with _chart(name, 0.7 + 0.36 * len(means)) as (axes, made):
        first = next(iter(means.values()))
        axes.axvline(first.value, color=_FAINT, linewidth=1)
        for at, found in enumerate(means.values()):
            colour = _COLOURS[at % SERIES]
            axes.plot([found.low, found.high], [at, at], color=colour, linewidth=2, solid_capstyle="round")
            axes.plot([found.value], [at], "o", color=colour, markersize=6)
            axes.annotate(f"{found.value:.3f}", (found.value, at), (0, 6), textcoords="offset points", ha="center", color=_INK)
        axes.set_yticks(range(len(means)), list(means))
        axes.set_ylim(len(means) - 0.5, -0.8)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{measure}, with 95% interval")
    return made[0]


def curve_chart(name: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Return recall by depth, a line for each system with its name at the right end."""
    with _chart(name, 3.4) as (axes, made):
        axes.set_xscale("log")
        for at, points in enumerate(curves.values()):
            axes.plot(
                *zip(*points, strict=True), color=_COLOURS[at % SERIES], linestyle=_DASHES[at // SERIES % 3], linewidth=1.8
            )
        depths = sorted({depth for points in curves.values() for depth, _ in points})
        axes.set_xticks(depths, [str(depth) for depth in depths])
        axes.set_xticks([], minor=True)
        low, high = axes.get_ylim()
        axes.set_ylim(low, min(high, 1.02))
        _names(axes, {label: points[-1] for label, points in curves.items()})
        axes.set_xlabel("passages looked at, k")
        axes.set_ylabel("recall@k")
    return made[0]


def change_chart(name: str, differences: Sequence[float], *, old: str, new: str) -> str:
    """Return a histogram of what each question gained or lost in nDCG@10; those that did not change are only counted.

    Args:
        old, new: names of the systems.
    """
    from matplotlib.ticker import MaxNLocator

    changed = [value for value in differences if abs(value) > 1e-9]
    with _chart(name, 2.8) as (axes, made):
        edges = [step / 10 for step in range(-10, 11)]
        better, worse = [value for value in changed if value > 0], [value for value in changed if value < 0]
        axes.hist(worse, bins=edges, color=_COLOURS[1], rwidth=0.9)
        axes.hist(better, bins=edges, color=_COLOURS[0], rwidth=0.9)
        axes.axvline(0, color=_INK, linewidth=1)
        axes.set_xlim(-1.02, 1.02)
        top = max(axes.get_ylim()[1], 1.0)
        axes.set_ylim(0, top * 1.25)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.annotate(f"{len(worse)} worse", (-0.5, top * 1.1), ha="center", color=_INK)
        axes.annotate(f"{len(better)} better", (0.5, top * 1.1), ha="center", color=_INK)
        axes.set_xlabel(f"change in nDCG@10 from {old} to {new}; {len(differences) - len(changed)} unchanged", wrap=True)
        axes.set_ylabel("questions")
    return made[0]


def weight_chart(
    name: str, curves: Mapping[str, Sequence[tuple[float, float]]], used: Mapping[str, float], *, weight: str
) -> str:
    """Return mean nDCG@10 by a weight, a line for each encoder with its name at the right end.

    Args:
        used: by encoder, the weight that it was measured with: a dot on its line.
        weight: name of the weight.
    """
    with _chart(name, 3.2) as (axes, made):
        for at, (label, points) in enumerate(curves.items()):
            colour = _COLOURS[at % SERIES]
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=_DASHES[at // SERIES % 3], linewidth=1.8)
            if label in used:
                place = min(points, key=lambda point: abs(point[0] - used[label]))
                axes.plot(*place, "o", color=colour, markersize=6)
        _names(axes, {label: points[-1] for label, points in curves.items()})
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(f"{weight}; the dot is what is used")
        axes.set_ylabel("nDCG@10")
    return made[0]


def _names(axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write each line's name beside its right end, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    room = (high - low) * 0.07
    heights: dict[str, float] = {}
    above = float("inf")
    for label, (_, y) in sorted(ends.items(), key=lambda item: -item[1][1]):
        heights[label] = above = min(y, above - room)
    # Whoever was pushed below the axes pushes the others up again.
    below = low - room
    for label in sorted(heights, key=heights.__getitem__):
        heights[label] = below = max(heights[label], below + room)
    for at, (label, (x, _)) in enumerate(ends.items()):
        axes.annotate(
            label, (x, heights[label]), (8, 0), textcoords="offset points", va="center", color=_COLOURS[at % SERIES],
            annotation_clip=False,
        )  # fmt: skip


@contextmanager
def _chart(name: str, height: float) -> Iterator[tuple[Axes, list[str]]]:
    """Give axes of the given height in inches to draw on; the list then holds the SVG."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False, "font.size": 9.5, "axes.linewidth": 0.8,
        "axes.edgecolor": _FAINT, "axes.labelcolor": _INK, "text.color": _INK, "xtick.color": _INK, "ytick.color": _INK,
        "axes.spines.top": False, "axes.spines.right": False, "xtick.major.size": 3, "ytick.major.size": 3,
    }  # fmt: skip
    made: list[str] = []
    # Not pyplot, which keeps every figure and takes the backend that the machine has set.
    with mpl.rc_context(style), warnings.catch_warnings():
        # The page's font draws the words; the one they are measured with need not know them all.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(_WIDTH, height))
        FigureCanvasSVG(figure)
        yield figure.subplots(), made
        made.append(_svg(name, figure))


def _svg(name: str, figure: Figure) -> str:
    stream = StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, bbox_inches="tight", pad_inches=0.06, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    colours = {_INK: "var(--ink)", _FAINT: "var(--faint)"}
    colours |= {colour: f"var(--series-{number})" for number, colour in enumerate(_COLOURS)}
    for stand_in, variable in colours.items():
        text = text.replace(stand_in, variable)
    # Names of parts would be the same in every chart of a page.
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", text)
    # As wide as the page allows, with the proportions of its viewBox.
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img">{rest}'
