"""What all charts share: axes whose picture is SVG that stands inside a page. Knows neither numbers nor what is drawn.

Colours are CSS variables (`--ink`, `--faint`, `--series-0` …), so that one picture suits light and dark; whoever shows a chart
defines them. Series are told apart by their names beside them and by their dashes, not by colour alone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FAINT", "INK", "SERIES", "canvas", "colour", "dashes", "name_ends"]

SERIES = 6
"""Colours that there are; after them they begin again, with other dashes."""

# Stand-ins for the page's colours: no chart has these by itself.
INK, FAINT = "#010203", "#040506"

_WIDTH = 5.6
_COLOURS = tuple(f"#0a0b{number:02x}" for number in range(SERIES))
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))


def colour(series: int) -> str:
    """Return the colour of a series by its number, from 0."""
    return _COLOURS[series % SERIES]


def dashes(series: int) -> Any:
    """Return the line style of a series by its number, from 0."""
    return _DASHES[series // SERIES % len(_DASHES)]


@contextmanager
def canvas(name: str, height: float) -> Iterator[tuple[Axes, list[str]]]:
    """Give axes to draw on; afterwards the list holds the SVG.

    Args:
        name: of the chart, unique on its page.
        height: in inches.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False, "font.size": 9.5, "axes.linewidth": 0.8,
        "axes.edgecolor": FAINT, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
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


def name_ends(axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
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
            label, (x, heights[label]), (8, 0), textcoords="offset points", va="center", color=colour(at),
            annotation_clip=False,
        )  # fmt: skip


def _svg(name: str, figure: Figure) -> str:
    stream = StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, bbox_inches="tight", pad_inches=0.06, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    colours = {INK: "var(--ink)", FAINT: "var(--faint)"}
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
