"""The gate: link by link from the trained adapter to the served file. Any link that fails refuses the export.

Models are loaded one after the other, at most two of them at a time; what stays are their logits. Knows how to compare, not how
the files were made, so that it also finds what went wrong in making them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finetune.merge import FULL, Adapter, Way, load_merged
from finetune.parity.cases import CASES, Case, answer_for, filled, mixed
from finetune.parity.diagnosis import Effect, exceeds, of_adapter_file, of_length, of_merge, weights_effect
from finetune.parity.limits import Bound, Effort, Limits
from finetune.parity.logits import Divergence, GgufModel, Logits, Probe, compare, logits_of_gguf, logits_of_model
from finetune.parity.reference import Reference
from finetune.parity.result import Cause, Finding, Link, Parity
from finetune.parity.served import Said, answer_all, check_served
from finetune.parity.tokens import check_tokens
from reader.engine.llamacpp import LlamaCpp
from reader.engine.weights import Base, adapt, load_base, load_tokenizer
from reader.errors import PromptTooLong
from reader.prompt import Rendered, render
from retriever.errors import ModelError

__all__ = ["Gate", "OpenEngine"]

OpenEngine = Callable[[Path, int], LlamaCpp]
"""Opens the served engine on a file, with a context of so many tokens."""


@dataclass
class Gate:
    """Compares what was trained with what will be served.

    Args:
        base, adapter: what was trained.
        cases: held-out questions with passages.
        shots: prompts begin with worked examples, as they do when it is served.
        open_engine: how the file is served; None takes the reader's engine as it is.
        threads: of llama.cpp; None takes as many as this process may run on.
        on_phase: is told what begins, and how many steps it has.
        on_progress: is told how many steps were done.
    """

    base: Base
    adapter: Adapter
    cases: tuple[Case, ...] = CASES
    shots: bool = True
    limits: Limits = field(default_factory=Limits)
    effort: Effort = field(default_factory=Effort)
    open_engine: OpenEngine | None = None
    threads: int | None = None
    on_phase: Callable[[str, int | None], None] = lambda _name, _steps: None
    on_progress: Callable[[int], None] = lambda _steps: None

    def __post_init__(self) -> None:
        self._trained: list[Logits] | None = None
        self._probes: list[Probe] | None = None
        self._reference: Reference | None = None
        self._trained_context = 0

    @property
    def reference(self) -> Reference:
        """The trained model's tokenizer and template, as an engine."""
        if self._reference is None:
            # No prompt is longer than the model was trained for.
            self._trained_context = self._find_context()
            tokenizer = load_tokenizer(self.base, self.adapter.folder)
            self._reference = Reference(tokenizer, min(self.effort.context, self._trained_context))
        return self._reference

    @property
    def probes(self) -> list[Probe]:
        """Prompts with answers, the same for all models."""
        if self._probes is None:
            learnt = [case for case in self.cases if case.answer][: self.effort.short]
            short = mixed(self.cases, self.effort.short - len(learnt))
            shown = [self._probe(case, full=False) for case in learnt]
            shown += [self._probe(Case(case.question, case.hits[:1]), full=False) for case in short]
            full = [self.cases[index % len(self.cases)] for index in range(self.effort.full)]
            self._probes = shown + [self._probe(filled(case, self.cases, self._fitting(case)), full=True) for case in full]
        return self._probes

    def measure_merge(self, merged: Path) -> Divergence:
        """Measure how far a merged model is from base and adapter."""
        return compare(self.probes, self._trained_logits(), self._logits_of(load_merged(merged), "merged"))

    def judge(self, merged: Path, f16: Path, quantized: Mapping[str, Path], *, way: Way) -> Parity:
        """Test every link of a merged export.

        Args:
            merged: folder of the merged model.
            f16: the GGUF that all others were quantized from.
            quantized: the others, by kind.
            way: onto which base it was merged.
        """
        links = [self._tokens(f16, merged)]
        trained = None if self.adapter.kind == FULL else self._trained_logits()
        model = load_merged(merged)
        logits = self._logits_of(model, "merged")
        if trained is not None:
            links.append(self._merge_link(trained, logits, model, way))
        said = self._answers(model)
        del model, trained
        self._trained = None
        gc.collect()
        exact, link = self._gguf_link("f16", "GGUF in f16 against the merged model", f16, logits, self.limits.f16)
        links.append(link)
        for kind, path in quantized.items():
            if kind == "f16":
                continue
            bound = self.limits.quantized.get(kind, self.limits.quantized["q4_k_m"])
            if exact is None:
                links.append(Link(kind, f"{kind} against f16", False, {}, {}, (Finding(Cause.UNKNOWN, "f16 has no logits"),)))
            else:
                links.append(self._gguf_link(kind, f"{kind} against f16", path, exact, bound)[1])
        links += [self._served(kind, path, said) for kind, path in quantized.items()]
        return Parity(tuple(links))

    def judge_adapter(self, base_file: Path, adapter_file: Path, *, rounded: bool) -> Parity:
        """Test an adapter's GGUF over its base's GGUF. It is not promoted, so no answers are served.

        Args:
            rounded: whether the base's GGUF is quantized.
        """
        links = [self._tokens(base_file, self.base.folder)]
        bound = self.limits.adapter_over_quantized if rounded else self.limits.f16
        if self.adapter.bits:
            bound = self.limits.merged_rounded
        title = "Base GGUF with adapter GGUF against base and adapter"
        trained = self._trained_logits()
        links.append(self._gguf_link("adapter", title, base_file, trained, bound, adapter_file)[1])
        return Parity(tuple(links))

    def _find_context(self) -> int:
        """Return how many tokens the model was trained for."""
        from transformers import AutoConfig

        whole = self.adapter.kind == FULL
        if self.base.gguf and not whole:
            model = GgufModel(self.base.folder / self.base.gguf, context_size=256)
            trained = model.trained_context
            model.free()
            return trained
        config = AutoConfig.from_pretrained(str(self.adapter.folder if whole else self.base.folder))
        return int(getattr(config, "max_position_embeddings", self.effort.context))

    def _open(self, file: Path) -> LlamaCpp:
        context = self.reference.context_size
        if self.open_engine:
            return self.open_engine(file, context)
        return LlamaCpp(file, model=file.name, fingerprint="", context_size=context, threads=self.threads)

    def _tokens(self, file: Path, folder: Path) -> Link:
        self.on_phase("tokens", None)
        model = GgufModel(file, context_size=256)
        ends = model.ends
        model.free()
        engine = self._open(file)
        try:
            return check_tokens(
                self.reference,
                engine,
                ends,
                trained_ends=self.reference.ends(folder),
                file=file,
                cases=self.cases,
                rendered=self.effort.rendered,
                shots=self.shots,
            )
        finally:
            engine.close()

    def _trained_logits(self) -> list[Logits]:
        if self._trained is None:
            if self.adapter.kind == FULL:
                model = load_merged(self.adapter.folder)
            else:
                model = adapt(load_base(self.base, bits=self.adapter.bits, floating=False), self.adapter.folder)
            self._trained = self._logits_of(model, "trained")
        return self._trained

    def _logits_of(self, model: Any, phase: str) -> list[Logits]:
        self.on_phase(phase, len(self.probes))
        return logits_of_model(model, self.probes, self.on_progress)

    def _merge_link(self, trained: list[Logits], logits: list[Logits], merged: Any, way: Way) -> Link:
        rounded = self.adapter.bits is not None and way == "original"
        bound = self.limits.merged_rounded if rounded else self.limits.merged
        found = compare(self.probes, trained, logits)
        findings: tuple[Finding, ...] = ()
        if exceeds(found, bound):
            findings = (of_merge(self._effect(merged, way)),)
        return _link("merged", "Merged model against base and adapter", found, bound, findings)

    def _effect(self, merged: Any, way: Way) -> Effect | None:
        base = load_base(self.base, bits=self.adapter.bits if way == "dequantized" else None)
        # The adapter's own matrices do not depend on what it stands on.
        try:
            return weights_effect(adapt(load_base(self.base), self.adapter.folder), base, merged)
        except (ModelError, AttributeError, RuntimeError, TypeError):
            return None

    def _gguf_link(
        self,
        name: str,
        title: str,
        file: Path,
        against: list[Logits],
        bound: Bound,
        adapter: Path | None = None,
    ) -> tuple[list[Logits] | None, Link]:
        self.on_phase(name, len(self.probes))
        try:
            model = GgufModel(file, context_size=self.reference.context_size, adapter=adapter, threads=self.threads)
        except ModelError as error:
            return None, Link(name, title, False, {}, asdict(bound), (Finding(Cause.UNKNOWN, error.message),))
        try:
            logits = logits_of_gguf(model, self.probes, self.on_progress)
        except PromptTooLong as error:
            return None, Link(name, title, False, {}, asdict(bound), (Finding(Cause.TRUNCATED, error.message),))
        finally:
            context = model.trained_context
            model.free()
        found = compare(self.probes, against, logits)
        findings = []
        if context < self._trained_context:
            findings.append(
                Finding(Cause.TRUNCATED, f"the file claims a context of {context} tokens, the model {self._trained_context}")
            )
        if exceeds(found, bound):
            by_file = of_adapter_file(self.adapter, adapter) if adapter else None
            usual = Cause.COARSE if name in self.limits.quantized and name != "f16" else Cause.UNKNOWN
            findings.append(by_file or of_length(found, bound) or Finding(usual, "the distributions are too far apart"))
        link = _link(name, title, found, bound, tuple(findings), context=context)
        return logits, link

    def _answers(self, model: Any) -> tuple[list[Said], list[Said]]:
        asked = self.cases[: self.effort.answers]
        self.on_phase("answers", 2 * len(asked))
        self.reference.weights = model
        try:
            return answer_all(
                self.reference, asked, tokens=self.effort.answer_tokens, on_done=self.on_progress, shots=self.shots
            )
        finally:
            self.reference.close()

    def _served(self, kind: str, path: Path, said: tuple[list[Said], list[Said]]) -> Link:
        asked = self.cases[: self.effort.answers]
        self.on_phase("served", 2 * len(asked))
        engine = self._open(path)
        try:
            return check_served(
                kind,
                engine,
                said,
                asked,
                drop=self.limits.rates_drop,
                tokens=self.effort.answer_tokens,
                on_done=self.on_progress,
                shots=self.shots,
            )
        finally:
            engine.close()

    def _probe(self, case: Case, *, full: bool) -> Probe:
        answer_tokens = self.effort.tail + 16
        rendered = self._render(case, answer_tokens)
        # Where passages found no room, the answer that was learnt may quote what is not shown.
        shown = Case(case.question, rendered.hits, "" if rendered.dropped else case.answer)
        answer = self.reference.tokenize(answer_for(shown))[:answer_tokens]
        tokens = (*rendered.prompt.tokens, *answer)
        return Probe(tokens, min(self.effort.tail, len(tokens)), full)

    def _render(self, case: Case, answer_tokens: int) -> Rendered:
        return render(self.reference, case.question, case.hits, answer_tokens=answer_tokens, shots=self.shots)

    def _fitting(self, case: Case) -> int:
        """Return about how many passages fill the context; what is too many is dropped when rendering."""
        one = self._render(Case(case.question, case.hits[:1]), 0)
        each = [self.reference.count(hit.text) for other in self.cases for hit in other.hits]
        room = self.reference.context_size - len(one.prompt.tokens) - self.effort.tail - 16
        return 1 + max(0, round(room / (sum(each) / len(each) + 12)))


def _link(
    name: str, title: str, found: Divergence, bound: Bound, findings: tuple[Finding, ...], *, context: int | None = None
) -> Link:
    measured = asdict(found)
    if context is not None:
        measured["context"] = context
    return Link(name, title, not findings, measured, asdict(bound), findings)
