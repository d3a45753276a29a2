"""The gate's verdict as parity.json, and as one page that shows all of it. Measures nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetune.parity.result import Parity
from retriever.errors import BelegError

__all__ = ["FORMAT", "render_page", "write_parity"]

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
    page = folder / "parity.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
        (folder / "parity.json").write_text(text, encoding="utf-8", errors="backslashreplace")
        page.write_text(render_page(data), encoding="utf-8", errors="replace")
    except OSError as error:
        raise BelegError(f"The report cannot be written to {folder}: {error.strerror}.", way_out="Make room for it.") from error
    return page


def render_page(data: Mapping[str, Any]) -> str:
    """Return the page: one file with its style inside; it loads nothing and runs nothing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1] / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    return environment.get_template("parity.html").render(data=data)


def _figure(value: Any) -> str:
    """Write a number as people read it.

    >>> _figure(0.0000312), _figure(0.25), _figure(12), _figure(True), _figure(None)
    ('3.1e-05', '0.250', '12', 'yes', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.3f}"
    return str(value)
