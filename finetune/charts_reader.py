"""Charts of answers, in the manner of `charts`: SVG that takes the page's colours. Knows numbers and names only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from finetune.canvas import FAINT, INK, canvas, colour, dashes, name_ends
from finetune.significance import Mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["cosine_chart", "measures_chart", "mistakes_chart", "over_time"]

_BINS = 20
_LINES = 8


def measures_chart(name: str, table: Mapping[str, Mapping[str, Mean]], systems: Sequence[str]) -> str:
    """Return all measures below each other, and for each a dot with its interval for every system.

    Args:
        name: of the chart, unique on its page.
        table: by measure, then by system; a system may lack a measure.
        systems: all of them, in the order in which charts give them their colours.
    """
    step = 0.2
    height = 1.0 + 0.2 * len(systems) + len(table) * (0.2 + 0.16 * len(systems))
    with canvas(name, height) as (axes, made):
        at = 0.0
        ticks = []
        for found in table.values():
            begin = at
            for number, system in enumerate(systems):
                one = found.get(system)
                if one is not None:
                    axes.plot([one.low, one.high], [at, at], color=colour(number), linewidth=1.6, solid_capstyle="round")
                    axes.plot([one.value], [at], "o", color=colour(number), markersize=4.5)
                at += step
            ticks.append((begin + at - step) / 2)
            axes.axhline(at - step / 2 + 0.1, color=FAINT, linewidth=0.4)
            at += 0.2
        axes.set_yticks(ticks, list(table))
        axes.set_ylim(at - 0.1, -0.2)
        axes.set_xlim(-0.02, 1.02)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("mean, with 95% interval")
        _legend(axes, systems)
    return made[0]


def mistakes_chart(name: str, counts: Mapping[str, Mapping[str, int]], kinds: Sequence[str]) -> str:
    """Return a bar for each kind of mistake and system, with its count.

    Args:
        counts: by system, then by kind; kinds that a system did not make may be missing.
        kinds: all kinds, in the order to show them; those that nobody made are left out.
    """
    from matplotlib.ticker import MaxNLocator

    made_by_some = {kind for found in counts.values() for kind in found}
    kinds = [kind for kind in kinds if kind in made_by_some]
    with canvas(name, 1.0 + 0.2 * len(counts) + len(kinds) * (0.12 + 0.17 * len(counts))) as (axes, made):
        width = 0.8 / max(len(counts), 1)
        for number, found in enumerate(counts.values()):
            places = [row - 0.4 + (number + 0.5) * width for row in range(len(kinds))]
            values = [found.get(kind, 0) for kind in kinds]
            axes.barh(places, values, height=0.9 * width, color=colour(number))
            for place, value in zip(places, values, strict=True):
                axes.annotate(
                    str(value), (value, place), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=8
                )
        axes.set_yticks(range(len(kinds)), kinds)
        axes.set_ylim(max(len(kinds), 1) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("answers")
        _legend(axes, list(counts))
    return made[0]


def cosine_chart(name: str, cosines: Mapping[str, Sequence[float]]) -> str:
    """Return how the raw cosines of answer and golden answer are distributed, a line for each system.

    Args:
        cosines: by system, of the answers that were given, -1 to 1.
    """
    import numpy as np

    given = {system: values for system, values in cosines.items() if len(values)}
    low = min([0.0, *(value for values in given.values() for value in values)])
    edges = np.linspace(low, 1.0, _BINS + 1)
    with canvas(name, 2.8 + 0.2 * len(given)) as (axes, made):
        for number, (system, values) in enumerate(cosines.items()):
            if system not in given:
                continue
            heights, _ = np.histogram(values, bins=edges)
            axes.stairs(
                heights / len(values), edges, color=colour(number), linestyle=dashes(number),
                linewidth=1.8, baseline=0,
            )  # fmt: skip
        axes.set_xlim(low - 0.02, 1.02)
        axes.set_xlabel("cosine of answer and golden answer, as it is")
        axes.set_ylabel("share of answers")
        _legend(axes, list(cosines))
    return made[0]


def over_time(points: Sequence[tuple[int, Mapping[str, float]]], *, name: str = "over-time") -> str:
    """Return how measures changed while a model was trained, a line for each with its name at the right end.

    Args:
        points: step and the means by measure; a measure may be missing at some steps.
        name: of the chart, unique on its page.
    """
    measures = list(dict.fromkeys(measure for _, found in points for measure in found))
    lines = {
        measure: [(step, found[measure]) for step, found in sorted(points, key=lambda point: point[0]) if measure in found]
        for measure in measures
    }
    with canvas(name, 3.4 if len(lines) <= _LINES else 4.6) as (axes, made):
        for number, line in enumerate(lines.values()):
            axes.plot(
                *zip(*line, strict=True), color=colour(number), linestyle=dashes(number),
                linewidth=1.8, marker="o", markersize=3,
            )  # fmt: skip
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.0), max(high, 1.02))
        name_ends(axes, {measure: line[-1] for measure, line in lines.items()})
        axes.set_xlabel("training steps")
        axes.set_ylabel("mean")
    return made[0]


def _legend(axes: Axes, systems: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    if len(systems) < 2:
        return
    handles = [Line2D([], [], color=colour(number), linewidth=2.5, label=system) for number, system in enumerate(systems)]
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False, ncols=1, borderaxespad=0, handlelength=1.6
    )
