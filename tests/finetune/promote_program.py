"""Candidates made by hand, and a program that promotes one, for tests that kill it.

Usage: promote_program.py DATA NAME

Prints a line for each step that it is about to take or has taken. `fakes` is tests/retriever/fakes.py.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from fakes import FakeEncoder, House  # type: ignore[import-not-found]

from finetune.candidate import Base, Chunks, Manifest, open_candidate, write_manifest
from finetune.promote import Promotion
from retriever.encoders import Encoders
from retriever.models import folder_fingerprint
from retriever.releases import Releases
from retriever.store import Store


class Blind(FakeEncoder):  # type: ignore[misc]
    """Takes everything for the same."""

    def encode_query(self, text: str) -> Any:
        return np.eye(1, self.dimensions, dtype=np.float32)[0]


def encoder(reference: str) -> FakeEncoder:
    """Open a candidate's model, or the base: how good it is stands in the model's file."""
    folder = Path(reference)
    if not folder.is_dir():
        return Blind(fingerprint=reference, alpha=1.0)
    kind = Blind if (folder / "weights.safetensors").read_text().startswith("blind") else FakeEncoder
    return kind(fingerprint=folder_fingerprint(folder), alpha=1.0)


def make_candidate(
    data: Path, name: str, *, kind: str = "seeing", task: str = "retriever", rows: int = 12, documents: int = 12
) -> Path:
    """Make a candidate that finds what shares words with the question, or a blind one."""
    folder = data / "candidates" / name
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights.safetensors").write_text(f"{kind} {name}")
    lines = [
        {
            "id": str(number),
            "question": f"Wo steht die Anlage alpha{number} beta{number}?",
            "answers": [f"Halle {number}"],
            "positive_ctxs": [{"title": "", "text": f"Die Anlage alpha{number} beta{number} steht in Halle {number}."}],
            "language": "de",
            "document": f"doc{number % documents}",
        }
        for number in range(rows)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_manifest(
        folder,
        Manifest(
            kind=task,  # type: ignore[arg-type]
            name=name,
            created=f"2026-11-21T10:00:{rows:02}+00:00",
            base=Base(reference="fake-1", fingerprint="fake-1"),
            fingerprint=folder_fingerprint(folder / "model"),
            chunk=Chunks(tokens=8, overlap=2),
            metrics={"before": {"nDCG@10": 0.25}, "after": {"nDCG@10": 1.0}},
        ),
    )
    return folder


def make_house(data: Path) -> House:
    """Make a store with a live index by the blind base."""
    house = House(data)
    house.encoder = lambda name: house.made.setdefault(name, encoder(name))
    house.encoders = Encoders("fake-1", open_=house.encoder)
    house.live = type(house.live)(house.generations, house.encoders)
    if house.generations.live() is None:
        house.change(*((f"d{number}", f"Hotel Nummer {number}.\n\nZimmer {number} hat ein Bad.") for number in range(12)))
    return house


def promotion(house: House, name: str, **more: Any) -> Promotion:
    return Promotion(
        open_candidate(name, house.data),
        house.store,
        house.generations,
        Encoders("fake-1", open_=encoder),
        more.pop("releases", Releases(house.data)),
        "fake-1",
        **more,
    )


def main() -> None:
    def step(what: str) -> None:
        sys.stdout.write(f"{what}\n")
        sys.stdout.flush()
        time.sleep(0.02)

    class ToldStore(Store):
        def remember(self, facts: object, **rest: object) -> bool:
            step("remember")
            kept = super().remember(facts, **rest)  # type: ignore[arg-type]
            step("remembered")
            return kept

    class ToldReleases(Releases):
        def add(self, **facts: object) -> None:
            step(f"add {facts['outcome']}")
            super().add(**facts)
            step(f"added {facts['outcome']}")

    data = Path(sys.argv[1])
    house = make_house(data)
    house.store.close()
    house.store = ToldStore(data)
    house.generations = type(house.generations)(house.store, data / "generations")
    outcome = promotion(house, sys.argv[2], releases=ToldReleases(data), on_phase=lambda phase, _: step(phase)).run()
    house.store.close()
    step(f"done {outcome.status}")


if __name__ == "__main__":
    main()
