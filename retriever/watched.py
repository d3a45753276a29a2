"""Long work as whoever started it sees it: a bar on stderr, and a journal for other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from retriever.journal import Journal

__all__ = ["Watched", "watched"]


@dataclass(frozen=True)
class Watched:
    """What work tells of itself.

    Attributes:
        on_phase: a phase begins, with the number of things to do if that is known.
        on_progress: so many more are done.
        on_note: something in words; it stays on the screen.
        journal: for the result.
    """

    on_phase: Callable[[str, int | None], None]
    on_progress: Callable[[int], None]
    on_note: Callable[[str], None]
    journal: Journal


@contextmanager
def watched(journal: Path | None, phases: Mapping[str, str], *, quiet: bool) -> Iterator[Watched]:
    """Draw phases, and tell the journal of them.

    Args:
        journal: file that events are appended to; None writes none.
        phases: what a phase is called on the screen, by name.
        quiet: draw nothing; notes still come.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Journal(journal) as told, Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        first = next(iter(phases))
        task = bar.add_task(phases[first], total=None)
        now: dict[str, int | str | None] = {"phase": first, "done": 0, "total": None}

        def on_phase(phase: str, total: int | None) -> None:
            now.update(phase=phase, done=0, total=total)
            bar.reset(task, total=total, description=phases[phase])
            told.tell("progress", **now)

        def on_progress(done: int) -> None:
            now["done"] = int(now["done"] or 0) + done
            bar.update(task, advance=done)
            told.tell("progress", **now)

        def on_note(text: str) -> None:
            console.print(text, markup=False, highlight=False)
            told.tell("note", text=text)

        yield Watched(on_phase, on_progress, on_note, told)
