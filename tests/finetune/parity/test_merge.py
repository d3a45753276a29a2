from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.merge import FULL, Adapter, load_merged, merge, open_adapter
from finetune.parity.cases import AWKWARD
from finetune.pieces import complete_sentencepiece, piece_scores
from reader.engine.weights import adapt, load_base, load_tokenizer, open_base
from retriever.errors import ModelError


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(torch.arange(3, 60)[None]).logits


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}], ids=["lora", "rslora", "dora"])
def test_merged_says_what_base_and_adapter_say(
    tiny_base: Path, make_lora: Callable[..., Path], tmp_path: Path, options: dict[str, bool]
) -> None:
    adapter = open_adapter(make_lora(tmp_path / "adapter", tiny_base, size=0.02, **options))
    base = open_base(str(tiny_base))
    merge(base, adapter, tmp_path / "merged", "original")
    plain, together = logits(load_base(base)), logits(adapt(load_base(base), adapter.folder))
    merged = logits(load_merged(tmp_path / "merged"))
    assert float((merged - together).abs().max()) < 1e-3
    assert float((plain - together).abs().max()) > 0.1


def test_everything_of_the_tokenizer_comes_along(merged: Path, tiny_base: Path) -> None:
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (merged / name).read_bytes() == (tiny_base / name).read_bytes()


def test_generation_settings_that_transformers_refuses_to_write(tiny_base: Path, lora: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    odd = {"temperature": 0.6, "do_sample": False, "eos_token_id": [2, 5]}
    (base / "generation_config.json").write_text(json.dumps(odd))
    merge(open_base(str(base)), open_adapter(lora), tmp_path / "merged", "original")
    assert json.loads((tmp_path / "merged" / "generation_config.json").read_text()) == odd


def test_a_lost_sentencepiece_model_is_made_again(tiny_base: Path, tmp_path: Path) -> None:
    import sentencepiece

    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copyfile(tiny_base / "tokenizer.json", folder / "tokenizer.json")
    complete_sentencepiece(folder)
    made = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    original = sentencepiece.SentencePieceProcessor(model_file=str(tiny_base / "tokenizer.model"))
    for text in AWKWARD:
        assert made.encode(text) == original.encode(text), text


def test_added_tokens_are_named(tiny_base: Path, tmp_path: Path) -> None:
    data = json.loads((tiny_base / "tokenizer.json").read_text(encoding="utf-8"))
    data["added_tokens"].append({**data["added_tokens"][0], "id": 900, "content": "<|zitat|>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    complete_sentencepiece(tmp_path)
    assert json.loads((tmp_path / "added_tokens.json").read_text(encoding="utf-8")) == {"<|zitat|>": 900}


@pytest.mark.parametrize("text", ["", "[]", '{"model": {"type": "BPE", "byte_fallback": true, "vocab": {"<0x0A>": 0}}}', "{"])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match=r"tokenizer\.json is damaged"):
        complete_sentencepiece(tmp_path)


def test_a_tokenizer_of_bytes_needs_no_sentencepiece(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": {}, "merges": []}}')
    complete_sentencepiece(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=3), st.text("abc", min_size=1, max_size=3)), max_size=20))
def test_earlier_merges_score_higher(merges: list[tuple[str, str]]) -> None:
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(left + right for left, right in merges))}
    scores = piece_scores(vocab, [list(pair) for pair in merges])
    order = list(dict.fromkeys(left + right for left, right in merges))
    assert [scores[piece] for piece in order] == sorted((scores[piece] for piece in order), reverse=True)
    assert len(set(scores.values())) == len(vocab)


@given(st.integers(1, 256), st.floats(0.5, 512))
def test_scale(rank: int, alpha: float) -> None:
    folder = Path()
    assert Adapter(folder, "LORA", rank, alpha).scale == alpha / rank
    assert Adapter(folder, "LORA", rank, alpha, rslora=True).scale == alpha / math.sqrt(rank)


def write_config(folder: Path, config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    return folder


@pytest.mark.parametrize("kind", ["ADAPTION_PROMPT", "PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"])
def test_what_cannot_be_merged_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ModelError, match="cannot be merged") as caught:
        open_adapter(write_config(tmp_path / "a", {"peft_type": kind}))
    assert "unmerged" in caught.value.way_out


@pytest.mark.parametrize(
    "config", ["", "{", "[]", {}, {"peft_type": "LORA", "r": "x", "lora_alpha": 1}, {"peft_type": "LORA", "r": 4}]
)
def test_a_damaged_adapter_is_named(tmp_path: Path, config: object) -> None:
    with pytest.raises(ModelError, match=r"adapter_config\.json cannot be read"):
        open_adapter(write_config(tmp_path / "a", config))


def test_an_adapter_without_weights(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "a", {"peft_type": "LORA", "r": 4, "lora_alpha": 8})
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="no adapter_model"):
        open_adapter(folder)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        open_adapter(tmp_path)
    with pytest.raises(ModelError, match=r"neither config\.json nor a GGUF"):
        open_base(str(tmp_path))


def test_a_candidate_and_its_bits(tmp_path: Path) -> None:
    write_config(tmp_path / "model", {"peft_type": "LORA", "r": 4, "lora_alpha": 8})
    (tmp_path / "manifest.json").write_text('{"recipe": {"quantization": {"bits": 4}}}')
    assert open_adapter(tmp_path) == Adapter(tmp_path / "model", "LORA", 4, 8.0, bits=4)
    assert open_adapter(tmp_path, bits=8).bits == 8
    (tmp_path / "manifest.json").write_text('{"recipe": {"quantization": null}}')
    assert open_adapter(tmp_path).bits is None


def test_an_adapter_of_another_base(tiny_base: Path, lora: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig.from_pretrained(base)
    config.hidden_size = 32
    MistralForCausalLM(config).save_pretrained(base)
    with pytest.raises(ModelError, match="does not fit the base"):
        merge(open_base(str(base)), open_adapter(lora), tmp_path / "merged", "original")


def test_nothing_to_dequantize(tiny_base: Path, lora: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing to dequantize"):
        merge(open_base(str(tiny_base)), open_adapter(lora), tmp_path / "merged", "dequantized")
    assert not (tmp_path / "merged").exists()


def test_a_whole_model_needs_no_adapter(tiny_base: Path, tmp_path: Path) -> None:
    adapter = open_adapter(tiny_base)
    assert adapter.kind == FULL
    merge(open_base(str(tiny_base)), adapter, tmp_path / "merged", "original")
    assert (tmp_path / "merged" / "tokenizer.model").is_file()
    assert load_tokenizer(open_base(str(tiny_base)), adapter.folder).chat_template
