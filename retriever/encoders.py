"""Which encoder belongs to an index: the one with the fingerprint in its stamp, wherever this machine has it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from retriever.encode import Encoder, open_encoder
from retriever.errors import IndexMismatch, ModelError
from retriever.index.base import Generation

__all__ = ["Encoders"]


class Encoders:
    """Opens the encoders of generations, and keeps them open. Safe to use from many threads.

    Args:
        fallback: model reference that is tried after the one that the generation was built with: a replica may keep its models
            elsewhere.
        open_: opens a reference.
    """

    def __init__(self, fallback: str, *, open_: Callable[[str], Encoder] | None = None) -> None:
        self._fallback = fallback
        # One thread: see `MiniLM`. Questions come one by one.
        self._open = open_ or (lambda reference: open_encoder(reference, threads=1))
        self._opened: dict[str, Encoder] = {}
        self._opening = threading.Lock()

    def open(self, reference: str) -> Encoder:
        """Return the encoder of a model reference.

        Raises:
            ModelError: it is missing, damaged or no encoder.
        """
        with self._opening:
            if reference not in self._opened:
                self._opened[reference] = self._open(reference)
            return self._opened[reference]

    def of(self, generation: Generation) -> Encoder:
        """Return the encoder that made a generation.

        Raises:
            IndexMismatch: neither reference has it.
        """
        wanted = generation.stamp.encoder
        reasons = []
        for encoder in tuple(self._opened.values()):
            if encoder.fingerprint == wanted:
                return encoder
        for reference in dict.fromkeys(filter(None, (generation.encoder, self._fallback))):
            try:
                encoder = self._opened_as(reference, wanted)
            except ModelError as error:
                reasons.append(str(error))
                continue
            if encoder.fingerprint == wanted:
                return encoder
            reasons.append(f"{reference} is another one.")
        raise IndexMismatch(
            f"The index was made by the encoder {generation.encoder or generation.stamp.encoder[:12]}, which is not here: "
            + " ".join(reasons),
            way_out="Set `encoder` to where it lies, or run `beleg rebuild --encoder MODEL` to build an index for another one.",
        )

    def _opened_as(self, reference: str, wanted: str) -> Encoder:
        with self._opening:
            encoder = self._opened.get(reference)
            if encoder is None or encoder.fingerprint != wanted:
                # Anew: fine-tuning may have put another model into the folder since.
                encoder = self._opened[reference] = self._open(reference)
            return encoder

    def loaded(self, fingerprint: str) -> bool:
        """Say whether the encoder with this fingerprint is open already."""
        # A copy: another thread may be adding one.
        return any(encoder.fingerprint == fingerprint for encoder in tuple(self._opened.values()))
