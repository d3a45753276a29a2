"""Texts to vectors. Knows nothing of documents and stores."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from retriever.errors import ModelError
from retriever.models import folder_fingerprint, locate
from retriever.tuned import read_tuned

__all__ = ["Encoder", "MiniLM", "Precision", "Vectors", "best_precision", "cores", "open_encoder"]

Vectors = npt.NDArray[np.float32]
"""Shape (texts, dimensions), each row of length 1."""

Precision = str  # "bf16" or "fp32"


class Encoder(Protocol):
    """Turns texts into vectors whose dot product is a cosine.

    Attributes:
        fingerprint: tells encoders apart: a hash of all that determines the vectors, except numeric precision.
        tokenizer: a hash of what determines where tokens begin.
        dimensions: length of a vector.
        max_tokens: what fits one text, special tokens left out; the rest would be cut.
        alpha: weight of the dense side that was tuned with it, 0 to 1; None where nothing was tuned.
    """

    fingerprint: str
    tokenizer: str
    dimensions: int
    max_tokens: int
    alpha: float | None

    def token_starts(self, text: str) -> list[int]:
        """Return the offset at which each of the text's tokens begins, ascending."""

    def encode_passages(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        """Return the vectors of passages, in order. `progress` is told how many more are done."""

    def encode_query(self, text: str) -> Vectors:
        """Return the vector of a query, shape (dimensions,)."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of many queries at once, in order."""


class MiniLM:
    """A bi-encoder folder in the sentence-transformers layout, such as all-MiniLM-L6-v2.

    See Reimers and Gurevych, Sentence-BERT (arXiv 1908.10084). A model that wants a prefix for queries or passages names it in
    its own `config_sentence_transformers.json`; that file is part of the fingerprint like every other. `beleg.json` is not:
    it holds what was tuned with the model (see `retriever.tuned`).

    Args:
        folder: the model's files.
        precision: `bf16` is up to 1.8 times as fast where the processor multiplies it natively and moves a cosine by about
            1e-4. None picks it there, `fp32` elsewhere.
        threads: processor threads. One is best for queries: a team of OpenMP threads that waits for its slowest turned 7 ms
            into 500 on a machine with another busy process. None takes one for each core, which is best for passages.
        batch_size: texts encoded at once; they are sorted by length first, so that little is padded.

    Raises:
        ModelError: the folder holds no model that loads, or its `beleg.json` is malformed.
    """

    def __init__(
        self, folder: Path, *, precision: Precision | None = None, threads: int | None = None, batch_size: int = 32
    ) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        self.precision = precision or best_precision()
        self._threads = threads or cores()
        self._batch_size = batch_size
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.alpha = read_tuned(folder).alpha
        try:
            self._model = SentenceTransformer(str(folder), device=None if torch.cuda.is_available() else "cpu")
        except Exception as error:  # a broken folder fails in as many ways as the libraries below it
            raise ModelError(f"{folder} does not load as an encoder: {error}", way_out="See `beleg doctor`.") from error
        if self.precision == "bf16":
            self._model.to(torch.bfloat16)
        self.fingerprint = folder_fingerprint(folder)
        dimensions = self._model.get_embedding_dimension()
        if dimensions is None or not self._model.tokenizer.is_fast:
            raise ModelError(f"{folder} is an encoder of unknown dimensions or without a fast tokenizer.")
        self.dimensions: int = dimensions
        # A copy: the model's own one cuts at its window as soon as it has encoded something.
        self._tokens = self._model.tokenizer.backend_tokenizer.from_str(self._model.tokenizer.backend_tokenizer.to_str())
        self._tokens.no_truncation()
        self._tokens.no_padding()
        self.tokenizer = hashlib.sha256(self._tokens.to_str().encode()).hexdigest()
        special = self._model.tokenizer.num_special_tokens_to_add()
        self.max_tokens = int(self._model.max_seq_length or 512) - special

    def token_starts(self, text: str) -> list[int]:
        """Return the offset at which each of the text's tokens begins, ascending."""
        encoding = self._tokens.encode(text, add_special_tokens=False)
        return sorted({start for start, _ in encoding.offsets})

    def encode_passages(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Vectors:
        """Return the vectors of passages, in order. `progress` is told how many more are done."""
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        # By tokens, not characters: a row of numbers has three times as many, and the longest of a batch pads the others.
        lengths = [len(encoding) for encoding in self._tokens.encode_batch(list(texts), add_special_tokens=False)]
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        step = self._batch_size * 4
        for start in range(0, len(order), step):
            rows = order[start : start + step]
            vectors[rows] = self._encode([texts[row] for row in rows], query=False)
            if progress:
                progress(len(rows))
        return vectors

    def encode_query(self, text: str) -> Vectors:
        """Return the vector of a query, shape (dimensions,)."""
        vector: Vectors = self._encode([text], query=True)[0]
        return vector

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of many queries at once, in order."""
        return self._encode(list(texts), query=True) if texts else np.empty((0, self.dimensions), dtype=np.float32)

    def _encode(self, texts: list[str], *, query: bool) -> Vectors:
        import torch

        # Set each time: it is global to the process, and FAISS's own setting reaches into it.
        torch.set_num_threads(self._threads)
        encode = self._model.encode_query if query else self._model.encode_document
        raw = encode(texts, batch_size=self._batch_size, show_progress_bar=False, convert_to_tensor=True)
        vectors = raw.float().cpu().numpy()
        # Normalised here, in fp32: a length computed in bf16 is off by up to 0.4%.
        norms: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)


def open_encoder(reference: str, *, threads: int | None = None) -> MiniLM:
    """Open the encoder that a model reference names (see `retriever.models`); `threads` as for `MiniLM`.

    Raises:
        ModelError: it is missing, damaged or no encoder.
    """
    return MiniLM(locate(reference), threads=threads)


def cores() -> int:
    """Return how many processors this process may run on: a container or a job may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def best_precision() -> Precision:
    """Return `bf16` where the processor multiplies it natively, else `fp32`."""
    import torch

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("amx_tile") else "fp32"
