"""Draw docs/ask.svg: what `beleg ask` really prints about the example documents. Run after `make demo`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

__all__ = ["main"]

QUESTION = "How long must I wait before touching the DSH-2 after the power is off?"


def main() -> None:
    """Ask, and write down what came."""
    root = Path(__file__).resolve().parent.parent
    command = [str(Path(sys.executable).with_name("beleg")), "ask", QUESTION]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.replace(f"{root}/", "")
    console = Console(record=True, width=118, quiet=True)
    console.print(Text(f'$ beleg ask "{QUESTION}"', style="bold green"))
    console.print(Text(printed.strip()))
    drawn = console.export_svg(title="beleg")
    # Without the web fonts that rich names: a picture must not fetch anything.
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    (root / "docs" / "ask.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
