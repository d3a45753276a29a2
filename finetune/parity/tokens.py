"""Link one: what the served file makes of a text and of a rendered prompt must be what training made of it, id for id."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from finetune.parity.cases import AWKWARD, Case, mixed
from finetune.parity.reference import Reference
from finetune.parity.result import Cause, Finding, Link
from reader.engine.base import Engine
from reader.errors import PromptTooLong
from reader.prompt import render

__all__ = ["check_tokens", "scores_of"]

_SHOWN = 5
_CUT = 90


def check_tokens(
    trained: Reference,
    served: Engine,
    ends: Collection[int],
    *,
    trained_ends: Collection[int],
    file: Path,
    cases: Sequence[Case],
    rendered: int,
    shots: bool = True,
) -> Link:
    """Compare ids on awkward texts, special tokens and rendered prompts; the chat template; the tokens that end an answer.

    Args:
        ends: every id that ends an answer when served.
        trained_ends: those that must be among them.
        file: the GGUF that is served.
        rendered: how many prompts.
        shots: prompts begin with worked examples.
    """
    texts = [*AWKWARD, *(hit.text for case in cases for hit in case.hits), *(case.question for case in cases)]
    wrong = [text for text in texts if trained.tokenize(text) != served.tokenize(text)]
    # Between words, as a document might bring them, and at the start, as a template does.
    split = [text for text, index in trained.special.items() if text and served.tokenize(text)[-1:] != [index]]
    inside = [f"{text}x {text} y" for text in trained.special]
    wrong_inside = [text for text in inside if trained.tokenize(text) != served.tokenize(text)]
    prompts = mixed(cases, rendered)
    differing = [case for case in prompts if _ids(trained, case, shots=shots) != _ids(served, case, shots=shots)]
    same_template = trained.chat_template.strip() == served.chat_template.strip()
    missing = sorted(set(trained_ends) - set(ends))

    findings = []
    if split:
        findings.append(Finding(Cause.SPECIAL, f"{len(split)} special tokens become several: {', '.join(split[:_SHOWN])}"))
    if wrong:
        findings.append(_of_texts(len(wrong), len(texts), file))
    if missing:
        names = ", ".join(f"{trained.tokenizer.convert_ids_to_tokens(index)} ({index})" for index in missing)
        findings.append(Finding(Cause.END, f"served, these do not end an answer: {names}"))
    if served.eos != trained.eos:
        findings.append(Finding(Cause.END, f"the file's end token is {served.eos!r}, the trained one's is {trained.eos!r}"))
    if served.bos != trained.bos and trained.bos:
        findings.append(
            Finding(Cause.TOKENIZER, f"a text begins with {served.bos!r} in the file, with {trained.bos!r} in training")
        )
    if not same_template or (differing and not findings):
        why = "the file's chat template is another one" if not same_template else "texts are cut alike, and prompts are not"
        findings.append(Finding(Cause.TEMPLATE, why))
    if wrong_inside and not findings:
        findings.append(Finding(Cause.SPECIAL, "special tokens within a text are cut differently"))
    examples = [_difference(trained, served, text) for text in [*wrong[:_SHOWN], *wrong_inside[: _SHOWN - len(wrong)]]]
    return Link(
        "tokens",
        "Token ids, chat template, end tokens",
        not findings,
        {
            "texts": len(texts) + len(inside),
            "texts_differ": len(wrong) + len(wrong_inside),
            "special_tokens": len(trained.special),
            "special_tokens_split": len(split),
            "prompts": len(prompts),
            "prompts_differ": len(differing),
            "same_template": same_template,
            "end_tokens_missing": len(missing),
        },
        {"texts_differ": 0, "special_tokens_split": 0, "prompts_differ": 0, "end_tokens_missing": 0},
        tuple(findings),
        tuple(examples),
    )


def scores_of(file: Path) -> tuple[str, int]:
    """Return a GGUF's kind of tokenizer (llama is SentencePiece), and how many different scores its tokens have."""
    from gguf import GGUFReader

    reader = GGUFReader(str(file))
    kind, scores = reader.get_field("tokenizer.ggml.model"), reader.get_field("tokenizer.ggml.scores")
    return (
        str(kind.contents()) if kind else "",
        len({float(score) for score in scores.contents()}) if scores else 0,
    )


def _of_texts(count: int, of: int, file: Path) -> Finding:
    kind, scores = scores_of(file)
    why = f"{count} of {of} texts are cut differently"
    if kind != "llama":
        return Finding(Cause.TOKENIZER, f"{why}; the file's tokenizer is of the kind {kind or 'none'}")
    # A real one has a score for each merge; without the model, the converter gives all the same.
    if scores < 8:
        return Finding(Cause.SENTENCEPIECE, f"{why}, and the file's tokens have {scores} different scores in all")
    return Finding(Cause.TOKENIZER, f"{why}, though the file's tokens have scores")


def _ids(engine: Engine, case: Case, *, shots: bool) -> tuple[int, ...]:
    try:
        return render(engine, case.question, case.hits, answer_tokens=1, shots=shots).prompt.tokens
    except PromptTooLong:
        return ()


def _difference(trained: Reference, served: Engine, text: str) -> str:
    ours, theirs = trained.tokenize(text), served.tokenize(text)
    at = next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    return f"{text[:_CUT]!r}: from token {at} trained {ours[at : at + 6]}, served {theirs[at : at + 6]}"
