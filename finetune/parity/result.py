"""What the gate says: links, what was measured of each, and the likely causes of those that failed. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Cause", "Finding", "Link", "Parity"]


class Cause(StrEnum):
    """Why a GGUF is another model than the one that was trained."""

    SENTENCEPIECE = "lost SentencePiece model"
    MERGED_INTO_QUANTIZED = "merge into 4-bit layers"
    TEMPLATE = "wrong chat template"
    TRUNCATED = "truncated context"
    SPECIAL = "unparsed special tokens"
    END = "wrong end token"
    SCALE = "adapter scale"
    TOKENIZER = "another tokenizer"
    COARSE = "quantization too coarse"
    UNKNOWN = "unknown"


_WAYS_OUT = {
    Cause.SENTENCEPIECE: "Put the base's original tokenizer.model and added_tokens.json into its folder, and export again.",
    Cause.MERGED_INTO_QUANTIZED: "Merge into floats: onto the original, or a freshly loaded and dequantized base.",
    Cause.TEMPLATE: "Give the model the chat template that it was trained with (chat_template.jinja), and export again.",
    Cause.TRUNCATED: "Raise the context size, and look for the model's max_position_embeddings.",
    Cause.SPECIAL: "Parse special tokens when tokenizing, and make sure that the converter saw them as such.",
    Cause.END: "Bring generation_config.json and the tokenizer's end token of the trained model, and export again.",
    Cause.SCALE: "Look at lora_alpha, r and use_rslora in adapter_config.json; rsLoRA divides by the root of the rank.",
    Cause.TOKENIZER: "Export with the tokenizer files that the model was trained with.",
    Cause.COARSE: "Take more bits, such as q5_k_m, q6_k or q8_0.",
    Cause.UNKNOWN: "Look at the links before this one first.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A likely cause, and what speaks for it."""

    cause: Cause
    why: str

    @property
    def way_out(self) -> str:
        """What to do about it."""
        return _WAYS_OUT[self.cause]


@dataclass(frozen=True, slots=True)
class Link:
    """One link between what was trained and what is served.

    Attributes:
        name: for programs.
        title: for people.
        measured, limits: numbers by name; what has a limit is named alike in both.
        findings: likely causes, the likeliest first; empty if it passed.
        examples: what differs, for people.
    """

    name: str
    title: str
    passed: bool
    measured: Mapping[str, Any]
    limits: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parity:
    """What all links say together."""

    links: tuple[Link, ...]

    @property
    def passed(self) -> bool:
        """Whether the export may be served."""
        return bool(self.links) and all(link.passed for link in self.links)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Likely causes of all links that failed, without repetition."""
        return tuple(dict.fromkeys(finding.cause for link in self.links for finding in link.findings))

    def as_json(self) -> dict[str, Any]:
        """Return what parity.json holds of it."""
        links = [
            {
                **asdict(link),
                "findings": [{"cause": str(f.cause), "why": f.why, "way_out": f.way_out} for f in link.findings],
            }
            for link in self.links
        ]
        return {"passed": self.passed, "causes": [str(cause) for cause in self.causes], "links": links}
