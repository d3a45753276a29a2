"""How what was trained is best used, on development rows, and what it brought, on test rows: before GGUF, by transformers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from finetune.measures import parse_weights, per_question, weighted_total
from finetune.raft.row import RaftRow
from finetune.reading import Outcome, answer_all, asked_of
from finetune.recipe_reader import ReaderRecipe
from finetune.training import Watch
from reader.answering import Reader
from reader.calibration import Calibration, read_calibration
from reader.engine.base import Engine
from reader.engine.hf import Transformers, open_source
from reader.engine.weights import open_base
from reader.opening import open_engine
from retriever.encode import Encoder, open_encoder
from retriever.settings import Settings

__all__ = ["Measured", "Measuring", "usage_of"]

_QUOTABLE = (0, 3, 1)
"""How many sentences may be quoted, of which the best is found out; the first of equal ones."""

_ROWS = 24
"""Development rows that this is found out on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How a reader is used, and the means of all measures on test rows with the base (`before`) and with it (`after`)."""

    usage: Calibration
    metrics: dict[str, Any]


@dataclass
class Measuring:
    """Answers rows as they are served, with the passages that they bring.

    Args:
        settings: say how the base is opened and used.
        encoder: model reference of the one that ranks sentences.
        rows: at most so many test rows; 0 for none.
    """

    settings: Settings
    encoder: str
    rows: int = 60
    open_encoder: Callable[..., Encoder] = field(default=open_encoder)

    def run(
        self,
        recipe: ReaderRecipe,
        usage: Calibration,
        model: Path,
        dev: Sequence[RaftRow],
        test: Sequence[RaftRow],
        watch: Watch,
    ) -> Measured:
        """Find out how the model in a folder is best used, and measure it against its base.

        Args:
            usage: what it has learnt to do; see `usage_of`.

        Raises:
            BelegError: a model cannot be opened, or fails.
        """
        drawn = random.Random(0)
        chosen_by = drawn.sample(list(dev), min(_ROWS, len(dev)))
        asked = drawn.sample(list(test), min(self.rows, len(test)))
        if not (self.rows and (chosen_by or asked)):
            return Measured(usage, {})
        ways = len(_QUOTABLE) + _may_be_denied(usage, chosen_by)
        watch.on_phase("measure", len(chosen_by) * ways + 2 * len(asked))
        encoder = self.open_encoder(self.encoder, threads=1)
        metrics: dict[str, Any] = {}
        with self._tuned(recipe, model) as engine:
            if chosen_by:
                totals = {
                    quotable: self._total(engine, replace(usage, quotable=quotable), chosen_by, encoder, watch)
                    for quotable in _QUOTABLE
                }
                usage = replace(usage, quotable=max(totals, key=totals.__getitem__))
                metrics["quotable"] = totals
                if _may_be_denied(usage, chosen_by):
                    never = replace(usage, may_abstain=False)
                    metrics["never_abstaining"] = self._total(engine, never, chosen_by, encoder, watch)
                    if metrics["never_abstaining"] > totals[usage.quotable]:
                        usage = never
            if asked:
                metrics["after"] = self._means(self._answers(engine, usage, asked, encoder, watch), encoder)
        if asked:
            with self._base(recipe) as base:
                served = read_calibration(self.settings.data_dir, base.fingerprint)
                metrics["before"] = self._means(self._answers(base, served, asked, encoder, watch), encoder)
            metrics["rows"] = len(asked)
        return Measured(usage, metrics)

    def _total(self, engine: Engine, usage: Calibration, rows: Sequence[RaftRow], encoder: Encoder, watch: Watch) -> float:
        return self._means(self._answers(engine, usage, rows, encoder, watch), encoder)["total"]

    def _means(self, outcomes: Sequence[Outcome], encoder: Encoder) -> dict[str, float]:
        values = per_question(outcomes, encoder)
        total = weighted_total(values, parse_weights(self.settings.answer_weights))
        return {
            **{name: round(fmean(found.values()), 4) for name, found in values.items() if found},
            "total": round(fmean(total.values()), 4),
            "failed": sum(bool(one.failure) for one in outcomes),
        }

    def _answers(
        self, engine: Engine, usage: Calibration, rows: Sequence[RaftRow], encoder: Encoder, watch: Watch
    ) -> list[Outcome]:
        reader = Reader(engine, usage, self.settings.answer_tokens)
        return answer_all(
            reader, [asked_of(row) for row in rows], encoder, progress=lambda: watch.on_progress(1), on_failure=lambda *_: None
        )

    @contextmanager
    def _tuned(self, recipe: ReaderRecipe, model: Path) -> Iterator[Engine]:
        adapter = recipe.adapter.type != "none"
        source = open_source(model, base=recipe.base_model if adapter else "", bits=recipe.quantization.bits or 0)
        context = recipe.preprocessing.global_max_sequence_length + self.settings.answer_tokens
        engine = Transformers(source, model="tuned", fingerprint="", context_size=max(context, self.settings.context_tokens))
        try:
            yield engine
        finally:
            engine.close()

    @contextmanager
    def _base(self, recipe: ReaderRecipe) -> Iterator[Engine]:
        # A GGUF is served as it is; another base in the bits that it was trained over, or it might not fit the memory.
        bits = 0 if open_base(recipe.base_model).gguf else recipe.quantization.bits or 0
        changed = {"reader": recipe.base_model, "reader_url": "", "reader_base": "", "reader_bits": bits, "reader_adapter": ""}
        engine = open_engine(self.settings.model_copy(update=changed))
        try:
            yield engine
        finally:
            engine.close()


def _may_be_denied(usage: Calibration, rows: Sequence[RaftRow]) -> bool:
    """Say whether rows can tell if a reader had better leave abstention to search and to the check of what it says."""
    return usage.may_abstain and any(row.abstains for row in rows)


def usage_of(recipe: ReaderRecipe, rows: Sequence[RaftRow] = ()) -> Calibration:
    """Return how a reader is used that was trained by a recipe on rows: it may do what it has learnt."""
    if recipe.data.format == "paragraphs":
        return Calibration()
    quoting = recipe.prompt.chain_of_thought and any(row.quotes for row in rows)
    lost = recipe.passages.golden is not None and recipe.passages.golden < 1
    return Calibration(
        may_abstain=lost or any(row.abstains for row in rows),
        reasoning=recipe.prompt.chain_of_thought and any(row.reasoning for row in rows),
        # What proves a bare answer is a sentence that has it, so it must be words of one.
        extractive=not quoting,
        quoting=quoting,
        shots=recipe.prompt.shots,
    )
