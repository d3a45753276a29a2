"""The gate's verdict as parity.json, and as one page that shows all of it. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetune import pages
from finetune.parity.result import Parity

__all__ = ["FORMAT", "write_parity"]

FORMAT = 1
"""Of parity.json: raised whenever a field changes its meaning."""


def write_parity(folder: Path, parity: Parity, about: Mapping[str, Any]) -> Path:
    """Write parity.json and parity.html; return the page.

    Args:
        about: what was compared, for people: base, adapter, files.

    Raises:
        BelegError: the folder cannot be written to.
    """
    data = {"format": FORMAT, "version": version("beleg"), **about, **parity.as_json()}
    return pages.write_page(folder, "parity", data, _render, way_out="Make room for it.")


def _render(data: Mapping[str, Any]) -> str:
    """Return the page; see `finetune.pages.render_page`."""
    return pages.render_page("parity.html", data=data)
