"""Tiny models that a training takes seconds for, and rows that have everything in them that is awkward."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from finetune.raft.row import Passage, RaftRow, write_raft
from finetune.recipe_reader import ReaderRecipe
from finetune.sft.model import Learner, tokenizer_of
from reader.quotes import Span

THINGS = ("Lampe", "Presse", "Säge", "Kran", "Pumpe", "Ofen", "Bohrer", "Tür 🚪", "Waage", "Rührwerk")


def passage(text: str, kind: Any = "retrieved", title: str = "Halle") -> Passage:
    return Passage(text, title, (), kind, f"{title}.md", 0, len(text), "de")


def make_row(number: int, *, abstains: bool = False, reasoning: str = "") -> RaftRow:
    """Return a row of three passages, of which the second answers."""
    thing = THINGS[number % len(THINGS)]
    golden = passage(f"Hier ist Größe wichtig. Die {thing} steht in Halle {number}. Sie wird geölt.", "golden", f"Ort {number}")
    start = golden.text.index("Die ")
    end = golden.text.index(".", start) + 1
    others = (passage(f"Über die Wartung {number}. Nichts sonst."), passage("Öffnungszeiten: 8 bis 17 Uhr."))
    if abstains:
        return RaftRow(f"r{number}", f"Wo steht die {thing}?", others, None, (), "", "", True, "de", f"d{number}", "rows")
    return RaftRow(
        f"r{number}", f"Wo steht die {thing} Nr. {number}?", (others[0], golden, others[1]), 2, (Span(2, start, end),),
        reasoning, f"in Halle {number}", False, "de", f"d{number}", "rows",
    )  # fmt: skip


@pytest.fixture(scope="session")
def rows() -> list[RaftRow]:
    return [make_row(at, abstains=at % 7 == 3, reasoning="Es geht um den Ort." if at % 5 == 0 else "") for at in range(40)]


@pytest.fixture(scope="session")
def raft_file(rows: list[RaftRow], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("raft") / "raft.jsonl"
    write_raft(file, rows)
    return file


@pytest.fixture(scope="session")
def parity() -> ModuleType:
    """The parity tests' module of fixtures: by its path, since test folders are no packages."""
    name = "parity_fixtures"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "parity" / "conftest.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than such models do."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def mistral(parity: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mistral of two layers with a SentencePiece tokenizer, whose template knows no system turn."""
    made: Path = parity.make_base(tmp_path_factory.mktemp("tiny") / "base", tmp_path_factory.mktemp("tiny-work"))
    return made


@pytest.fixture(scope="session")
def llama(rows: list[RaftRow], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with a tokenizer of bytes and tied embeddings, as SmolLM2 is."""
    import torch
    from tokenizers import AddedToken, ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llama") / "base"
    tokenizer = ByteLevelBPETokenizer()
    ends = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    texts = [text for row in rows for text in (row.question, row.answer, *(one.text for one in row.passages))]
    tokenizer.train_from_iterator(texts, vocab_size=420, special_tokens=[AddedToken(end, special=True) for end in ends])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, bos_token=ends[1], eos_token=ends[2], pad_token=ends[2]
    )
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True,
        initializer_range=0.1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


Make = Callable[..., ReaderRecipe]


@pytest.fixture(scope="session")
def recipe(llama: Path, raft_file: Path) -> Make:
    """Return what makes recipes: keywords are parts, whose keys are added to those of a small training."""

    def make(**more: Any) -> ReaderRecipe:
        values: dict[str, Any] = {
            "task": "reader",
            "base_model": str(llama),
            "data": {"train": [str(raft_file)]},
            "adapter": {"r": 4, "alpha": 8, "layers": 2, "dropout": 0.0},
            "trainer": {
                "learning_rate": 3e-3, "gradient_accumulation_steps": 2, "logging_steps": 1, "eval_steps": 4,
                "precision": "fp32", "samples": 1, "test_rows": 0,
            },
        }  # fmt: skip
        for key, value in more.items():
            values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
        return ReaderRecipe.model_validate(values)

    return make


@pytest.fixture(scope="session")
def sentencepiece_learner(recipe: Make, mistral: Path) -> Learner:
    return tokenizer_of(recipe(base_model=str(mistral)))


@pytest.fixture(scope="session")
def bytes_learner(recipe: Make) -> Learner:
    return tokenizer_of(recipe())


@pytest.fixture(params=["sentencepiece", "bytes"])
def learner(request: pytest.FixtureRequest) -> Learner:
    """The tokenizers of both kinds in turn."""
    made: Learner = request.getfixturevalue(f"{request.param}_learner")
    return made
