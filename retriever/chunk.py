"""Document to chunks: whole sentences, broken at headings, sized in the encoder's own tokens.

Offsets are exact by construction: a chunk's text is a slice of the document's text and nothing else.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from retriever.schema import Chunk, Document, Heading
from retriever.sentences import sentences

__all__ = ["CHUNKER", "CONTEXT_TOKENS", "ChunkSize", "TokenCounter", "chunk", "context", "passage_text"]

CHUNKER = "1"
"""Version of this chunker. Documents chunked by another one are chunked again."""

CONTEXT_TOKENS = 32
"""Tokens that title and headings may take of what the encoder sees."""


class TokenCounter(Protocol):
    """The part of an encoder that chunking needs."""

    def token_starts(self, text: str) -> list[int]:
        """Return the offset at which each of the text's tokens begins, ascending."""


@dataclass(frozen=True, slots=True)
class ChunkSize:
    """How large chunks are, in tokens.

    Attributes:
        tokens: at most so many in a chunk.
        overlap: at most so many, in whole sentences, that a chunk repeats of the one before it.
    """

    tokens: int
    overlap: int


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int
    tokens: int
    opens: bool  # a heading begins here


def chunk(document: Document, size: ChunkSize, counter: TokenCounter) -> list[Chunk]:
    """Cut a document into chunks that begin and end with sentences.

    A heading begins a new chunk, unless the chunk so far is shorter than a quarter of `size.tokens`: a passage of one line
    finds nothing. A sentence longer than a chunk is cut between words, or between tokens where it has no spaces.
    Every character that is not white space is in at least one chunk.

    Returns:
        Chunks in text order, each with `chunk.text == document.text[chunk.start:chunk.end]`.
    """
    pieces = list(_pieces(document, size.tokens, counter))
    return [_chunk(document, pieces[first:last]) for first, last in _pack(pieces, size)]


def context(title: str, headings: Sequence[str], counter: TokenCounter) -> str:
    """Return the line that places a chunk in its document, for the encoder and the keyword index.

    Title and headings, without repetitions, cut to `CONTEXT_TOKENS`: `Travel > Meals`.
    """
    line = " ".join(" > ".join(dict.fromkeys(part for part in (title, *headings) if part)).split())
    starts = counter.token_starts(line)
    return line[: starts[CONTEXT_TOKENS]].rstrip() if len(starts) > CONTEXT_TOKENS else line


def passage_text(title: str, headings: Sequence[str], text: str, counter: TokenCounter) -> str:
    """Return what encoder and reranker see of a passage, in training and in search: its text below its place (see `context`).

    Args:
        counter: the encoder of the index, in whose tokens title and headings are cut.
    """
    return f"{context(title, headings, counter)}\n{text}"


def _pieces(document: Document, limit: int, counter: TokenCounter) -> Iterator[_Piece]:
    """Yield sentences, those above `limit` tokens cut up, each with its token count."""
    starts = counter.token_starts(document.text)
    headings = [heading.start for heading in document.headings]
    for start, end in sentences(document.text, document.language):
        for cut_start, cut_end in _cut(document.text, start, end, limit, starts):
            first = bisect_left(headings, cut_start)
            yield _Piece(
                cut_start,
                cut_end,
                bisect_left(starts, cut_end) - bisect_left(starts, cut_start),
                opens=first < len(headings) and headings[first] < cut_end,
            )


def _cut(text: str, start: int, end: int, limit: int, starts: Sequence[int]) -> Iterator[tuple[int, int]]:
    while True:
        first = bisect_left(starts, start)
        if bisect_left(starts, end) - first <= limit:
            yield start, end
            return
        border = starts[first + limit]
        space = max(text.rfind(" ", start + 1, border), text.rfind("\t", start + 1, border))
        cut = space if space > start else max(border, start + 1)
        yield start, start + len(text[start:cut].rstrip())
        start = cut + len(text[cut:end]) - len(text[cut:end].lstrip())


def _pack(pieces: Sequence[_Piece], size: ChunkSize) -> Iterator[tuple[int, int]]:
    """Yield (first, last) ranges of pieces: greedy, with overlap where no heading stands between."""
    first = 0
    while first < len(pieces):
        last, tokens = first, 0
        while last < len(pieces) and (last == first or tokens + pieces[last].tokens <= size.tokens):
            if pieces[last].opens and last > first and tokens >= size.tokens // 4:
                break
            tokens += pieces[last].tokens
            last += 1
        yield first, last
        if last == len(pieces):
            return
        first = last if pieces[last].opens else _step_back(pieces, first, last, size.overlap)


def _step_back(pieces: Sequence[_Piece], first: int, last: int, overlap: int) -> int:
    """Return where the chunk after `pieces[first:last]` begins: at most `overlap` tokens back, and never at `first`."""
    begin, tokens = last, 0
    while begin - 1 > first and tokens + pieces[begin - 1].tokens <= overlap and not pieces[begin].opens:
        begin -= 1
        tokens += pieces[begin].tokens
    return begin


def _chunk(document: Document, pieces: Sequence[_Piece]) -> Chunk:
    start, end = pieces[0].start, pieces[-1].end
    return Chunk(
        document=document.id,
        start=start,
        end=end,
        text=document.text[start:end],
        headings=_path(document.headings, start),
        page=document.page_at(start),
    )


def _path(headings: Sequence[Heading], offset: int) -> tuple[str, ...]:
    """Return the headings in force at `offset`, outermost first."""
    path: list[Heading] = []
    for heading in headings[: bisect_right(headings, offset, key=lambda heading: heading.start)]:
        while path and path[-1].level >= heading.level:
            path.pop()
        path.append(heading)
    return tuple(heading.text for heading in path)
