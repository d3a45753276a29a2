"""Fixtures for the tests of training."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

# A program that tests start; doctests are not looked for in it, as it needs fakes that only they hand it.
collect_ignore = ["promote_program.py"]


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    """Return the retriever's module of fakes: by its path, since test folders are no packages."""
    name = "retriever_fakes"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "retriever" / "fakes.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
