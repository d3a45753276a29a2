"""A program that rebuilds with another fake encoder, for tests that kill it.

Usage: rebuild_program.py DATA FINGERPRINT [--engine URL NAME]

Prints a line for each step that it is about to take or has taken.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def main() -> None:
    from fakes import FakeEncoder, open_fake_generations  # type: ignore[import-not-found]

    from retriever.chunk import ChunkSize
    from retriever.encoders import Encoders
    from retriever.fill import Maker
    from retriever.rebuild import Rebuild
    from retriever.store import Store

    def step(what: str) -> None:
        sys.stdout.write(f"{what}\n")
        sys.stdout.flush()
        time.sleep(0.02)

    class Told(FakeEncoder):
        def encode_passages(self, texts: object, **rest: object) -> object:
            step(f"encode {len(texts)}")  # type: ignore[arg-type]
            return super().encode_passages(texts, **rest)

    class ToldStore(Store):
        def remember(self, facts: object, **rest: object) -> bool:
            step("remember")
            kept = super().remember(facts, **rest)  # type: ignore[arg-type]
            step("remembered")
            return kept

        def collect(self, *arguments: object, **rest: object) -> None:
            step("collect")
            super().collect(*arguments, **rest)  # type: ignore[arg-type]

    data, fingerprint, *engine = sys.argv[1:]
    with ToldStore(Path(data)) as store:
        maker = Maker(Told(fingerprint=fingerprint, delay=0.01), ChunkSize(8, 2))
        Rebuild(
            store,
            open_fake_generations(store, Path(data), engine),
            maker,
            fingerprint,
            Encoders("fake-1", open_=lambda reference: FakeEncoder(fingerprint=reference)),
            0.5,
            on_phase=lambda phase, _: step(phase),
        ).run()
    step("done")


if __name__ == "__main__":
    main()
