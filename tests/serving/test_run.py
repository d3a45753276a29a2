"""The process: it says where it listens, and ends when told to, whoever is still listening."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from retriever.errors import SettingsError, StoreError
from retriever.settings import Settings
from serving.run import bind, run

PROGRAM = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("fakes", sys.argv[1])
fakes = importlib.util.module_from_spec(spec)
sys.modules["fakes"] = fakes
spec.loader.exec_module(fakes)
from retriever.settings import Settings
import serving.run
exec(sys.argv[3])
pipeline = fakes.FakePipeline(getattr(fakes, sys.argv[2]))
serving.run.run(Settings(host="127.0.0.1", port=0, queue=4, jobs=False), open_pipeline=lambda settings: pipeline)
print("closed" if pipeline.closed else "left open", pipeline.ended, pipeline.cancelled)
"""


@contextmanager
def process(script: str, before: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).with_name("conftest.py")), script, before]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            match = re.fullmatch(r"Beleg listens on (http://127\.0\.0\.1:\d+)\n", line)
            assert match, (line, child.stderr and child.stderr.read())
            yield child, match[1]
        finally:
            if child.poll() is None:
                child.kill()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server(sign: signal.Signals) -> None:
    with process("quick") as (child, url):
        assert httpx.post(f"{url}/v1/ask", json={"question": "x"}).status_code == 200
        child.send_signal(sign)
        out, err = child.communicate(timeout=10)
    assert (child.returncode, out) == (0, "closed 1 0\n")
    assert "Traceback" not in err
    (line,) = err.splitlines()
    assert '"outcome": "answered"' in line


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("script", ["endless", "silent"])
def test_a_signal_ends_open_streams(script: str, sign: signal.Signals) -> None:
    with process(script) as (child, url), httpx.Client(base_url=url) as client:
        with client.stream("POST", "/v1/ask", json={"question": "x", "stream": True}) as response:
            lines = response.iter_lines()
            assert next(lines) == "event: hits"
            began = time.monotonic()
            child.send_signal(sign)
            rest = list(lines)
        out, err = child.communicate(timeout=10)
    assert "event: error" in rest
    assert "event: answer" not in rest
    assert "urn:beleg:shutting-down" in rest[rest.index("event: error") + 1]
    assert time.monotonic() - began < 5
    assert (child.returncode, out) == (0, "closed 1 1\n")
    assert "Traceback" not in err


def test_a_signal_ends_a_question_that_is_not_streamed() -> None:
    with process("telling") as (child, url), ThreadPoolExecutor() as pool:
        asking = pool.submit(httpx.post, f"{url}/v1/ask", json={"question": "x"}, timeout=20)
        assert child.stdout is not None
        assert child.stdout.readline() == "asked\n"
        child.send_signal(signal.SIGTERM)
        response = asking.result(timeout=10)
        out, _ = child.communicate(timeout=10)
    assert (response.status_code, response.json()["type"]) == (503, "urn:beleg:shutting-down")
    assert (child.returncode, out) == (0, "closed 1 1\n")


def test_a_model_that_does_not_stop_is_not_waited_for_forever() -> None:
    # And it is not freed either, as something still computes with it.
    with process("deaf", "serving.run._GRACE_S = 0.5") as (child, url), httpx.Client(base_url=url) as client:
        with client.stream("POST", "/v1/ask", json={"question": "x", "stream": True}) as response:
            lines = response.iter_lines()
            assert next(lines) == "event: hits"
            child.send_signal(signal.SIGTERM)
            assert "event: error" in list(lines)
        out, err = child.communicate(timeout=10)
    assert (child.returncode, out) == (0, "left open 0 0\n")
    assert "still being answered" in err


def test_a_port_that_is_taken_is_a_settings_error_before_anything_is_loaded() -> None:
    def never(settings: Settings) -> Any:
        raise AssertionError

    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1 port {port}"):
            run(Settings(port=port), open_pipeline=never)
    with pytest.raises(SettingsError, match="Cannot listen"):
        run(Settings(host="host.invalid", port=0), open_pipeline=never)


def test_a_pipeline_that_does_not_open_is_the_callers_to_report() -> None:
    def broken(settings: Settings) -> Any:
        raise StoreError("The store is damaged.")

    with pytest.raises(StoreError):
        run(Settings(port=0), open_pipeline=broken)
