"""Draw what `stats` measured, as a page that needs nothing else: pictures inside, no script, no address. Knows no row."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune.data.stats import LENGTHS, NOT_MEASURED, Measured, Stats

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.typing import RcKeyType

__all__ = ["page", "pictures"]

_BLUE = "#2f6690"
_SIZE = (5.2, 2.6)
_BARS = 30
_LANGUAGES = 12
_ORDERS = 50
"""From this ratio of the largest to the smallest length on, lengths are drawn on a logarithmic axis."""

_STYLE: dict[RcKeyType, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "svg.fonttype": "none",
    # Languages and the like come from the data: a dollar sign in them is no formula.
    "text.parse_math": False,
}


def page(found: Stats, measured: Measured, *, title: str) -> str:
    """Return an HTML page with tables and pictures; texts of the data are escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("finetune", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    lengths = {text: found[name] for name, text in LENGTHS.items()}
    template = environment.get_template("data-stats.html")
    return template.render(title=title, stats=found, lengths=lengths, pictures=pictures(found, measured))


def pictures(found: Stats, measured: Measured) -> list[str]:
    """Return the pictures as SVG elements."""
    drawn = [
        _histogram("Words in a question", measured["question_words"], "questions"),
        _histogram("Words in a context", measured["context_words"], "contexts"),
        _histogram("Words in an answer", measured["answer_words"], "answers"),
        _histogram("Questions from one document", measured["rows_per_document"], "documents"),
        _shares("Share of a question's terms that its context has", measured["overlap"]),
        _bars("Languages", found["languages"]),
        _bars("Difficulty for search", found["difficulty"] if set(found["difficulty"]) != {NOT_MEASURED} else {}),
    ]
    return [picture for picture in drawn if picture]


def _histogram(title: str, values: Sequence[int], counted: str) -> str:
    if not values:
        return ""
    import numpy as np

    least, most = max(1, min(values)), max(values)
    wide = most / least >= _ORDERS
    edges: npt.NDArray[Any]
    if wide:
        edges = np.geomspace(least, most + 1, _BARS + 1)
    else:
        # Whole numbers in each bar, the same number of them: a bar with one more looks like a peak.
        step = max(1, -(-(most - min(values) + 1) // _BARS))
        edges = np.arange(min(values), most + step + 1, step) - 0.5

    def draw(axes: Axes) -> None:
        axes.hist(np.maximum(values, least) if wide else values, bins=edges.tolist(), color=_BLUE, rwidth=0.92)
        if wide:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylabel(counted)

    return _svg(title, draw)


def _shares(title: str, values: Sequence[float]) -> str:
    if not values:
        return ""

    def draw(axes: Axes) -> None:
        axes.hist(values, bins=[number / 10 for number in range(11)], color=_BLUE, rwidth=0.92)
        axes.set_ylabel("questions")
        axes.set_xlim(0, 1)

    return _svg(title, draw)


def _bars(title: str, counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    shown = dict(list(counts.items())[:_LANGUAGES])
    rest = sum(counts.values()) - sum(shown.values())
    if rest:
        shown["others"] = rest

    def draw(axes: Axes) -> None:
        places = range(len(shown))
        bars = axes.barh(places, list(shown.values()), color=_BLUE, height=min(0.7, 0.18 * len(shown)))
        axes.set_yticks(places, [name[:16] for name in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.bar_label(bars, padding=3)
        axes.margins(x=0.12)
        axes.set_xlabel("rows")

    return _svg(title, draw)


def _svg(title: str, draw: Any) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    out = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        # A letter that the font lacks is drawn by the browser.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title(title)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
