"""What is installed as `beleg` is this checkout, whatever else is called `reader`; modules say what they export."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("retriever", "reader", "finetune", "serving")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.stem != "__init__")
HEAVY = {
    "dbos",
    "sqlalchemy",
    "torch",
    "numpy",
    "pydantic",
    "transformers",
    "fastapi",
    "faiss",
    "tantivy",
    "llama_cpp",
    "httpx",
    "rich",
    "uvicorn",
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_the_packages_resolve_to_one_root_from_another_directory(tmp_path: Path) -> None:
    # Names of other projects on the public index, which a working directory could bring in as well.
    (tmp_path / "elsewhere.py").write_text("", encoding="utf-8")
    program = (
        "import importlib, beleg, pathlib\n"
        f"names = {PACKAGES!r}\n"
        "print(pathlib.Path(beleg.__file__).resolve().parent)\n"
        "for name in names: print(pathlib.Path(importlib.import_module(name).__file__).resolve().parents[1])"
    )
    command = Path(sys.executable).with_name("beleg").read_text(encoding="utf-8")
    python = command.splitlines()[0].removeprefix("#!").strip()
    assert Path(python).parent == Path(sys.executable).parent
    done = subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(done.stdout.split("\n")) - {""} == {str(ROOT)}
    # The command itself finds them from there.
    ran = subprocess.run([Path(sys.executable).with_name("beleg"), "settings", "--help"], cwd=tmp_path, check=False, stdout=-3)
    assert ran.returncode == 0


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_all_is_explicit_and_true(path: Path) -> None:
    module = importlib.import_module(module_of(path))
    names = module.__all__
    assert list(names) == sorted(set(names), key=names.index)
    for name in names:
        assert hasattr(module, name)
        assert not name.startswith("_")


@pytest.mark.parametrize("path", [*FILES, ROOT / "beleg.py"], ids=module_of)
def test_all_is_written_out(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["__all__"]
    ]
    assert [type(value) for value in values] == [ast.List]
    assert ast.get_docstring(tree)


def test_command_lines_import_nothing_heavy() -> None:
    modules = [module_of(path) for path in FILES if path.stem.partition("_")[0] == "cli"]
    assert len(modules) >= 5
    program = (
        f"import sys\nfor name in {modules!r}: __import__(name)\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & HEAVY
