"""Drives a real Chromium by its debugging pipe: opens a page, presses keys, reads what is shown. Needs no package."""

from __future__ import annotations

import json
import os
import signal
import time
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Browser:
    """One tab.

    Args:
        program: Chromium's.
        profile: an empty folder.
        language: as browsers name it.
    """

    def __init__(self, program: str, profile: Path, language: str = "en-GB") -> None:
        ours_read, theirs_write = os.pipe()
        theirs_read, ours_write = os.pipe()
        flags = "--headless --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe --window-size=1100,900"
        given = [f"--user-data-dir={profile}", f"--accept-lang={language}", f"--lang={language}", "about:blank"]
        nowhere = os.open(os.devnull, os.O_RDWR)
        # Chromium reads from 3 and writes to 4.
        self._process = os.posix_spawn(
            program,
            [program, *flags.split(), *given],
            {**os.environ, "LANGUAGE": language[:2]},
            file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in
                          ((nowhere, 1), (nowhere, 2), (theirs_read, 3), (theirs_write, 4))],
        )  # fmt: skip
        os.close(nowhere)
        os.close(theirs_read)
        os.close(theirs_write)
        self._in, self._out = os.fdopen(ours_read, "rb", buffering=0), os.fdopen(ours_write, "wb", buffering=0)
        self._rest = b""
        self._numbers = count(1)
        self._session = ""
        target = next(one for one in self._call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        self._in.close()
        self._out.close()

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def press(self, key: str, *, ctrl: bool = False) -> None:
        named = {"Escape": 27, "Enter": 13}
        more: dict[str, Any] = {
            "modifiers": 2 if ctrl else 0,
            "key": key,
            "windowsVirtualKeyCode": named.get(key, ord(key[0].upper())),
        }
        if key not in named and not ctrl:
            more["text"] = key
        self._call("Input.dispatchKeyEvent", type="keyDown", **more)
        self._call("Input.dispatchKeyEvent", type="keyUp", **more)

    def run(self, script: str) -> Any:
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def until(self, script: str, expected: Any) -> None:
        """Wait until a script gives what is expected; before the page has loaded it may well fail."""
        found: Any = None
        for _ in range(300):
            try:
                found = self.run(script)
            except AssertionError as error:
                found = error
            if found == expected:
                return
            time.sleep(0.1)
        raise AssertionError(f"{script} is {found!r}, not {expected!r}")

    def picture(self, path: Path) -> None:
        import base64

        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                read = self._in.read(1 << 16)
                if not read:
                    raise AssertionError("Chromium has ended")
                self._rest += read
            raw, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(raw)
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(answer["error"])
                return answer["result"]
