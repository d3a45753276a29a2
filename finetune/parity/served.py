"""The last link: the very engine that serves answers questions as the trained model does. Compares shares, not words.

A quantized model may word an answer differently; it must still answer in the asked form, quote word for word, come to an
end, and look at the passages: with another question's passages its answer changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from finetune.parity.cases import Case, crossed
from finetune.parity.reference import Reference
from finetune.parity.result import Cause, Finding, Link
from reader.engine.base import Prompt, never
from reader.engine.llamacpp import LlamaCpp
from reader.errors import EngineError, PromptTooLong
from reader.prompt import render
from reader.quotes import Freedom, grammar, parse
from retriever.schema import Hit

__all__ = ["Rates", "Said", "answer_all", "check_served", "rates"]

_CONSTRAINED = 3
"""Answers that are made under the reader's grammar as well: that much shows whether the vocabulary can follow it."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: its text, whether the model ended it, and what was shown to it."""

    text: str
    ended: bool
    hits: tuple[Hit, ...]
    dropped: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares among answers.

    Attributes:
        answered: have the answer mark.
        quoted: quote, and every quote stands word for word in the passage that it names.
        ended: come to an end by themselves.
        depends: change, or become an abstention, when the passages are another question's.
        dropped: passages that found no room.
    """

    answered: float
    quoted: float
    ended: float
    depends: float
    dropped: int


def answer_all(
    engine: Reference | LlamaCpp, cases: Sequence[Case], *, tokens: int, on_done: Callable[[int], None], shots: bool = True
) -> tuple[list[Said], list[Said]]:
    """Have each question answered with its own passages, and with another question's; decoding is greedy and free.

    Args:
        shots: prompts begin with worked examples.

    Raises:
        PromptTooLong: a prompt does not fit the engine's context.
        EngineError: the engine failed.
    """

    def ask(case: Case) -> Said:
        rendered = render(engine, case.question, case.hits, answer_tokens=tokens, shots=shots)
        text = "".join(engine.generate(rendered.prompt, grammar=None, max_tokens=tokens, cancelled=never))
        on_done(1)
        return Said(text, engine.last_stats.generated_tokens < tokens, rendered.hits, rendered.dropped)

    return [ask(case) for case in cases], [ask(case) for case in crossed(cases)]


def rates(own: Sequence[Said], others: Sequence[Said]) -> Rates:
    """Count; `others` are the answers with exchanged passages."""
    count = max(len(own), 1)
    return Rates(
        answered=sum(parse(said.text).answer is not None for said in own) / count,
        quoted=sum(_quotes_stand(said) for said in own) / count,
        ended=sum(said.ended for said in own) / count,
        depends=sum(a.text.strip() != b.text.strip() for a, b in zip(own, others, strict=True)) / count,
        dropped=sum(said.dropped for said in own),
    )


def check_served(
    name: str,
    engine: LlamaCpp,
    trained: tuple[list[Said], list[Said]],
    cases: Sequence[Case],
    *,
    drop: float,
    tokens: int,
    on_done: Callable[[int], None],
    shots: bool = True,
) -> Link:
    """Compare the served engine's answers with the trained model's.

    Args:
        trained: what `answer_all` gave for it.
        drop: how much lower each share may be. A form that was not trained is missed on both sides, and not asked for.
        shots: as for `answer_all`.
    """
    title = f"Answers of the served {name}"
    drop = max(drop, 1.01 / max(len(cases), 1))  # a single answer may always fall the other way
    expected = rates(*trained)
    try:
        said = answer_all(engine, cases, tokens=tokens, on_done=on_done, shots=shots)
        constrained, broken = _under_grammar(engine, cases[:_CONSTRAINED], tokens, shots=shots)
    except PromptTooLong as error:
        return Link(f"served-{name}", title, False, asdict(expected), {}, (Finding(Cause.TRUNCATED, error.message),))
    except EngineError as error:
        return Link(f"served-{name}", title, False, asdict(expected), {}, (Finding(Cause.UNKNOWN, error.message),))
    found = rates(*said)
    findings = []
    if found.dropped > expected.dropped:
        findings.append(
            Finding(Cause.TRUNCATED, f"{found.dropped} passages find no room, {expected.dropped} when it was trained")
        )
    if found.depends < expected.depends - drop:
        findings.append(
            Finding(
                Cause.TRUNCATED,
                f"answers change with the passages in {found.depends:.0%} of cases, in {expected.depends:.0%} as trained",
            )
        )
    if found.ended < expected.ended - drop:
        findings.append(Finding(Cause.END, f"{found.ended:.0%} of answers end, {expected.ended:.0%} as trained"))
    for what, mine, theirs in (
        ("have the asked form", found.answered, expected.answered),
        ("quote word for word", found.quoted, expected.quoted),
    ):
        if mine < theirs - drop:
            findings.append(Finding(Cause.UNKNOWN, f"{mine:.0%} of answers {what}, {theirs:.0%} as trained"))
    if broken:
        findings.append(Finding(Cause.TOKENIZER, f"{broken} of {constrained} answers under the grammar break it"))
    same = sum(a.text.strip() == b.text.strip() for a, b in zip(trained[0], said[0], strict=True))
    examples = [
        f"{case.question}\ntrained: {a.text.strip()[:300]}\nserved: {b.text.strip()[:300]}"
        for case, a, b in zip(cases, trained[0], said[0], strict=True)
        if a.text.strip() != b.text.strip()
    ]
    keys = ("answered", "quoted", "ended", "depends")
    return Link(
        f"served-{name}",
        title,
        not findings,
        {
            "answers": len(cases),
            "same_text": same / max(len(cases), 1),
            **asdict(found),
            **{f"trained_{key}": getattr(expected, key) for key in keys},
            "constrained": constrained,
            "constrained_broken": broken,
        },
        {**{key: round(max(getattr(expected, key) - drop, 0.0), 4) for key in keys}, "constrained_broken": 0},
        tuple(findings),
        tuple(examples[:5]),
    )


def _quotes_stand(said: Said) -> bool:
    quotes = parse(said.text).quotes
    return bool(quotes) and all(
        1 <= number <= len(said.hits) and quoted.strip() and quoted in said.hits[number - 1].text for number, quoted in quotes
    )


def _under_grammar(engine: LlamaCpp, cases: Sequence[Case], tokens: int, *, shots: bool) -> tuple[int, int]:
    """Return how many answers were made under the grammar, and how many of them have a quote that is not one."""
    broken = 0
    # The least freedom, whatever it will be served with: so every answer has a quote that the vocabulary must spell.
    freedom = Freedom(may_abstain=False, reasoning=False, extractive=True)
    for case in cases:
        rendered = render(engine, case.question, case.hits, answer_tokens=tokens, shots=shots)
        rules = grammar(rendered.hits, freedom)
        prompt: Prompt = rendered.prompt
        text = "".join(engine.generate(prompt, grammar=rules, max_tokens=tokens, cancelled=never))
        said = Said(text, True, rendered.hits, 0)
        # An answer that was still going on when its room ended proves nothing.
        broken += "##end_quote##" in text and not _quotes_stand(said)
    return len(cases), broken
