"""The way back from a promoted reader to the one before it. Knows files, and no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reader.served import Promoted, promoted, read_promoted, write_promoted
from retriever.errors import ModelError
from retriever.models import locate
from retriever.releases import Releases
from retriever.settings import Settings

__all__ = ["Back", "roll_back", "settle"]


@dataclass(frozen=True, slots=True)
class Back:
    """What a rollback did.

    Attributes:
        replaced: what was live.
        live: what is now; None is the settings' own reader.
        skipped: those between the two whose models are gone, each with the reason.
    """

    replaced: Promoted
    live: Promoted | None
    skipped: tuple[tuple[Promoted, str], ...]


def roll_back(settings: Settings, releases: Releases) -> Back:
    """Make the reader before the promoted one live again; the settings' own one comes before all of them.

    Those whose models are not on this machine any more are passed over.

    Raises:
        ModelError: no promoted reader is live, or the file that says so is damaged.
        StoreLocked: a promotion is running.
        BelegError: the disk refuses; what was live stays so.
    """
    with releases.alone():
        now = promoted(settings)
        if now is None:
            raise _nothing(settings)
        settle(settings, releases)
        skipped = []
        live = now.previous
        while live:
            try:
                locate(live.reader)
                if live.base:
                    locate(live.base)
                break
            except ModelError as error:
                skipped.append((live, error.message))
                live = live.previous
        write_promoted(settings.data_dir, live)
    return Back(now, live, tuple(skipped))


def settle(settings: Settings, releases: Releases) -> None:
    """Record what became of promotions of readers that were killed; the caller is `releases.alone`.

    Raises:
        ModelError: the file of promoted readers is damaged.
    """
    last = read_promoted(settings.data_dir)
    done = {one.id for one in last.chain()} if last else set()

    def became(fact: Mapping[str, Any]) -> Mapping[str, object] | None:
        return {} if fact.get("id") in done else None

    releases.settle(("reader",), became)


def _nothing(settings: Settings) -> ModelError:
    if settings.reader_url:
        return ModelError(
            "A model server is the reader, and no promoted one takes its place.", way_out="Change the setting `reader_url`."
        )
    last = read_promoted(settings.data_dir)
    if last:
        return ModelError(
            f"{last.candidate or last.reader} is not live: it took the place of {last.instead_of}, but the setting `reader` "
            f"is {settings.reader} by now.",
            way_out="The setting decides until you change it back.",
        )
    return ModelError("No reader was promoted, so there is none to go back to.", way_out="The setting `reader` names it.")
