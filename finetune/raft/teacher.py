"""A model on a server that writes questions and answers: asked within a budget, asked again where the server fails.

Any OpenAI-compatible server will do. Knows nothing of rows.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Sequence

from reader.engine.servers import recognise
from reader.engine.wire import Wire
from reader.errors import EngineError, EngineUnavailable
from retriever.errors import BelegError

__all__ = ["BudgetSpent", "Teacher"]

_ATTEMPTS = 5
_FIRST_WAIT_S = 1.0
_STATUS = re.compile(r" answers (\d{3})\b")


class BudgetSpent(BelegError):
    """No further request is allowed."""


class Teacher:
    """Asks a model.

    Args:
        url: of the server, with or without `/v1`.
        model: which of its models; "" takes the first.
        timeout_s: longest silence of the server.
        budget: requests that may be sent, repeated ones included; None for any number.
        max_tokens: longest answer.
        wait: sleeps so many seconds.

    Attributes:
        requests: how many were sent.

    Raises:
        EngineUnavailable: the server does not answer, refuses us, or is not ready.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = "",
        api_key: str = "",
        timeout_s: float = 120.0,
        budget: int | None = None,
        max_tokens: int = 512,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._wire = Wire(url, api_key=api_key, timeout_s=timeout_s)
        self.model = recognise(self._wire, model).model
        self.requests = 0
        self._budget = budget
        self._max_tokens = max_tokens
        self._wait = wait
        self._counting = threading.Lock()

    def ask(self, messages: Sequence[tuple[str, str]], *, attempt: int = 0) -> str:
        """Return what the model answers to a conversation of (role, text).

        Args:
            attempt: 0 asks for the likeliest answer; a higher number for another one, the same each time.

        Raises:
            BudgetSpent: no request is left.
            EngineUnavailable: the server has failed five times in a row, with longer and longer waits between.
            EngineError: it refuses what it is asked, or answers something else than a chat completion.
        """
        body: dict[str, object] = {
            "messages": [{"role": role, "content": text} for role, text in messages],
            "max_tokens": self._max_tokens,
            "temperature": 0.0 if attempt == 0 else 0.7,
            "seed": attempt,
            "stream": False,
        }
        if self.model:
            body["model"] = self.model
        for failed in range(_ATTEMPTS):
            self._count()
            try:
                return _content(self._wire.post("/v1/chat/completions", body), self._wire.shown)
            except EngineError as error:
                if failed == _ATTEMPTS - 1 or not _passing(error):
                    raise
            # Spread, so that parallel requests do not come back all at once.
            self._wait(_FIRST_WAIT_S * 2**failed * (1 + random.random() / 4))
        raise AssertionError

    def _count(self) -> None:
        with self._counting:
            if self._budget is not None and self.requests >= self._budget:
                raise BudgetSpent(
                    f"The budget of {self._budget} requests is used up.", way_out="The same command goes on from here."
                )
            self.requests += 1


def _passing(error: EngineError) -> bool:
    """Say whether a failure may pass by itself: a busy or restarting server, a broken connection, an error within it."""
    status = _STATUS.search(error.message)
    if status:
        return status[1] in {"408", "429"} or status[1].startswith("5")
    return isinstance(error, EngineUnavailable)


def _content(answer: dict[str, object], shown: str) -> str:
    choices = answer.get("choices")
    message = choices[0].get("message") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, str):
        raise EngineError(f"The model server at {shown} did not answer with a chat completion.", way_out="Check its address.")
    # A lone surrogate cannot be written to a file.
    return content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
