from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.gguf import KINDS, convert, convert_adapter, converter_folder, quantize, require_space
from finetune.merge import open_adapter
from finetune.parity.limits import Limits
from retriever.errors import BelegError, ModelError


def test_every_kind_has_its_bound() -> None:
    assert set(Limits().quantized) == set(KINDS)


def test_progress_is_told_and_nothing_is_left_beside(merged: Path, tmp_path: Path) -> None:
    told: list[int] = []
    file = convert(merged, tmp_path / "m.gguf", on_progress=told.append)
    assert told == sorted(set(told))
    assert told[-1] == 100
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
    assert file.read_bytes()[:4] == b"GGUF"


def test_a_failing_converter_is_quoted(merged: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(merged, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "architectures": ["NobodyKnowsMe"]}))
    with pytest.raises(ModelError, match="exit code 1") as caught:
        convert(broken, tmp_path / "m.gguf")
    assert "NobodyKnowsMe is not supported" in caught.value.message
    assert not list(tmp_path.glob("*.gguf"))
    assert not list(tmp_path.glob(".*"))


def test_a_converter_that_takes_too_long_is_ended(merged: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did not end within"):
        convert(merged, tmp_path / "m.gguf", timeout_s=0.01)
    assert not list(tmp_path.iterdir())


def test_a_missing_converter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(ModelError, match="make install-converter"):
        converter_folder()


@pytest.mark.parametrize("kind", ["q8_0", "q5_0", "q4_0"])
def test_quantizing(f16: Path, tmp_path: Path, kind: str) -> None:
    file = quantize(f16, tmp_path / "q.gguf", kind)
    assert file.stat().st_size < f16.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["q.gguf"]


def test_an_unknown_kind(f16: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="q4_x is no quantization") as caught:
        quantize(f16, tmp_path / "q.gguf", "q4_x")
    assert "q4_k_m" in caught.value.way_out


def test_what_cannot_be_quantized(tmp_path: Path) -> None:
    source = tmp_path / "no.gguf"
    source.write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot be quantized"):
        quantize(source, tmp_path / "q.gguf", "q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["no.gguf"]


def test_room_is_asked_for(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(BelegError, match="GiB free"):
        require_space(tmp_path, 1e18)


def test_an_rslora_gets_the_alpha_that_comes_out_right(lora: Path, tiny_base: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    file = convert_adapter(open_adapter(lora), tiny_base, tmp_path / "a.gguf")
    alpha = GGUFReader(str(file)).get_field("adapter.lora.alpha")
    assert alpha is not None
    assert alpha.contents() == 32 * 16**0.5  # llama.cpp divides it by 16


def test_ranks_and_alphas_of_single_layers(tiny_base: Path, make_lora: Callable[..., Path], tmp_path: Path) -> None:
    import numpy as np
    from gguf import GGUFReader
    from safetensors.numpy import load_file

    patterns = {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"layers.1.self_attn.q_proj": 64}}
    folder = make_lora(tmp_path / "adapter", tiny_base, **patterns)
    file = convert_adapter(open_adapter(folder), tiny_base, tmp_path / "a.gguf")
    reader = GGUFReader(str(file))
    alpha = reader.get_field("adapter.lora.alpha")
    assert alpha is not None
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    weights = load_file(folder / "adapter_model.safetensors")
    # The converter reorders the rows of B for rotary embeddings: its norm is the same.
    for layer, meant in ((0, 32 / 4), (1, 64 / 4)):
        written = tensors[f"blk.{layer}.attn_q.weight.lora_b"]
        scale = alpha.contents() / int(written.shape[0])
        original = weights[f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_B.weight"]
        found = np.linalg.norm(written.data.astype(np.float32))
        assert found * scale == pytest.approx(np.linalg.norm(original) * meant, rel=1e-3)


def test_what_an_adapter_file_cannot_hold(tiny_base: Path, make_lora: Callable[..., Path], tmp_path: Path) -> None:
    dora = open_adapter(make_lora(tmp_path / "dora", tiny_base, use_dora=True))
    whole = open_adapter(make_lora(tmp_path / "saved", tiny_base, modules_to_save=["lm_head"]))
    for adapter, what in ((dora, "DoRA"), (whole, "modules_to_save"), (open_adapter(tiny_base), "whole model")):
        with pytest.raises(ModelError, match=what):
            convert_adapter(adapter, tiny_base, tmp_path / "a.gguf")
    assert not list(tmp_path.glob("*.gguf"))
