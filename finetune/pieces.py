"""The `tokenizer.model` of a SentencePiece tokenizer of which only `tokenizer.json` is left.

llama.cpp cuts text by the pieces' scores, Hugging Face by the order of merges; each follows from the other. Knows nothing about
models.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from retriever.errors import ModelError

__all__ = ["complete_sentencepiece", "is_sentencepiece", "piece_scores"]

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_NEVER = -1e6
"""Score of a piece that no merge makes."""


def complete_sentencepiece(folder: Path) -> None:
    """Write what is missing of tokenizer.model and added_tokens.json beside a tokenizer.json of the SentencePiece kind.

    Raises:
        ModelError: tokenizer.json is damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not is_sentencepiece(data):
            return
        if not (folder / "tokenizer.model").is_file():
            (folder / "tokenizer.model").write_bytes(_model(data))
        if not (folder / "added_tokens.json").is_file():
            _write_added(folder, data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} is damaged: {type(error).__name__} {error}.", way_out="Bring the base model's tokenizer files back."
        ) from error


def is_sentencepiece(data: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is that of a SentencePiece model of the BPE kind: ▁ for spaces, and bytes as a fallback."""
    model = data.get("model") or {}
    vocab = model.get("vocab") or {}
    return model.get("type") == "BPE" and bool(model.get("byte_fallback")) and isinstance(vocab, dict) and "<0x0A>" in vocab


def piece_scores(vocab: dict[str, int], merges: list[Any]) -> dict[str, float]:
    """Return each piece's score: the earlier the first merge that makes it, the higher.

    >>> piece_scores({"a": 0, "b": 1, "ab": 2, "abab": 3}, ["a b", ["ab", "ab"]])
    {'a': -1000000.0, 'b': -1000000.0, 'ab': 0.0, 'abab': -1.0}
    """
    scores = dict.fromkeys(vocab, _NEVER)
    for rank, pair in enumerate(merges):
        left, right = pair.split(" ", 1) if isinstance(pair, str) else pair
        made = left + right
        if scores.get(made) == _NEVER:
            scores[made] = float(-rank)
    return scores


def _model(data: dict[str, Any]) -> bytes:
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2

    model = data["model"]
    vocab: dict[str, int] = model["vocab"]
    special = {item["content"] for item in data.get("added_tokens", []) if item.get("special")}
    scores = piece_scores(vocab, model["merges"])
    made = proto.ModelProto()
    made.trainer_spec.model_type = proto.TrainerSpec.BPE
    made.trainer_spec.byte_fallback = True
    made.trainer_spec.vocab_size = len(vocab)
    made.normalizer_spec.name = "identity"
    made.normalizer_spec.add_dummy_prefix = True
    made.normalizer_spec.remove_extra_whitespaces = False
    made.normalizer_spec.escape_whitespaces = True
    kinds = proto.ModelProto.SentencePiece
    for text in sorted(vocab, key=vocab.__getitem__):
        kind = kinds.NORMAL
        if text == model.get("unk_token"):
            kind = kinds.UNKNOWN
        elif text in special:
            kind = kinds.CONTROL
        elif _BYTE.fullmatch(text):
            kind = kinds.BYTE
        made.pieces.add(piece=text, score=scores[text], type=kind)
    data_: bytes = made.SerializeToString()
    return data_


def _write_added(folder: Path, data: dict[str, Any]) -> None:
    """Name the tokens beyond the SentencePiece model's own, which the converter finds nowhere else."""
    known = len(data["model"]["vocab"])
    added = {item["content"]: item["id"] for item in data.get("added_tokens", []) if item["id"] >= known}
    if added:
        (folder / "added_tokens.json").write_text(json.dumps(added, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
