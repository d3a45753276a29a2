"""The service's part of the error tree.

BelegError
 └─ ShuttingDown   the server stops, and takes or finishes no more questions
"""

from __future__ import annotations

from retriever.errors import BelegError

__all__ = ["ShuttingDown"]


class ShuttingDown(BelegError):
    """The server stops, and takes or finishes no more questions."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down.", way_out="Ask again in a moment.")
