"""What all tests share: the flag that rewrites goldens, a way to run the installed `beleg`, and an Elasticsearch."""

from __future__ import annotations

import importlib.util
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

Beleg = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Write what comes out now into the golden folders.")


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without any setting of Beleg but the given ones."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BELEG_")} | dict(more)


@pytest.fixture(scope="session")
def beleg_command() -> Path:
    """The `beleg` that is installed beside the Python that runs the tests."""
    return Path(sys.executable).with_name("beleg")


@pytest.fixture(scope="session")
def beleg_environment() -> Callable[[Mapping[str, str]], dict[str, str]]:
    return environment


@pytest.fixture(scope="session")
def beleg(beleg_command: Path, tmp_path_factory: pytest.TempPathFactory) -> Beleg:
    """Run the installed `beleg` to its end: arguments as they are typed, settings as keywords."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*arguments: object, cwd: Path = elsewhere, **settings: object) -> subprocess.CompletedProcess[str]:
        given = {f"BELEG_{name.upper()}": str(value) for name, value in settings.items()}
        command = [str(part) for part in (beleg_command, *arguments)]
        return subprocess.run(
            command, cwd=cwd, env=environment(given), capture_output=True, text=True, check=False, timeout=240
        )

    return run


@pytest.fixture(scope="session")
def tiny_reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cross-encoder of random weights that reads letters. Copy it to change it."""
    import torch
    from sentence_transformers.cross_encoder import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    root = tmp_path_factory.mktemp("reranker")
    plain, saved = root / "plain", root / "saved"
    letters = "abcdefghijklmnopqrstuvwxyzäöüß0123456789.,?>-"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (root / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(str(root / "vocab.txt"), model_max_length=64).save_pretrained(plain)
    # Wide weights: with the usual ones every pair gets nearly the same score.
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=64, num_labels=1, initializer_range=0.4, **size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(plain)
    CrossEncoder(str(plain), device="cpu").save_pretrained(str(saved))
    return saved


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder of random weights that reads letters, and whole the words of `lamps`. Copy it to change it."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    root = tmp_path_factory.mktemp("encoder")
    plain, saved = root / "plain", root / "saved"
    letters = "abcdefghijklmnopqrstuvwxyzäöüß0123456789.,?>-"
    whole = [*COLOURS, *THINGS, "where", "is", "the", "stands", "in", "hall", "it", "has", "number"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *whole, *letters, *(f"##{letter}" for letter in letters)]
    (root / "vocab.txt").write_text("\n".join(dict.fromkeys(words)), encoding="utf-8")
    BertTokenizerFast(str(root / "vocab.txt"), model_max_length=128).save_pretrained(plain)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(dict.fromkeys(words)), max_position_embeddings=128, initializer_range=0.2, **size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(plain)
    model = SentenceTransformer(modules=[Transformer(str(plain)), Pooling(32)], device="cpu")
    model.save_pretrained(str(saved), create_model_card=False)
    return saved


COLOURS = ("red", "green", "blue", "grey", "white", "black", "brown", "pink")
THINGS = ("lamp", "desk", "press", "crane", "pump", "oven", "saw", "drill")


@pytest.fixture(scope="session")
def lamps() -> list[dict[str, Any]]:
    """64 rows of training data, each of a document of its own, which the words of question and context tie together."""
    rows = []
    for number, (colour, thing) in enumerate((colour, thing) for colour in COLOURS for thing in THINGS):
        text = f"the {colour} {thing} stands in hall {number}. it has the number {number * 37}."
        rows.append(
            {
                "id": f"r{number}",
                "question": f"where is the {colour} {thing}?",
                "answers": [f"hall {number}"],
                "positive_ctxs": [{"title": f"{colour} {thing}", "text": text}],
                "language": "en",
                "document": f"d{number}",
            }
        )
    return rows


@pytest.fixture(scope="session")
def elastic_nodes() -> ModuleType:
    """The module that starts nodes, for tests that need one of their own; skips where there is none to start."""
    spec = importlib.util.spec_from_file_location("elastic_node", Path(__file__).with_name("elastic_node.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not module.TOOLS.is_dir():
        pytest.skip(f"no Elasticsearch to start: there is no {module.TOOLS}")
    return module


@pytest.fixture(scope="session")
def elastic_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of an Elasticsearch without TLS: the one that BELEG_TEST_ELASTICSEARCH_URL names, else one for this session."""
    given = os.environ.get("BELEG_TEST_ELASTICSEARCH_URL")
    if given:
        yield given
        return
    node = request.getfixturevalue("elastic_nodes").Node()
    yield node.url
    node.close()


@pytest.fixture(scope="session")
def elastic_secure(elastic_nodes: ModuleType) -> Iterator[Any]:
    """A node with TLS and users."""
    node = elastic_nodes.Node("--secure")
    yield node
    node.close()


@pytest.fixture
def elastic_place(elastic_url: str) -> Iterator[tuple[str, str]]:
    """Address of an Elasticsearch and a name for an index, of which nothing is left afterwards."""
    name = f"test-{secrets.token_hex(4)}"
    yield elastic_url, name
    # By their names: a cluster may refuse to delete by wildcard.
    indices = httpx.get(f"{elastic_url}/{name}-*?allow_no_indices=true", timeout=60).json()
    for index in indices:
        httpx.delete(f"{elastic_url}/{index}", timeout=60)
