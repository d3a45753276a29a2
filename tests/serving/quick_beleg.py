"""Stands in for `beleg` in a job's process: the real commands, with an encoder that needs no model."""

from __future__ import annotations

import beleg
import retriever.encode


def main() -> None:
    # Imported here: pytest looks for doctests in this file without the folder that it lies in.
    from fakes import FakeEncoder  # type: ignore[import-not-found]

    retriever.encode.open_encoder = lambda _: FakeEncoder()
    beleg.main()
