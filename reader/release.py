"""What exactly gave an answer: one id for index, fusion, reranker, calibration, prompt and reader together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from reader.calibration import Calibration
from reader.engine.base import Engine
from reader.prompt import fingerprint
from retriever.index.base import Stamp
from retriever.rerank import Reranker

__all__ = ["release_id"]


def release_id(stamp: Stamp, alpha: float, calibration: Calibration, engine: Engine, reranker: Reranker | None = None) -> str:
    """Return 12 hexadecimal digits that change whenever anything does that could change an answer, documents aside.

    Args:
        alpha: the one that was used, wherever it came from.
    """
    parts: dict[str, object] = {
        "index": asdict(stamp),
        "alpha": alpha,
        "calibration": asdict(calibration),
        "reader": [engine.model, engine.fingerprint],
        "prompt": fingerprint(engine, shots=calibration.shots),
    }
    if reranker:
        parts["reranker"] = [reranker.fingerprint, reranker.weight, reranker.depth]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
