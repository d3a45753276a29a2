"""Opens the engine that the settings name. Engines are imported when they are needed: each brings heavy packages."""

from __future__ import annotations

from retriever.index.base import Formula, Generations
from retriever.settings import Settings
from retriever.store import Store

__all__ = ["open_generations"]


def open_generations(settings: Settings, store: Store) -> Generations:
    """Return the generations of the engine that the settings name. Elasticsearch is not asked for anything yet.

    Raises:
        SettingsError: settings that contradict each other.
    """
    formula = Formula(title=settings.title_boost, headings=settings.heading_boost)
    if settings.index == "elasticsearch":
        from retriever.index.elastic.generations import open_elastic

        return open_elastic(settings, store, formula)
    from retriever.index.embedded import EmbeddedGenerations

    return EmbeddedGenerations(store, settings.data_dir / "generations", formula=formula)
