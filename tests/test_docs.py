"""The generated reference pages say what the code says."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

_DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", _DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["settings", "cli", "recipes"])
def test_page_is_fresh(generate: ModuleType, page: str) -> None:
    written = (_DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert written == getattr(generate, f"{page}_page")(), "run `make docs`"
