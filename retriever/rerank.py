"""The best hits judged once more, question and passage read together. Knows neither index nor fusion, only texts and scores."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from retriever.encode import Precision, best_precision
from retriever.errors import ModelError
from retriever.models import folder_fingerprint, locate
from retriever.tuned import read_tuned

__all__ = ["CrossEncoderReranker", "Reranker", "blend", "open_reranker"]


class Reranker(Protocol):
    """Judges how well passages answer a question.

    Attributes:
        fingerprint: tells rerankers apart: a hash of all that determines the scores, except numeric precision.
        weight: of its judgement against the fused score, 0 to 1.
        depth: how many of the best hits it judges.
    """

    fingerprint: str
    weight: float
    depth: int

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return for each text the probability, 0 to 1, that it answers the query; texts as `chunk.passage_text` makes them."""


class CrossEncoderReranker:
    """A folder with a cross-encoder: a transformer that reads query and passage together and gives one logit.

    See Nogueira and Cho, Passage Re-ranking with BERT (arXiv 1901.04085). The weight against the fused score is tuned on
    development questions, so that a weak model cannot do much harm; `beleg.json` in the folder holds it with the depth.

    Args:
        folder: the model's files, as sentence-transformers or transformers save them.
        precision: as for `MiniLM`: `bf16` runs the matrix products in it, which rounds a logit by up to 0.4%.
        threads: processor threads; None takes half the cores: a question brings a whole batch, and there are readers and other
            questions besides. With two busy cores a second thread made it three times as slow.
        batch_size: pairs judged at once; they are sorted by length first, so that little is padded.

    Raises:
        ModelError: the folder holds no reranker that loads, or its `beleg.json` is malformed.
    """

    def __init__(
        self, folder: Path, *, precision: Precision | None = None, threads: int | None = None, batch_size: int = 32
    ) -> None:
        import torch
        from sentence_transformers.cross_encoder import CrossEncoder
        from transformers import AutoConfig
        from transformers.utils import logging

        self.precision = precision or best_precision()
        self._threads = threads or max(1, (os.cpu_count() or 1) // 2)
        self._batch_size = batch_size
        self._folder = folder
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        tuned = read_tuned(folder)
        self.weight = tuned.weight
        self.depth = tuned.depth
        try:
            config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
            # Other models load as well: with a head of random numbers, which would shuffle every result.
            trained = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
            if not trained or config.num_labels != 1:
                raise ModelError(
                    f"{folder} is no reranker: it was not trained to give one score for question and passage.",
                    way_out="Set `reranker` to a cross-encoder with one label, or leave it empty.",
                )
            device = None if torch.cuda.is_available() else "cpu"
            self._model = CrossEncoder(str(folder), device=device, local_files_only=True)
            # Without its files a tokenizer is made all the same, and every word is unknown to it.
            if len(self._model.tokenizer) <= len(self._model.tokenizer.all_special_ids):
                raise ModelError(
                    f"{folder} does not load as a reranker: its tokenizer has no words.", way_out="See `beleg doctor`."
                )
            self.fingerprint = folder_fingerprint(folder)
            # At start rather than with the first question: some files are only read, and some weights only wrong, by then.
            self.scores("question", ["passage"])
        except ModelError:
            raise
        except Exception as error:  # a broken folder fails in as many ways as the libraries below it
            raise ModelError(f"{folder} does not load as a reranker: {error}", way_out="See `beleg doctor`.") from error

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return for each text the probability, 0 to 1, that it answers the query: the sigmoid of its logit.

        A pair that is longer than the model's window is cut, the longer of the two first.

        Raises:
            ModelError: the model gives what is no number.
        """
        import torch

        if not texts:
            return []
        # Set each time: it is global to the process, and encoders set it to one.
        torch.set_num_threads(self._threads)
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            judged = self._model.predict(
                [(query, text) for text in texts],
                batch_size=self._batch_size,
                activation_fn=torch.nn.Sigmoid(),
                show_progress_bar=False,
            )
        scores = [float(score) for score in judged]
        if not all(map(math.isfinite, scores)):
            raise ModelError(
                f"{self._folder} gives scores that are no numbers.", way_out="Its weights are damaged: train it anew."
            )
        return scores


def open_reranker(reference: str, *, threads: int | None = None) -> CrossEncoderReranker:
    """Open the reranker that a model reference names (see `retriever.models`); `threads` as for `CrossEncoderReranker`.

    Raises:
        ModelError: it is missing, damaged or no reranker.
    """
    return CrossEncoderReranker(locate(reference), threads=threads)


def blend(fused: Sequence[float], judged: Sequence[float], *, weight: float) -> list[float]:
    """Return `(1 - weight) * fused / best fused + weight * judged`.

    A hit that was not judged counts as judged with 0. If those are the worst by their fused scores, none of them gets more than
    any that was judged.

    Args:
        fused: scores of 0 or more, best first.
        judged: probabilities of the first of them.
        weight: of the judgement, 0 to 1.

    >>> blend([0.8, 0.4, 0.2], [0.1, 0.9], weight=0.5)
    [0.55, 0.7, 0.125]
    """
    best = max(fused, default=0.0) or 1.0
    padded = [*judged, *(0.0 for _ in fused[len(judged) :])]
    return [(1 - weight) * (score / best) + weight * chance for score, chance in zip(fused, padded, strict=True)]
