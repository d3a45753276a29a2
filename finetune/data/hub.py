"""Data sets of the hub, streamed: nothing but what is read is downloaded. The only module here that reaches outside."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from retriever.errors import BelegError

__all__ = ["is_hub_id", "open_hub"]

_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.\[\]%-]+)?")
_REACH_S = 10.0


def is_hub_id(source: str) -> bool:
    """Tell whether `source` looks like `name/name` or `name/name:split`.

    >>> is_hub_id("deepset/germandpr:test"), is_hub_id("data/train/rows.jsonl"), is_hub_id("data/train.jsonl")
    (True, False, False)
    """
    return _ID.fullmatch(source) is not None and not source.partition(":")[0].endswith((".json", ".jsonl", ".tsv"))


def open_hub(source: str, load: Callable[..., Any] | None = None) -> Iterator[tuple[int, Any]]:
    """Yield the records of a data set with their numbers, counted from 1; of its `train` split unless the id names another.

    Args:
        load: does what `datasets.load_dataset` does.

    Raises:
        BelegError: it cannot be reached or read, or has no such split.
    """
    name, _, split = source.partition(":")
    try:
        records = (load or _load)(name, split=split or "train", streaming=True)
        for number, record in enumerate(records, start=1):
            yield number, dict(record)
    except BelegError:
        raise
    # The libraries between here and the hub raise errors of their own and of two HTTP clients; all mean the same to a user.
    except Exception as error:
        raise BelegError(
            f"The data set {name} cannot be read from the hub (split {split or 'train'}): {_first_line(error)}.",
            way_out="Check the name and the split (name/name:split), or download a .json or .jsonl file of it and name that.",
        ) from error


def _load(name: str, **options: Any) -> Any:
    from datasets import load_dataset
    from huggingface_hub import HfApi

    # Asked first since it says at once that nothing can be reached, where loading would try for half a minute.
    HfApi().dataset_info(name, timeout=_REACH_S)
    return load_dataset(name, **options)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
