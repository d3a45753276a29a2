"""A measurement as two files: all of it as JSON, and a page that shows it. Measures nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from retriever.errors import BelegError

__all__ = ["render_page", "safe", "write_page"]


def render_page(template: str, **values: Any) -> str:
    """Return a page: one file with its style and pictures inside; it loads nothing and runs nothing.

    Args:
        template: its name in `templates`.
        values: what it shows. Text is escaped; see `safe`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("finetune", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(p=_p, signed=_signed, figure=_figure)
    return environment.get_template(template).render(**values)


def safe(charts: Mapping[str, str]) -> dict[str, Any]:
    """Return charts as a page takes them in, unescaped: matplotlib, which made them, has escaped their words."""
    from markupsafe import Markup

    return {name: Markup(svg) for name, svg in charts.items()}  # noqa: S704


def write_page(
    folder: Path, name: str, data: Mapping[str, Any], render: Callable[[Mapping[str, Any]], str], *, way_out: str
) -> Path:
    """Write NAME.json and NAME.html; return the latter.

    Args:
        render: makes the page of the data.
        way_out: what to do where the folder cannot be written to.

    Raises:
        BelegError: the folder cannot be written to.
    """
    page = folder / f"{name}.html"
    text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A lone surrogate, which JSON may hold, has no UTF-8.
        (folder / f"{name}.json").write_text(text, encoding="utf-8", errors="backslashreplace")
        page.write_text(render(data), encoding="utf-8", errors="replace")
    except OSError as error:
        raise BelegError(f"The report cannot be written to {folder}: {error.strerror}.", way_out=way_out) from error
    return page


def _p(value: float) -> str:
    """Return a probability as papers print it.

    >>> _p(0.0123), _p(0.00002)
    ('.012', '< .001')
    """
    return "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


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
