"""Charts of retrieval, as SVG that stands inside a page: its words are text. Knows numbers and names only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune.canvas import FAINT, INK, canvas, colour, dashes, name_ends
from finetune.significance import Mean

__all__ = ["change_chart", "curve_chart", "interval_chart", "weight_chart"]


def interval_chart(name: str, means: Mapping[str, Mean], *, measure: str) -> str:
    """Return a dot for each system with its interval, in the order given, the first one's mean as a line through all.

    Args:
        name: of the chart, unique on its page.
    """
    with canvas(name, 0.7 + 0.36 * len(means)) as (axes, made):
        first = next(iter(means.values()))
        axes.axvline(first.value, color=FAINT, linewidth=1)
        for at, found in enumerate(means.values()):
            axes.plot([found.low, found.high], [at, at], color=colour(at), linewidth=2, solid_capstyle="round")
            axes.plot([found.value], [at], "o", color=colour(at), markersize=6)
            axes.annotate(f"{found.value:.3f}", (found.value, at), (0, 6), textcoords="offset points", ha="center", color=INK)
        axes.set_yticks(range(len(means)), list(means))
        axes.set_ylim(len(means) - 0.5, -0.8)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{measure}, with 95% interval")
    return made[0]


def curve_chart(name: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Return recall by depth, a line for each system with its name at the right end."""
    with canvas(name, 3.4) as (axes, made):
        axes.set_xscale("log")
        for at, points in enumerate(curves.values()):
            axes.plot(*zip(*points, strict=True), color=colour(at), linestyle=dashes(at), linewidth=1.8)
        depths = sorted({depth for points in curves.values() for depth, _ in points})
        axes.set_xticks(depths, [str(depth) for depth in depths])
        axes.set_xticks([], minor=True)
        low, high = axes.get_ylim()
        axes.set_ylim(low, min(high, 1.02))
        name_ends(axes, {label: points[-1] for label, points in curves.items()})
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
    with canvas(name, 2.8) as (axes, made):
        edges = [step / 10 for step in range(-10, 11)]
        better, worse = [value for value in changed if value > 0], [value for value in changed if value < 0]
        axes.hist(worse, bins=edges, color=colour(1), rwidth=0.9)
        axes.hist(better, bins=edges, color=colour(0), rwidth=0.9)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_xlim(-1.02, 1.02)
        top = max(axes.get_ylim()[1], 1.0)
        axes.set_ylim(0, top * 1.25)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.annotate(f"{len(worse)} worse", (-0.5, top * 1.1), ha="center", color=INK)
        axes.annotate(f"{len(better)} better", (0.5, top * 1.1), ha="center", color=INK)
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
    with canvas(name, 3.2) as (axes, made):
        for at, (label, points) in enumerate(curves.items()):
            axes.plot(*zip(*points, strict=True), color=colour(at), linestyle=dashes(at), linewidth=1.8)
            if label in used:
                place = min(points, key=lambda point: abs(point[0] - used[label]))
                axes.plot(*place, "o", color=colour(at), markersize=6)
        name_ends(axes, {label: points[-1] for label, points in curves.items()})
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(f"{weight}; the dot is what is used")
        axes.set_ylabel("nDCG@10")
    return made[0]
