"""Join lines, and decide at a hyphen whether it belongs to the word or only to the line's end.

"Ver-/sicherung" loses it, "land-/grant" keeps it, "Haus-/und Garten" keeps it with a space. The document itself says
which: a word that it writes elsewhere in the middle of a line counts. Knows nothing of places on a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["Hyphens"]

_WORD = re.compile(r"\w+(?:-\w+)*")
_LAST = re.compile(r"([\w-]*\w)-$")
_FIRST = re.compile(r"\w+(?:-\w+)*")
# After these a hyphen stands for the rest of a compound: "Haus- und Gartenversicherung", "pre- or post-tax".
_SUSPENDED = frozenset({"und", "oder", "bzw", "sowie", "als", "bis", "and", "or", "to"})


class Hyphens:
    """Knows a document's words.

    >>> h = Hyphens(["Eine Versicherung,", "land-grant"])
    >>> h.join("Die Ver-", "sicherung"), h.join("a land-", "grant"), h.join("Haus-", "und Hof"), h.join("E-", "Mail")
    ('Die Versicherung', 'a land-grant', 'Haus- und Hof', 'E-Mail')
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._words: set[str] = set()
        self._pairs: list[tuple[str, str]] = []
        previous = ""
        for line in lines:
            self._words.update(word.casefold() for word in _WORD.findall(line))
            if previous:
                self._pairs.append((previous, line))
            previous = line if line.endswith("-") else ""
        # What most of the document's line ends do, for words that it writes only once.
        votes = [vote for one, other in self._pairs if (vote := self._evidence(one, other)) is not None]
        self._hyphenates = 2 * sum(votes) >= len(votes)

    def _evidence(self, before: str, after: str) -> bool | None:
        """Tell whether the hyphen is only the line's, by the document's other words; None if they do not say."""
        last, first = _LAST.search(before), _FIRST.match(after)
        if not last or not first:
            return None
        head, tail = last[1].casefold(), first[0].casefold()
        whole, compound = head + tail in self._words, f"{head}-{tail}" in self._words
        return None if whole == compound else whole

    def join(self, before: str, after: str) -> str:
        """Return two consecutive lines of one paragraph as one."""
        if not _LAST.search(before):
            return f"{before} {after}"
        first = _FIRST.match(after)
        if not first or first[0].casefold() in _SUSPENDED:
            return f"{before} {after}"
        if not after[0].islower():
            return before + after
        evidence = self._evidence(before, after)
        return before[:-1] + after if (self._hyphenates if evidence is None else evidence) else before + after
