"""What a measurement says, as JSON and as one page that shows all of the JSON. Measures nothing and opens no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetune.data.schema import Row
from finetune.evaluate_retriever import CURVE, MEASURES, Change, Scores, Tuned, changes, groups_of
from finetune.pages import render_page, safe, write_page
from finetune.significance import Mean, Paired, mean, paired
from retriever.schema import Hit

__all__ = ["FORMAT", "compared", "render", "summary", "write_report"]

FORMAT = 1
"""Of report.json: raised whenever a field changes its meaning."""

_MEASURE = "nDCG@10"
_TEXT = 320
"""Characters of a passage that are shown: enough to see what it is about."""


def compared(scores: Sequence[Scores]) -> list[tuple[Scores, Scores]]:
    """Return the pairs to compare, old and new.

    Systems of another encoder are compared with those of their kind of the first encoder, and these with the first of all.
    """
    first = scores[0]
    pairs = []
    for new in scores[1:]:
        alike = (old for old in scores if old.system.kind == new.system.kind and old.system.encoder == first.system.encoder)
        old = first if new.system.encoder == first.system.encoder else next(alike, first)
        pairs.append((old, new))
    return pairs


def summary(
    scores: Sequence[Scores],
    rows: Sequence[Row],
    *,
    about: Mapping[str, Any],
    tuned: Mapping[str, Tuned] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return everything that report.json holds.

    Args:
        scores: of all systems on the same questions; the first is what others are compared with (see `compared`).
        rows: whose positions the scores' keys are.
        about: what was measured, for people: sources, numbers of documents and chunks.
        tuned: by encoder, what `tune_alpha` found on these questions.
        seed: of the resampling.
    """
    keys = list(scores[0].values[_MEASURE])
    documents = {key: rows[int(key)].document or key for key in keys}
    pairs = compared(scores)
    told = _told(pairs)
    return {
        "format": FORMAT,
        "version": version("beleg"),
        **about,
        "questions": len(keys),
        "groups_of_questions": len(set(documents.values())),
        "seed": seed,
        "systems": [_system(item, documents, seed) for item in scores],
        "comparisons": [
            {"new": new.system.name, "old": old.system.name, "measure": measure, **_paired(old, new, measure, documents, seed)}
            for old, new in pairs
            for measure in MEASURES
        ],
        "by": {
            kind: [_group(name, members, scores, told, documents, seed) for name, members in groups.items()]
            for kind, groups in groups_of(rows, keys).items()
        },
        "alpha": {name: {"best": found.alpha, "curve": found.curve} for name, found in (tuned or {}).items()},
        "side_by_side": [
            {**_paired(old, new, _MEASURE, documents, seed), **_side_by_side(old, new, rows)} for old, new in told
        ],
        "per_question": [_question(key, rows[int(key)], scores) for key in keys],
    }


def render(data: Mapping[str, Any]) -> str:
    """Return the page; see `finetune.pages.render_page`."""
    return render_page(
        "retriever.html",
        data=data,
        charts=safe(_charts(data)),
        measures=MEASURES,
        compared=[item for item in data["comparisons"] if item["measure"] == _MEASURE],
    )


def write_report(folder: Path, data: Mapping[str, Any]) -> Path:
    """Write report.json and report.html; return the page.

    Raises:
        BelegError: the folder cannot be written to.
    """
    return write_page(folder, "report", data, render, way_out="Name another `--out`.")


def _told(pairs: Sequence[tuple[Scores, Scores]]) -> list[tuple[Scores, Scores]]:
    """Return the pairs whose questions are shown: what a new encoder or a reranker changes in what people get."""
    told = [
        (old, new)
        for old, new in pairs
        if new.system.kind == "reranked" or (new.system.kind == "fused" and old.system.kind == "fused")
    ]
    # With nothing new to look at: what both sides together find that words alone do not.
    return told or [(new, old) for old, new in pairs if new.system.kind == "BM25"] or list(pairs[:1])


def _system(scores: Scores, documents: Mapping[str, str], seed: int) -> dict[str, Any]:
    system = scores.system
    return {
        "name": system.name,
        "kind": system.kind,
        "mode": system.mode,
        "encoder": system.encoder,
        "fingerprint": system.searcher.encoder.fingerprint,
        "alpha": system.searcher.alpha if system.mode == "fused" else None,
        "reranker": system.searcher.reranker.fingerprint if system.rerank and system.searcher.reranker else None,
        "measures": {name: asdict(mean(scores.values[name], groups=documents, seed=seed)) for name in MEASURES},
        "recall": [(depth, _mean(scores.values[f"R@{depth}"])) for depth in CURVE],
    }


def _paired(
    old: Scores, new: Scores, measure: str, documents: Mapping[str, str], seed: int, members: Sequence[str] | None = None
) -> dict[str, Any]:
    sides = [scores.values[measure] for scores in (new, old)]
    if members is not None:
        sides = [{key: values[key] for key in members} for values in sides]
    found: Paired = paired(*sides, groups=documents, seed=seed)
    return {**asdict(found), "verdict": found.verdict}


def _group(
    name: str,
    members: Sequence[str],
    scores: Sequence[Scores],
    told: Sequence[tuple[Scores, Scores]],
    documents: Mapping[str, str],
    seed: int,
) -> dict[str, Any]:
    means = {
        item.system.name: asdict(mean({key: item.values[_MEASURE][key] for key in members}, groups=documents, seed=seed))
        for item in scores
    }
    comparisons = [
        {"new": new.system.name, "old": old.system.name, **_paired(old, new, _MEASURE, documents, seed, members)}
        for old, new in told
    ]
    return {"name": name, "questions": len(members), "systems": means, "comparisons": comparisons}


def _side_by_side(old: Scores, new: Scores, rows: Sequence[Row]) -> dict[str, Any]:
    better, worse = changes(old, new)
    values = [scores.values[_MEASURE] for scores in (old, new)]
    return {
        "old": old.system.name,
        "new": new.system.name,
        "differences": [values[1][key] - values[0][key] for key in values[0]],
        "most_improved": [_change(item, rows) for item in better],
        "most_worsened": [_change(item, rows) for item in worse],
    }


def _change(change: Change, rows: Sequence[Row]) -> dict[str, Any]:
    row = rows[int(change.key)]
    return {
        "id": row.id,
        "question": row.question,
        "origin": row.origin,
        "language": row.language,
        "answers": [answer.text for answer in row.answers],
        "difference": change.difference,
        "old": {"value": change.old_value, "rank": change.old_rank, "hit": _hit(change.old)},
        "new": {"value": change.new_value, "rank": change.new_rank, "hit": _hit(change.new)},
    }


def _hit(hit: Hit | None) -> dict[str, Any] | None:
    if hit is None:
        return None
    text = " ".join(hit.text.split())
    return {
        "source": hit.source,
        "title": hit.title,
        "page": hit.page,
        "text": text[:_TEXT] + ("…" if len(text) > _TEXT else ""),
        "score": hit.score,
    }


def _question(key: str, row: Row, scores: Sequence[Scores]) -> dict[str, Any]:
    return {
        "id": row.id,
        "question": row.question,
        "origin": row.origin,
        "document": row.document,
        "language": row.language,
        "difficulty": row.difficulty,
        "systems": {
            item.system.name: {"rank": item.ranks[key], **{name: item.values[name][key] for name in MEASURES}}
            for item in scores
        },
    }


def _charts(data: Mapping[str, Any]) -> dict[str, str]:
    from finetune.charts import change_chart, curve_chart, interval_chart, weight_chart

    systems = data["systems"]
    charts = {
        "intervals": interval_chart(
            "intervals", {item["name"]: Mean(**item["measures"][_MEASURE]) for item in systems}, measure=_MEASURE
        ),
        "recall": curve_chart("recall", {item["name"]: item["recall"] for item in systems}),
    }
    for number, item in enumerate(data["side_by_side"]):
        name = f"changes-{number}"
        charts[name] = change_chart(name, item["differences"], old=item["old"], new=item["new"])
    if data["alpha"]:
        used = {item["encoder"]: item["alpha"] for item in systems if item["kind"] == "fused"}
        curves = {name: found["curve"] for name, found in data["alpha"].items()}
        charts["alpha"] = weight_chart("alpha", curves, used, weight="alpha, weight of meaning against words")
    return charts


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)
