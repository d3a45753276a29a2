"""What all tests share: the flag that rewrites goldens, and a way to run the installed `beleg`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Beleg = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Write what comes out now into the golden folders.")


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without any setting of Beleg but the given ones."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BELEG_")} | dict(more)


@pytest.fixture(scope="session")
def beleg_command() -> Path:
    """The `beleg` that is installed beside the Python that runs the tests."""
    return Path(sys.executable).with_name("beleg")


@pytest.fixture(scope="session")
def beleg_environment() -> Callable[[Mapping[str, str]], dict[str, str]]:
    return environment


@pytest.fixture(scope="session")
def beleg(beleg_command: Path, tmp_path_factory: pytest.TempPathFactory) -> Beleg:
    """Run the installed `beleg` to its end: arguments as they are typed, settings as keywords."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: object, cwd: Path = elsewhere, **settings: object) -> subprocess.CompletedProcess[str]:
        given = {f"BELEG_{name.upper()}": str(value) for name, value in settings.items()}
        command = [str(part) for part in (beleg_command, *arguments)]
        return subprocess.run(
            command, cwd=cwd, env=environment(given), capture_output=True, text=True, check=False, timeout=240
        )

    return run
