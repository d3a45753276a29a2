"""Offline means offline: no code gets a connection to a public address. No test here sends a packet out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

# Runs `beleg` in this very process, with a hook of its own that notes every connection and ends any that would leave.
WATCHED = """
import sys
LOCAL = ("127.", "::1", "localhost")
def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"):
        where = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        host = where[0] if isinstance(where, tuple) else where
        if host is not None and not str(host).startswith(LOCAL + ("/",)):
            print("LEAVING", event, where, file=sys.stderr, flush=True)
            raise SystemExit(9)
sys.addaudithook(watch)
import beleg
for line in sys.argv[1:]:
    sys.argv = ["beleg", *line.split("|")]
    try:
        beleg.main()
    except SystemExit as end:
        if end.code:
            raise
"""

TRYING = """
import socket, sys, urllib.request
import httpx
from retriever.offline import OfflineError, go_offline
def last_resort(event, arguments):
    # Were the switch broken, this would still keep the packet here.
    if switched and event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if isinstance(arguments[1], tuple) and not str(arguments[1][0]).startswith(("127.", "localhost")):
            raise SystemExit(9)
switched = []
go_offline()
sys.addaudithook(last_resort)
switched.append(True)
def refused(what):
    try:
        what()
    except BaseException as error:
        while error is not None and not isinstance(error, OfflineError):
            error = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        return isinstance(error, OfflineError) and "offline" in str(error)
    return False
def datagram(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        return sender.sendto(b"x", address)
def message(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        return sender.sendmsg([b"x"], [], 0, address)
def connect(family, address):
    with socket.socket(family) as caller:
        caller.settimeout(2)
        caller.connect(address)
print("urllib", refused(lambda: urllib.request.urlopen("http://8.8.8.8/", timeout=2)))
print("httpx", refused(lambda: httpx.get("http://8.8.8.8/", timeout=2)))
print("socket", refused(lambda: connect(socket.AF_INET, ("8.8.8.8", 53))))
print("udp", refused(lambda: datagram(socket.AF_INET, ("8.8.8.8", 53))))
print("sendmsg", refused(lambda: message(socket.AF_INET, ("8.8.8.8", 53))))
print("ipv6", refused(lambda: connect(socket.AF_INET6, ("2001:4860:4860::8888", 53))))
print("mapped", refused(lambda: connect(socket.AF_INET6, ("::ffff:8.8.8.8", 53))))
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    port = listener.getsockname()[1]
    connect(socket.AF_INET, ("127.0.0.1", port))
    connect(socket.AF_INET, ("localhost", port))
    print("loopback", True)
"""


def test_indexing_searching_and_asking_talk_to_nobody(
    tmp_path: Path, beleg_environment: Callable[[Mapping[str, str]], dict[str, str]]
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "canteen.md").write_text("# Canteen\n\nGuests pay 9.40 euros.\n", encoding="utf-8")
    settings = {"BELEG_OFFLINE": "1", "BELEG_DATA_DIR": str(tmp_path / "data"), "BELEG_PASSAGES": "1", "BELEG_THREADS": "1"}
    # As a file, so that the loader's worker process can import it.
    program = tmp_path / "watched.py"
    program.write_text(WATCHED.replace("import beleg\n", "if __name__ != '__main__': sys.argv = ['']\nimport beleg\n"))
    lines = [f"index|{tmp_path / 'files'}|--json", "search|guests|--json", "ask|What do guests pay?|--json"]
    done = subprocess.run(
        [sys.executable, program, *lines],
        env=beleg_environment(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert "LEAVING" not in done.stderr
    assert done.returncode == 0, done.stderr
    indexed, found, answer = map(json.loads, done.stdout.splitlines())
    assert indexed["added"] == 1
    assert found["hits"]
    assert [quote["text"] for quote in answer["quotes"]] == ["Guests pay 9.40 euros."]


@pytest.fixture(scope="module")
def tried() -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", TRYING], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.mark.parametrize("way", ["urllib", "httpx", "socket", "udp", "sendmsg", "ipv6", "mapped", "loopback"])
def test_public_addresses_are_refused_and_this_machine_is_not(tried: dict[str, str], way: str) -> None:
    if way == "ipv6" and way not in tried:
        pytest.skip("no IPv6 here")
    assert tried[way] == "True"


def test_a_hub_id_that_is_not_here_is_a_clear_error(
    beleg: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("Text.", encoding="utf-8")
    done = beleg("index", tmp_path / "a.txt", data_dir=tmp_path / "data", offline=1, encoder="nobody/no-such-model")
    assert done.returncode == 1
    assert "nobody/no-such-model is not on this machine" in done.stderr
    assert "beleg fetch" in done.stderr
    assert "Traceback" not in done.stderr
