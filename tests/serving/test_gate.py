"""Places are counted, given back, and refused with a time to come back."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest

from reader.errors import Overloaded
from serving.errors import ShuttingDown
from serving.gate import Gate


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def retry_after(gate: Gate) -> int:
    with pytest.raises(Overloaded) as caught:
        gate.enter()
    return caught.value.retry_after_s


def test_as_many_as_there_are_places() -> None:
    gate = Gate(2)
    first, _ = gate.enter(), gate.enter()
    retry_after(gate)
    first.leave(answered=True)
    first.leave(answered=True)
    assert gate.taken == 1
    gate.enter()
    assert gate.taken == 2


def test_the_time_to_come_back_follows_the_answers() -> None:
    clock = Clock()
    gate = Gate(4, clock=clock)
    places = [gate.enter() for _ in range(4)]
    assert retry_after(gate) == 10  # a first guess of 5 s each, until half of 4 are done
    for _ in range(4):
        clock.now += 3
        places.pop(0).leave(answered=True)
        places.append(gate.enter())
    # One left every 3 s. That a question waited for others before is not what its answer takes.
    assert retry_after(gate) == 6
    clock.now += 1000
    places.pop(0).leave(answered=False)
    places.append(gate.enter())
    assert retry_after(gate) == 6  # one that was cancelled tells nothing


def test_the_time_to_come_back_is_at_least_a_second() -> None:
    clock = Clock()
    gate = Gate(1, clock=clock)
    gate.enter().leave(answered=True)
    gate.enter()
    assert retry_after(gate) == 1


def test_a_closed_gate_lets_nobody_in_and_can_be_waited_for() -> None:
    gate = Gate(1)
    place = gate.enter()
    gate.close()
    with pytest.raises(ShuttingDown):
        gate.enter()
    assert not gate.wait_empty(0.01)
    threading.Timer(0.05, place.leave, kwargs={"answered": False}).start()
    assert gate.wait_empty(5)


def test_fifty_at_once_with_two_places(serve: Any, fake: Any, scripts: Any, eventually: Any) -> None:
    go = threading.Event()

    def held(question: str, cancelled: Any) -> Any:
        assert go.wait(20)
        yield from scripts["quick"](question, cancelled)

    fake.script = held
    running = serve(fake, queue=2)

    async def fifty() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=running.url, timeout=20, limits=httpx.Limits(max_connections=50)) as client:

            async def one(number: int) -> httpx.Response:
                response = await client.post("/v1/ask", json={"question": "x", "stream": number % 2 == 0})
                refused.append(response.status_code == 503)
                if sum(refused) == 48:
                    go.set()
                return response

            refused: list[bool] = []
            return await asyncio.gather(*map(one, range(50)))

    responses = asyncio.run(fifty())
    assert sorted(response.status_code for response in responses) == [200] * 2 + [503] * 48
    for response in responses:
        if response.status_code == 503:
            assert int(response.headers["retry-after"]) >= 1
            assert response.json()["type"] == "urn:beleg:overloaded"
    assert len(fake.asked) == 2
    assert running.gate.taken == 0
    assert running.ask().status_code == 200
