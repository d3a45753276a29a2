"""Which Elasticsearch index is live, which was before, and which others are this store's: aliases and names."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any

from elasticsearch import Elasticsearch, NotFoundError

from retriever.errors import IndexMissing, IndexUnavailable
from retriever.index.elastic.client import where
from retriever.index.elastic.records import Meta

__all__ = ["Names"]

_OTHER = "Set another elasticsearch_index, and run `beleg index`."


class Names:
    """The names that begin with that of what is live.

    Args:
        live: alias of the live index.

    Attributes:
        previous: alias of the one before.
    """

    def __init__(self, client: Elasticsearch, live: str) -> None:
        self.live = live
        self.previous = f"{live}-previous"
        # Nothing else, so that the index of another name is never taken for one of these: `beleg-legal-…` for one of `beleg`.
        self._ours = re.compile(rf"{re.escape(live)}-\d{{9,}}-[0-9a-f]{{8}}")
        self._client = client
        self._metas: dict[str, Meta] = {}

    def new(self, revision: int) -> str:
        """Return a name for an index that will be made of this revision of a store."""
        return f"{self.live}-{revision:09d}-{secrets.token_hex(4)}"

    def fits(self, name: str) -> bool:
        """Say whether `new` could have given this name."""
        return self._ours.fullmatch(name) is not None

    def check(self) -> None:
        """Raise `IndexUnavailable` if one of the aliases is an index, or stands for one that this program has not made."""
        for alias in (self.live, self.previous):
            try:
                found = self._client.indices.get_mapping(index=alias).body
            except NotFoundError:
                continue
            for name, facts in found.items():
                if not self.fits(name) or Meta.read(facts["mappings"]) is None:
                    raise IndexUnavailable(
                        f"Elasticsearch at {where(self._client)} has the name {alias} in use: the index {name} was not made by "
                        "this version of Beleg.",
                        way_out=_OTHER,
                    )

    def index(self, alias: str) -> str | None:
        """Return the index that an alias names now."""
        try:
            found = self._client.indices.get_alias(name=alias)
        except NotFoundError:
            return None
        return next(iter(found.body), None)

    def served(self) -> set[str | None]:
        """Return the live index and the one before."""
        return {self.index(self.live), self.index(self.previous)}

    def made_by(self, store: str) -> Iterator[tuple[str, Meta]]:
        """Yield name and nature of each index that a store has made, latest first, finished or not."""
        found = self._client.indices.get_mapping(index=f"{self.live}-*", allow_no_indices=True)
        for name, facts in sorted(found.body.items(), reverse=True):
            meta = Meta.read(facts["mappings"]) if self.fits(name) else None
            if meta and meta.store == store:
                yield name, meta

    def meta(self, index: str) -> Meta:
        """Return what an index was made as.

        Raises:
            IndexMissing: it is not there, or not of this version of Beleg.
        """
        if index not in self._metas:
            meta = Meta.read(self._client.indices.get_mapping(index=index)[index]["mappings"])
            if meta is None:
                raise IndexMissing(
                    f"The index {index} was not made by this version of Beleg.",
                    way_out=_OTHER,
                )
            self._metas[index] = meta
        return self._metas[index]

    def swap(self, new: str, expected: str | None, *, keep: bool) -> None:
        """Move the alias of what is live to another index, in one change of the cluster's state.

        Raises:
            ApiError: among others if `expected` is not live; nothing has changed then.
        """
        actions: list[dict[str, Any]] = []
        if expected is not None:
            actions.append({"remove": {"index": expected, "alias": self.live, "must_exist": True}})
            if keep:
                earlier = self.index(self.previous)
                if earlier:
                    actions.append({"remove": {"index": earlier, "alias": self.previous, "must_exist": True}})
                actions.append({"add": {"index": expected, "alias": self.previous}})
        # Only one index of an alias can be the one for writing: of two first swaps at once, the second fails.
        actions.append({"add": {"index": new, "alias": self.live, "is_write_index": True}})
        self._client.indices.update_aliases(actions=actions)

    def forget_previous(self, index: str) -> None:
        """Take the previous index's alias from it."""
        self._client.options(ignore_status=404).indices.delete_alias(index=index, name=self.previous)
