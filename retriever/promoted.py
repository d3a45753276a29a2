"""Encoders that `beleg promote` put in the place of the one in the settings: until that is changed, they are what is wanted.

Kept in the store, by model reference, so that a rollback to an earlier promoted encoder finds what it took the place of too.
"""

from __future__ import annotations

from retriever.index.base import Generation
from retriever.store import Store

__all__ = ["remember_promoted", "stands_for"]

_NAME = "promoted "


def remember_promoted(store: Store, encoder: str, *, instead_of: str) -> None:
    """Keep that an encoder took the place of the one in the settings.

    It counts only while a generation of this encoder is live: a promotion may say so before its swap.

    Args:
        encoder: model reference of the promoted one.
        instead_of: the setting `encoder` at that time.
    """
    store.remember({_NAME + encoder: instead_of})


def stands_for(store: Store, live: Generation, setting: str) -> bool:
    """Say whether the live generation's encoder was promoted to the place of the one that the setting `encoder` names."""
    return bool(live.encoder) and store.recall(_NAME + live.encoder) == setting
