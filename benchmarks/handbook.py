"""The handbook of examples/, as benchmarks index it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
HANDBOOK = EXAMPLES / "handbook"
BELEG = str(Path(sys.executable).with_name("beleg"))


def index_handbook(environment: Mapping[str, str]) -> None:
    """Index the handbook, where and how the environment says.

    Raises:
        SystemExit: it could not be.
    """
    indexed = subprocess.run([BELEG, "index", str(HANDBOOK)], env=environment, stdout=subprocess.DEVNULL)
    if indexed.returncode not in (0, 3):  # 3: without Tesseract the scan is left out
        raise SystemExit("The handbook could not be indexed.")


def handbook_files() -> list[Path]:
    """Return its files, in order."""
    return sorted(path for path in HANDBOOK.rglob("*") if path.is_file())
