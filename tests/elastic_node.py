"""Elasticsearch for tests: a node that is started on a free port and stopped again, or crashed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

TOOLS = Path(__file__).parents[2] / "shared" / "elasticsearch"
USER, PASSWORD = "elastic_test", "beleg-test"


class Node:
    """A node of its own, with data that a restart finds again.

    Args:
        arguments: of `start`, such as `--secure`.
    """

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._folder = Path(tempfile.mkdtemp(prefix="beleg-elastic-"))
        self._port = free_port()
        self.ca = self._folder / "n0" / "conf" / "http.crt"
        self.url = self.start()

    def start(self) -> str:
        command = [str(TOOLS / "start"), str(self._folder), "--port", str(self._port), *self._arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr
        return ",".join(word for word in done.stdout.split() if word.startswith("http"))

    def kill(self, *number: int) -> None:
        """End it, or one node of several, as a crash does."""
        which = ["--node", *map(str, number)] if number else []
        command = [str(TOOLS / "stop"), str(self._folder), "--kill", *which]
        subprocess.run(command, capture_output=True, timeout=60, check=True)

    def close(self) -> None:
        subprocess.run([str(TOOLS / "stop"), str(self._folder), "--kill"], capture_output=True, timeout=60, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


def free_port() -> int:
    """Return a port that is free, as is the one a hundred higher, which the node takes for its transport."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 100))
            except (OSError, OverflowError):
                continue
            return port
