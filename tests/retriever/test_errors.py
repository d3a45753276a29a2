"""The error tree is what its docstring draws, and what a user reads of an error is whole."""

from __future__ import annotations

import pickle
import re

import pytest

from retriever import errors
from retriever.errors import BelegError, LoadError

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == errors.__name__
}


def test_all_is_complete() -> None:
    assert errors.__all__ == sorted(CLASSES)


def test_the_drawing_shows_the_classes() -> None:
    assert errors.__doc__ is not None
    path: list[tuple[int, str]] = []
    parents: dict[str, str] = {}
    for line in errors.__doc__.splitlines():
        drawn = re.match(r"([ │├└─]*)([A-Z]\w+)(  +(.*))?$", line)
        if drawn:
            depth, name = len(drawn[1]), drawn[2]
            while path and path[-1][0] >= depth:
                path.pop()
            parents[name] = path[-1][1] if path else "Exception"
            path.append((depth, name))
    assert parents.pop("ReaderError") == "BelegError"  # of the package above, see there
    assert parents == {name: value.__bases__[0].__name__ for name, value in CLASSES.items()}


def test_every_class_says_what_it_means() -> None:
    assert all(value.__doc__ for value in CLASSES.values())


@pytest.mark.parametrize("kind", [value for name, value in CLASSES.items() if name != "LoadError"])
def test_message_and_way_out(kind: type[BelegError]) -> None:
    assert str(kind("It failed.", way_out="Try again.")) == "It failed. Try again."
    assert str(kind("It failed.")) == "It failed."


def test_a_load_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(LoadError("a.pdf", "it is broken", way_out="Mend it.")))
    assert (error.source, error.reason, error.way_out) == ("a.pdf", "it is broken", "Mend it.")
    assert str(error) == "a.pdf: it is broken Mend it."
