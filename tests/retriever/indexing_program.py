"""A program that indexes a folder like `beleg index` does, with a fake encoder, for tests that kill it.

Usage: indexing_program.py DATA FILES [--prune] [--hold] [--fingerprint NAME]

Prints a line for each step that it is about to take or has taken. With `--hold` it waits for a line on its input before it
encodes, holding the writer's lock.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path


def main() -> None:
    # Imported here, since the loader's worker process imports this file again.
    from fakes import FakeEncoder  # type: ignore[import-not-found]

    from retriever.chunk import ChunkSize
    from retriever.errors import StoreLocked
    from retriever.fill import Maker
    from retriever.index.base import Generation
    from retriever.index.embedded import EmbeddedGenerations
    from retriever.ingest import Ingest
    from retriever.store import Entry, Store

    def say(what: str) -> None:
        sys.stdout.write(f"{what}\n")
        sys.stdout.flush()

    def step(name: str) -> None:
        say(name)
        time.sleep(0.004)

    class Told(Store):
        """Says what it is about to do, and leaves time to be killed there."""

        def versions(self, revision: int) -> list[dict[str, object]]:
            step("build")
            return super().versions(revision)

        def entries(self, versions: Sequence[int], *, chunking: str, encoder: str) -> Iterator[Entry]:
            step("vectors")
            time.sleep(0.05)
            return super().entries(versions, chunking=chunking, encoder=encoder)

        def collect(self, revision: int, *, chunkings: Collection[str], encoders: Collection[str]) -> None:
            step("collect")
            time.sleep(0.05)
            super().collect(revision, chunkings=chunkings, encoders=encoders)

    class Publishing(EmbeddedGenerations):
        def swap(self, new: Generation, *, expected: Generation | None, keep: bool) -> None:
            step("publish")
            time.sleep(0.05)
            super().swap(new, expected=expected, keep=keep)
            step("published")
            time.sleep(0.05)

    class Holding(FakeEncoder):
        def encode_passages(self, texts: object, **rest: object) -> object:
            if texts and "--hold" in sys.argv:
                step("holding")
                sys.stdin.readline()
            if texts:
                step("encode")
            return super().encode_passages(texts, **rest)

    data, files = map(Path, sys.argv[1:3])
    named = dict(zip(sys.argv, sys.argv[1:], strict=False))
    encoder = Holding(delay=0.02, fingerprint=named.get("--fingerprint", "fake-1"))
    with Told(data) as store:
        ingest = Ingest(
            store,
            Publishing(store, data / "index"),
            Maker(encoder, ChunkSize(10, 3)),
            encoder.fingerprint,
            max_bytes=100_000,
            timeout_s=20,
            prune="--prune" in sys.argv,
            on_outcome=lambda outcome: step(outcome.status),
        )
        try:
            ingest.run([files])
        except StoreLocked as error:
            say(f"locked {error}")
            sys.exit(1)
    say("done")


if __name__ == "__main__":
    main()
