"""What a measurement of answers says, as JSON: means, intervals, tests, mistakes. `page_reader` shows it. Asks no model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetune.ability import accuracy
from finetune.evaluate_reader import Result
from finetune.measures import MEASURES, TOTAL, WEIGHTS
from finetune.mistakes import count_mistakes, worst
from finetune.posed import Posed
from finetune.reading import Asked, Outcome
from finetune.significance import Paired, mean, paired
from finetune.systems import shown
from reader.quotes import parse
from retriever.errors import BelegError
from retriever.schema import Hit

__all__ = ["FORMAT", "read_report", "summary"]

FORMAT = 1
"""Of report.json: raised whenever a field changes its meaning."""

_TEXT = 1600
"""Characters of a passage that are shown: some more than a chunk of 200 tokens has."""

_UNPAIRED = "seconds"
_LATENCIES = (50, 95)


def summary(
    results: Sequence[Result],
    posed: Posed,
    *,
    about: Mapping[str, Any],
    weights: Mapping[str, float] = WEIGHTS,
    before: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return everything that report.json holds.

    Args:
        results: of all systems; the first is what others are compared with.
        about: what was measured, for people: sources, number of passages.
        before: an earlier report of the same questions, by `read_report`.
        seed: of the resampling.
    """
    documents = {one.id: one.document for one in posed.asked}
    open_book = [item for item in results if not item.closed]
    return {
        "format": FORMAT,
        "version": version("beleg"),
        **about,
        "questions": len(posed.asked),
        "unanswerable": sum(not one.answers for one in posed.asked),
        "groups_of_questions": len(set(documents.values())),
        "documents": posed.documents,
        "chunks": posed.chunks,
        "left_out": dict(posed.left_out),
        "seed": seed,
        "weights": dict(weights),
        "systems": [_system(item, documents, seed) for item in results],
        "comparisons": [
            {"new": new.name, "old": old.name, "measure": measure, **found}
            for old, new in _pairs(results)
            for measure, found in _compared(old.values, new.values, documents, seed).items()
        ],
        "by": {"language": _by_language(open_book, posed, documents, seed)},
        "ability": _ability(results),
        "before": _before(before, results, documents, seed) if before else None,
        "worst": {item.name: [_told(one, item) for one in worst(item.outcomes, _totals(item))] for item in results},
        "per_question": [_question(one, results) for one in posed.asked],
    }


def read_report(path: Path) -> dict[str, Any]:
    """Read an earlier report.json of this command.

    Raises:
        BelegError: it cannot be read, or is no such report.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BelegError(f"{path} cannot be read: {error}.", way_out="Name the report.json of an earlier run.") from error
    kept = isinstance(data, dict) and {"systems", "per_question", "weights"} <= data.keys()
    if not kept or data.get("format") != FORMAT:
        raise BelegError(f"{path} is no report of `beleg evaluate reader`.", way_out="Name the report.json of an earlier run.")
    return {"name": str(path), **data}


def _pairs(results: Sequence[Result]) -> list[tuple[Result, Result]]:
    """Return what is compared, old and new: those with passages among each other, those without likewise."""
    pairs = []
    for closed in (False, True):
        alike = [item for item in results if item.closed == closed]
        pairs += [(alike[0], new) for new in alike[1:]]
    return pairs


def _system(item: Result, documents: Mapping[str, str], seed: int) -> dict[str, Any]:
    failures = [{"id": one.asked.id, "reason": one.failure} for one in item.outcomes if one.failure]
    return {
        "name": item.name,
        "what": shown(item.spec.what),
        "closed_book": item.closed,
        **item.facts,
        "asked": len(item.outcomes),
        "answered": sum(not one.failure and not one.answer.abstained for one in item.outcomes),
        "abstained": dict(Counter(one.answer.reason or "" for one in item.outcomes if one.answer.abstained)),
        "failures": failures,
        "measures": {
            name: {**asdict(mean(values, groups=documents, seed=seed)), "questions": len(values)}
            for name, values in item.values.items()
            if values
        },
        "latency": _latency([one.seconds for one in item.outcomes if one.asked.id in item.values.get("seconds", {})]),
        "cosines": [round(value, 4) for value in _given_cosines(item)],
        "mistakes": count_mistakes(item.outcomes),
    }


def _given_cosines(item: Result) -> list[float]:
    given = {one.asked.id for one in item.outcomes if not one.answer.abstained and not one.failure}
    return [value for key, value in item.values["cosine"].items() if key in given]


def _latency(seconds: Sequence[float]) -> dict[str, float] | None:
    import numpy as np

    if not seconds:
        return None
    return {f"p{share}": round(float(np.percentile(seconds, share)), 4) for share in _LATENCIES}


def _compared(
    old: Mapping[str, Mapping[str, float]],
    new: Mapping[str, Mapping[str, float]],
    documents: Mapping[str, str],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Return each measure's difference over the questions that it applies to on both sides."""
    found = {}
    for measure in (TOTAL, *MEASURES):
        both = [key for key in new.get(measure, ()) if key in old.get(measure, ()) and key in documents]
        if measure != _UNPAIRED and both:
            sides = [{key: values[measure][key] for key in both} for values in (new, old)]
            found[measure] = {**_paired(paired(*sides, groups=documents, seed=seed)), "questions": len(both)}
    return found


def _paired(found: Paired) -> dict[str, Any]:
    return {**asdict(found), "verdict": found.verdict}


def _by_language(results: Sequence[Result], posed: Posed, documents: Mapping[str, str], seed: int) -> list[dict[str, Any]]:
    groups = []
    for language, count in sorted(Counter(one.language for one in posed.asked).items()):
        members = {one.id for one in posed.asked if one.language == language}
        systems = {}
        for item in results:
            inside = {
                name: {key: value for key, value in item.values[name].items() if key in members}
                for name in (TOTAL, "f1", "golden_quote", "abstained_rightly")
            }
            systems[item.name] = {
                name: asdict(mean(values, groups=documents, seed=seed)) for name, values in inside.items() if values
            }
        groups.append({"name": language, "questions": count, "systems": systems})
    return groups


def _ability(results: Sequence[Result]) -> dict[str, Any]:
    found = {}
    for item in results:
        if item.chosen:
            right = [one.right for one in item.chosen]
            found[item.name] = {
                **asdict(accuracy(right)),
                "unlabelled": sum(not one.label for one in item.chosen),
                "failures": [{"id": one.id, "reason": one.failure} for one in item.chosen if one.failure],
                "per_question": {one.id: float(one.right) for one in item.chosen},
            }
    return found


def _before(before: Mapping[str, Any], results: Sequence[Result], documents: Mapping[str, str], seed: int) -> dict[str, Any]:
    """Return how each system differs from the one of its name in an earlier report, or from that report's first."""
    names = [one["name"] for one in before["systems"]]
    comparisons, ability = [], []
    for item in results:
        # The first of an earlier report is what was served then.
        old = item.name if item.name in names else names[0]
        if item.closed and old != item.name:
            continue
        earlier: dict[str, dict[str, float]] = {}
        for question in before["per_question"]:
            for measure, value in question["systems"].get(old, {}).get("measures", {}).items():
                earlier.setdefault(measure, {})[question["id"]] = value
        for measure, found in _compared(earlier, item.values, documents, seed).items():
            comparisons.append({"new": item.name, "old": f"{old} before", "measure": measure, **found})
        known = (before.get("ability") or {}).get(old, {}).get("per_question", {})
        both = {one.id: float(one.right) for one in item.chosen if one.id in known}
        if both:
            one = paired(both, {key: known[key] for key in both}, seed=seed)
            ability.append(
                {"new": item.name, "old": f"{old} before", "questions": len(both), **_paired(one),
                 "before": sum(known[key] for key in both) / len(both), "after": sum(both.values()) / len(both)}
            )  # fmt: skip
    if not comparisons and not ability:
        raise BelegError(
            f"{before['name']} and this run have no question in common.",
            way_out="Measure on the same questions, or leave it out.",
        )
    return {"report": before["name"], "comparisons": comparisons, "ability": ability}


def _totals(item: Result) -> Mapping[str, float]:
    return item.values["f1"] if item.closed else item.values[TOTAL]


def _told(outcome: Outcome, item: Result) -> dict[str, Any]:
    asked, answer = outcome.asked, outcome.answer
    written = parse(answer.reasoning)
    return {
        "id": asked.id,
        "question": asked.question,
        "language": asked.language,
        "document": asked.document,
        "mistake": item.kinds[asked.id],
        "total": _totals(item).get(asked.id, 0.0),
        "golden": list(asked.answers),
        "proof": list(asked.golden),
        "answer": outcome.failure or answer.answer,
        "withheld": (written.answer or "") if answer.abstained and not written.abstained else "",
        "reason": answer.reason,
        "quotes": [quote.text for quote in answer.quotes],
        "passages": [] if outcome.closed else [_passage(hit, kind) for hit, kind in zip(asked.hits, asked.kinds, strict=True)],
    }


def _passage(hit: Hit, kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "title": " > ".join(dict.fromkeys((hit.title, *hit.headings))) or hit.source,
        "source": hit.source,
        "page": hit.page,
        "text": hit.text[:_TEXT] + ("…" if len(hit.text) > _TEXT else ""),
    }


def _question(one: Asked, results: Sequence[Result]) -> dict[str, Any]:
    key = one.id
    systems = {}
    for item in results:
        measures = {name: values[key] for name, values in item.values.items() if key in values}
        if key in item.kinds:
            systems[item.name] = {"mistake": item.kinds[key], "measures": measures}
    return {
        "id": key,
        "question": one.question,
        "document": one.document,
        "language": one.language,
        "answerable": bool(one.answers),
        "systems": systems,
    }
