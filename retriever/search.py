"""A query to ranked passages: encode, look up both sides, fuse, rerank, merge neighbours. Knows no engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from retriever.analyze import ANALYSER, analyze_query
from retriever.chunk import passage_text
from retriever.encode import Encoder
from retriever.errors import IndexMismatch, QueryError
from retriever.fuse import convex, reciprocal_rank
from retriever.index.base import Candidate, Filters, Index
from retriever.rerank import Reranker, blend
from retriever.schema import GAP, Hit
from retriever.store import Passage

__all__ = ["DEFAULT_ALPHA", "RERANKED_MODES", "Mode", "Searcher", "clean_filters", "hit_of"]

Mode = Literal["fused", "dense", "keyword", "rrf"]

RERANKED_MODES: tuple[Mode, ...] = ("fused", "rrf")
"""Modes in which a reranker has its say; the others show one side as it is."""

DEFAULT_ALPHA = 0.5
"""Weight of the dense side with an encoder for which none was tuned."""

_DEPTH = 50
"""Candidates taken from each side; all figures in docs/log.md are with this depth."""

_LONGEST_MERGE = 3
"""Chunks that neighbours may grow to: a passage of a whole chapter would crowd out the others."""


@dataclass(frozen=True, slots=True)
class _Scored:
    passage: Passage
    candidate: Candidate
    score: float
    reranked: float | None = None
    merged: int = 1


class Searcher:
    """Answers queries from one index with the encoder that made it.

    Args:
        alpha: weight of the dense side in `fused` mode, 0 to 1; None takes the encoder's own, else `DEFAULT_ALPHA`.
        reranker: judges the best hits again in the modes of `RERANKED_MODES`.

    Attributes:
        alpha: the weight that is used.

    Raises:
        IndexMismatch: the index was made by another encoder or analyser.
    """

    def __init__(self, index: Index, encoder: Encoder, *, alpha: float | None = None, reranker: Reranker | None = None) -> None:
        if index.stamp.encoder != encoder.fingerprint:
            raise IndexMismatch(
                "The index was made by another encoder than the one in the settings.",
                way_out="Run `beleg rebuild` to build one for it, or set the encoder back.",
            )
        if index.stamp.analyser != ANALYSER:
            raise IndexMismatch("The index was made by another version of the analyser.", way_out="Run `beleg rebuild`.")
        self.index = index
        self.encoder = encoder
        self.reranker = reranker
        tuned = DEFAULT_ALPHA if encoder.alpha is None else encoder.alpha
        self.alpha = tuned if alpha is None else alpha

    def search(
        self,
        query: str,
        *,
        limit: int = 10,
        mode: Mode = "fused",
        filters: Filters | None = None,
        merge: bool = True,
        rerank: bool | None = None,
    ) -> list[Hit]:
        """Return the best passages, best first.

        Args:
            limit: at most so many.
            mode: `fused`; `dense` or `keyword` for one side alone; `rrf` for reciprocal rank fusion.
            filters: see `clean_filters`.
            merge: join hits that touch or overlap in their document into one passage.
            rerank: whether the reranker judges the best hits again; None if there is one and the mode allows it.

        Raises:
            QueryError: the query is empty, a filter's key is unknown, or there is nothing to rerank with.
        """
        if not query.strip():
            raise QueryError("The query is empty.", way_out="Write what you are looking for.")
        reranker = self._reranker_for(mode, wanted=rerank)
        vector = None if mode == "keyword" else self.encoder.encode_query(query)
        terms = [] if mode == "dense" else analyze_query(query, self.index.languages)
        judged = reranker.depth if reranker else 0
        depth = max(_DEPTH, limit, judged)
        candidates = self.index.candidates(vector=vector, terms=terms, depth=depth, filters=filters or {})
        ranked = sorted(zip(self._scores(candidates, mode), candidates, strict=True), key=lambda pair: (-pair[0], pair[1].row))
        if mode == "keyword":
            ranked = [pair for pair in ranked if pair[0] > 0]
        # Twice as many as asked are looked at, since merging makes fewer of them.
        kept = 2 * limit if merge else limit
        ranked = ranked[: max(kept, judged)]
        passages = {candidate.row: candidate.passage for _, candidate in ranked if candidate.passage}
        absent = [candidate.row for _, candidate in ranked if candidate.row not in passages]
        passages |= self.index.passages(absent) if absent else {}
        scored = [
            _Scored(passages[candidate.row], candidate, score) for score, candidate in ranked if candidate.row in passages
        ]
        if reranker:
            scored = self._rerank(reranker, query, scored)[:kept]
        shown = (self._merge(scored) if merge else scored)[:limit]
        return [hit_of(item.passage, item.candidate, score=item.score, reranked=item.reranked) for item in shown]

    def _reranker_for(self, mode: Mode, *, wanted: bool | None) -> Reranker | None:
        if wanted and (self.reranker is None or mode not in RERANKED_MODES):
            why = f"Mode {mode} is never reranked." if self.reranker else "There is no reranker."
            raise QueryError(why, way_out="Leave `rerank` out, or set `reranker` and search in mode fused or rrf.")
        return self.reranker if wanted is not False and mode in RERANKED_MODES else None

    def _scores(self, candidates: Sequence[Candidate], mode: Mode) -> list[float]:
        dense = [candidate.dense or 0.0 for candidate in candidates]
        keyword = [candidate.keyword or 0.0 for candidate in candidates]
        if mode == "dense":
            return dense
        if mode == "keyword":
            return keyword
        return reciprocal_rank(dense, keyword) if mode == "rrf" else convex(dense, keyword, alpha=self.alpha)

    def _rerank(self, reranker: Reranker, query: str, scored: Sequence[_Scored]) -> list[_Scored]:
        """Judge the first hits again. What lies beyond the depth stays below them, in its order."""
        passages = [item.passage for item in scored[: reranker.depth]]
        texts = [passage_text(passage.title, passage.headings, passage.text, self.encoder) for passage in passages]
        judged = reranker.scores(query, texts) if texts else []
        scores = blend([item.score for item in scored], judged, weight=reranker.weight)
        beyond = [None] * (len(scored) - len(judged))
        rescored = [
            replace(item, score=score, reranked=chance)
            for item, score, chance in zip(scored, scores, (*judged, *beyond), strict=True)
        ]
        # Stable: equal scores keep the fused order.
        return sorted(rescored, key=lambda item: -item.score)

    def _merge(self, ranked: Sequence[_Scored]) -> list[_Scored]:
        """Join each hit to a better one that it touches. The better one's place and scores count."""
        merged: list[_Scored] = []
        for item in ranked:
            for at, other in enumerate(merged):
                joined = self._join(other, item)
                if joined:
                    merged[at] = joined
                    self._close_up(merged, at)
                    break
            else:
                merged.append(item)
        return merged

    def _close_up(self, merged: list[_Scored], at: int) -> None:
        """Join what the passage that has just grown now touches. Only worse ones can: the item would have gone to a better."""
        for later in range(len(merged) - 1, at, -1):
            joined = self._join(merged[at], merged[later])
            if joined:
                merged[at] = joined
                del merged[later]

    def _join(self, better: _Scored, other: _Scored) -> _Scored | None:
        first, second = sorted((better.passage, other.passage), key=lambda passage: passage.start)
        if first.revision != second.revision or second.start > first.end + GAP or better.merged + other.merged > _LONGEST_MERGE:
            return None
        joined = first
        if second.end > first.end:
            text = (first.text + first.after)[: second.start - first.start] + second.text
            joined = replace(first, end=second.end, text=text, after=second.after)
        return replace(better, passage=joined, merged=better.merged + other.merged)


def hit_of(passage: Passage, candidate: Candidate, *, score: float = 0.0, reranked: float | None = None) -> Hit:
    """Return a passage as a hit, with the raw scores that its search found."""
    return Hit(
        document=passage.document,
        source=passage.source,
        title=passage.title,
        language=passage.language,
        headings=passage.headings,
        page=passage.page,
        start=passage.start,
        end=passage.end,
        text=passage.text,
        score=score,
        dense=candidate.dense,
        keyword=candidate.keyword,
        revision=passage.revision,
        reranked=reranked,
    )


def clean_filters(filters: Mapping[str, str | Sequence[str]]) -> Filters:
    """Return filters in the one shape that engines take: every value a list.

    >>> clean_filters({"language": "de", "kind": ["pdf", "html"]})
    {'language': ['de'], 'kind': ['pdf', 'html']}
    """
    return {key: [value] if isinstance(value, str) else list(value) for key, value in filters.items()}
