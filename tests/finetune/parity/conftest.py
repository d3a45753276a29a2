"""A tiny Mistral with a SentencePiece tokenizer of its own, and adapters of visible size over it."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.parity.cases import AWKWARD, CASES
from reader.prompt import _SHOTS, _SYSTEM

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}"
    "{% elif m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
VOCABULARY = 900
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_base(folder: Path, work: Path) -> Path:
    """Write a whole base model: config, weights, tokenizer.model, tokenizer.json."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer(folder, work)
    torch.manual_seed(7)
    config = MistralConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, sliding_window=None, bos_token_id=1, eos_token_id=2,
        initializer_range=0.12, tie_word_embeddings=False,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(folder)
    return folder


def tokenizer(folder: Path, work: Path) -> None:
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    corpus = work / "corpus.txt"
    texts = [
        _SYSTEM,
        *(case.question + " " + case.hits[0].text for case in CASES),
        *(text for text in AWKWARD if len(text) < 99),
    ]
    texts += [f"{ask} {said} {' '.join(text for _, text in passages)}" for passages, ask, said in _SHOTS]
    corpus.write_text("\n".join(line for text in texts for line in text.splitlines()), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(work / "tokenizer"), vocab_size=VOCABULARY, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.98, minloglevel=2,
        hard_vocab_limit=True,
    )  # fmt: skip
    shutil.copyfile(work / "tokenizer.model", folder / "tokenizer.model")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    assert pieces.get_piece_size() == VOCABULARY
    vocab = {pieces.id_to_piece(index): index for index in range(VOCABULARY)}
    merges = []
    for piece in sorted(vocab, key=lambda piece: -pieces.get_score(vocab[piece])):
        index = vocab[piece]
        if pieces.is_control(index) or pieces.is_unknown(index) or pieces.is_byte(index):
            continue
        ways = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        merges += sorted(
            (way for way in ways if way[0] in vocab and way[1] in vocab), key=lambda way: (vocab[way[0]], vocab[way[1]])
        )
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ("<unk>", "<s>", "</s>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)


def make_adapter(
    folder: Path, base: Path, *, size: float = 0.05, seed: int = 1, bits: int | None = None, **options: Any
) -> Path:
    """Write a LoRA with random weights of visible size over a base."""
    import torch
    from peft import LoraConfig, get_peft_model

    from reader.engine.weights import load_base, open_base

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(
            load_base(open_base(str(base))), LoraConfig(**{"r": 16, "lora_alpha": 32, "target_modules": MODULES, **options})
        )
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0, size)
        model.save_pretrained(folder)
    if bits:
        (folder / "manifest.json").write_text(json.dumps({"recipe": {"quantization": {"bits": bits}}}), encoding="utf-8")
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than such models do."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model; tests copy it before they change it."""
    return make_base(tmp_path_factory.mktemp("tiny") / "base", tmp_path_factory.mktemp("tiny-work"))


@pytest.fixture(scope="session")
def make_lora() -> Callable[..., Path]:
    return make_adapter


@pytest.fixture(scope="session")
def lora(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An rsLoRA: its scale is 8, which a converter takes for 2."""
    return make_adapter(tmp_path_factory.mktemp("lora") / "adapter", tiny_base, use_rslora=True, size=0.01)


@pytest.fixture(scope="session")
def merged(tiny_base: Path, lora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from finetune.merge import merge, open_adapter
    from reader.engine.weights import open_base

    folder = tmp_path_factory.mktemp("merged") / "model"
    merge(open_base(str(tiny_base)), open_adapter(lora), folder, "original")
    return folder


@pytest.fixture(scope="session")
def f16(merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from finetune.gguf import convert

    return convert(merged, tmp_path_factory.mktemp("gguf") / "model-f16.gguf")


@pytest.fixture(scope="session")
def q8(f16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from finetune.gguf import quantize

    return quantize(f16, tmp_path_factory.mktemp("q8") / "model-q8_0.gguf", "q8_0")
