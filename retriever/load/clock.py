"""A limit on the time that this process spends on one thing, kept by the system: who hangs cannot keep it himself."""

from __future__ import annotations

import signal

__all__ = ["restart", "start", "stop"]


def start(seconds: float) -> None:
    """Let the system end this process by SIGALRM after `seconds`, unless the clock is restarted or stopped before."""
    # The interval never comes to pass; it keeps the limit for `restart`.
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)


def restart() -> None:
    """Begin the time anew that `start` gave; nothing happens if no clock runs."""
    _, seconds = signal.getitimer(signal.ITIMER_REAL)
    if seconds:
        start(seconds)


def stop() -> None:
    """Stop the clock."""
    signal.setitimer(signal.ITIMER_REAL, 0)
