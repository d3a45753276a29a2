"""A candidate's folder belongs to one training, by one recipe on the same rows, and to one process at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from retriever.errors import BelegError, SettingsError

__all__ = ["check_name", "claimed", "write_whole"]

_STATE = "training.json"


@contextmanager
def claimed(folder: Path, training: str) -> Iterator[bool]:
    """Hold a candidate's folder for a training; yield whether there is something left to do.

    Args:
        training: what tells the training from others.

    Raises:
        BelegError: the folder is another training's, or another process trains there, or the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "training.lock", timeout=0):
            yield _begins(folder, training)
    except Timeout as error:
        raise BelegError(
            f"{folder.name} is being trained by another process.", way_out="Wait for it, or give a name."
        ) from error
    except OSError as error:
        raise BelegError(
            f"{error.filename or folder} cannot be written or read: {error.strerror or error}.",
            way_out="Make room, or mend its rights, and run this again.",
        ) from error


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there only once it is whole. The name is hidden: what a model's folder holds is its fingerprint."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def check_name(name: str | None) -> None:
    """Refuse what is no name of a folder among the candidates."""
    if name is not None and not re.fullmatch(r"\w[\w.+-]{0,99}", name):
        raise SettingsError(
            f"{name!r} is no name for a candidate.", way_out="Take letters, digits, dots, dashes and underscores, at most 100."
        )


def _begins(folder: Path, training: str) -> bool:
    """Say whether there is something to do, and mark the folder as this training's."""
    state, done = folder / _STATE, (folder / "manifest.json").exists()
    try:
        known = json.loads(state.read_text(encoding="utf-8"))["training"]
    except FileNotFoundError:
        known = "" if done else training  # a candidate that did not come from here, or nothing yet
    except (ValueError, KeyError, TypeError):
        known = ""
    if known != training:
        raise BelegError(
            f"{folder.name} is the name of another training, by another recipe or on other rows.",
            way_out="Give another name with --name.",
        )
    write_whole(state, json.dumps({"training": training}))
    return not done
