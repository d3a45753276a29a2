"""The gate: a healthy export passes, and each way in which one goes wrong is caught and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.gguf import convert, convert_adapter
from finetune.merge import keep_tokenizer, merge, open_adapter
from finetune.parity.cases import CASES, Case
from finetune.parity.gate import Gate
from finetune.parity.limits import Effort
from finetune.parity.result import Cause, Parity
from reader.engine.base import Prompt
from reader.engine.llamacpp import LlamaCpp
from reader.engine.weights import adapt, load_base, open_base

EFFORT = Effort(rendered=24, short=2, full=1, tail=24, answers=2, answer_tokens=16)


def open_engine(path: Path, context: int) -> LlamaCpp:
    return LlamaCpp(path, model=path.name, fingerprint="", context_size=context, threads=1)


def open_gate(base: Path, adapter: Path, **options: Any) -> Gate:
    chosen = {"effort": EFFORT, "threads": 1, "open_engine": open_engine, **options}
    return Gate(open_base(str(base)), open_adapter(adapter), **chosen)


def failed(parity: Parity) -> set[str]:
    return {link.name for link in parity.links if not link.passed}


def edited(source: Path, folder: Path, key: str, change: Callable[[Any], None]) -> Path:
    """Copy a GGUF and change a field in place."""
    from gguf import GGUFReader

    path = folder / "edited.gguf"
    shutil.copyfile(source, path)
    field = GGUFReader(str(path), "r+").get_field(key)
    assert field is not None
    for part in field.data:
        change(field.parts[part])
    return path


def test_prompts_are_those_that_the_reader_was_trained_with(tiny_base: Path, lora: Path) -> None:
    learnt = Case(CASES[0].question, CASES[0].hits, "<ANSWER>: Mrs Amadi")
    with_shots, without = (open_gate(tiny_base, lora, cases=(learnt, *CASES), shots=shots) for shots in (True, False))
    first = without.reference.tokenizer.decode(without.probes[0].tokens)
    assert first.endswith("<ANSWER>: Mrs Amadi")
    assert "canteen" not in first.lower()
    assert len(with_shots.probes[0].tokens) > len(without.probes[0].tokens) + 300
    # The rest of the short ones, and those that fill the context, are answered by their last passage.
    assert len(without.probes) == EFFORT.short + EFFORT.full
    assert all("##begin_quote##" in without.reference.tokenizer.decode(probe.tokens[-64:]) for probe in without.probes[1:])


def test_a_healthy_export_passes(tiny_base: Path, lora: Path, merged: Path, f16: Path, q8: Path) -> None:
    phases: list[str] = []
    gate = open_gate(tiny_base, lora, on_phase=lambda name, _steps: phases.append(name))
    parity = gate.judge(merged, f16, {"f16": f16, "q8_0": q8}, way="original")
    assert parity.passed, [(link.name, link.findings, dict(link.measured)) for link in parity.links if not link.passed]
    names = [link.name for link in parity.links]
    assert names == ["tokens", "merged", "f16", "q8_0", "served-f16", "served-q8_0"]
    by_name = {link.name: link.measured for link in parity.links}
    assert by_name["tokens"]["prompts"] == EFFORT.rendered
    assert by_name["merged"]["mean_kl"] < 1e-8
    assert by_name["f16"]["mean_kl"] < 1e-4
    assert by_name["f16"]["full_kl"] is not None
    assert by_name["q8_0"]["mean_kl"] > by_name["f16"]["mean_kl"]
    assert by_name["served-f16"]["depends"] == 1.0
    assert max(len(probe.tokens) for probe in gate.probes) > 3900
    assert phases == ["tokens", "trained", "merged", "answers", "f16", "q8_0", "served", "served"]
    json.dumps(parity.as_json())


def test_lost_sentencepiece_model(tiny_base: Path, lora: Path, merged: Path, tmp_path: Path) -> None:
    broken = tmp_path / "merged"
    shutil.copytree(merged, broken)
    (broken / "tokenizer.model").unlink()
    file = convert(broken, tmp_path / "f16.gguf")
    parity = open_gate(tiny_base, lora).judge(merged, file, {}, way="original")
    assert "tokens" in failed(parity)
    assert parity.causes[0] == Cause.SENTENCEPIECE
    assert any("scores" in finding.why for link in parity.links for finding in link.findings)


def test_merge_into_4_bit_layers(tiny_base: Path, make_lora: Callable[..., Path], f16: Path, tmp_path: Path) -> None:
    adapter = make_lora(tmp_path / "adapter", tiny_base, size=0.01, bits=4)
    base, opened = open_base(str(tiny_base)), open_adapter(adapter)
    assert opened.bits == 4
    broken = tmp_path / "merged"
    with pytest.warns(UserWarning, match="rounding errors"):
        model = adapt(load_base(base, bits=4, floating=False), opened.folder).merge_and_unload()
    model = model.dequantize()
    model.hf_quantizer = None
    model.save_pretrained(broken)
    keep_tokenizer(base, opened, broken)
    parity = open_gate(tiny_base, adapter).judge(broken, f16, {}, way="dequantized")
    assert "merged" in failed(parity)
    assert Cause.MERGED_INTO_QUANTIZED in parity.causes


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_base_is_best_merged_with_when_it_is_dequantized(
    tiny_base: Path, make_lora: Callable[..., Path], tmp_path: Path, bits: int
) -> None:
    adapter = make_lora(tmp_path / "adapter", tiny_base, size=0.01, bits=bits)
    folders = {"original": tmp_path / "original", "dequantized": tmp_path / "dequantized"}
    gate = open_gate(tiny_base, adapter)
    found = {}
    for way, folder in folders.items():
        merge(gate.base, gate.adapter, folder, way)  # type: ignore[arg-type]
        found[way] = gate.measure_merge(folder).mean_kl
    # Over 8 bits activations are rounded as well while training, which no merged model does.
    assert found["dequantized"] < (1e-4 if bits == 4 else gate.limits.merged.mean_kl)
    assert bits == 8 or found["original"] > 1e-4


def test_wrong_chat_template(tiny_base: Path, lora: Path, merged: Path, tmp_path: Path) -> None:
    broken = tmp_path / "merged"
    shutil.copytree(merged, broken)
    (broken / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}", encoding="utf-8"
    )
    file = convert(broken, tmp_path / "f16.gguf")
    parity = open_gate(tiny_base, lora).judge(merged, file, {}, way="original")
    assert failed(parity) == {"tokens"}
    assert parity.causes == (Cause.TEMPLATE,)


def test_a_template_that_differs_by_one_space_is_caught(tiny_base: Path, lora: Path, merged: Path, f16: Path) -> None:
    def spaced(path: Path, context: int) -> LlamaCpp:
        engine = open_engine(path, context)
        engine.chat_template = engine.chat_template.replace("[INST] ", "[INST]")
        return engine

    parity = open_gate(tiny_base, lora, open_engine=spaced).judge(merged, f16, {}, way="original")
    assert parity.causes == (Cause.TEMPLATE,)


class Cutting(LlamaCpp):
    """Keeps the beginning of a prompt, as a context that is too small does."""

    def generate(self, prompt: Prompt, **options: Any) -> Iterator[str]:
        return super().generate(Prompt(prompt.tokens[:500], prompt.messages), **options)


def test_a_server_that_cuts_prompts(tiny_base: Path, lora: Path, merged: Path, f16: Path) -> None:
    def cutting(path: Path, context: int) -> LlamaCpp:
        return Cutting(path, model="m", fingerprint="", context_size=context, threads=1)

    parity = open_gate(tiny_base, lora, open_engine=cutting).judge(merged, f16, {"f16": f16}, way="original")
    assert failed(parity) == {"served-f16"}
    assert parity.causes == (Cause.TRUNCATED,)


def test_a_server_with_a_small_context(tiny_base: Path, lora: Path, merged: Path, f16: Path) -> None:
    def small(path: Path, _context: int) -> LlamaCpp:
        return open_engine(path, 512)

    parity = open_gate(tiny_base, lora, open_engine=small).judge(merged, f16, {"f16": f16}, way="original")
    assert "served-f16" in failed(parity)
    assert Cause.TRUNCATED in parity.causes


def test_a_file_that_claims_a_small_context(tiny_base: Path, lora: Path, merged: Path, f16: Path, tmp_path: Path) -> None:
    def shrink(part: Any) -> None:
        part[0] = 512

    file = edited(f16, tmp_path, "llama.context_length", shrink)
    parity = open_gate(tiny_base, lora).judge(merged, file, {}, way="original")
    assert failed(parity) == {"f16"}
    assert parity.causes == (Cause.TRUNCATED,)


class Plain(LlamaCpp):
    """Takes special tokens for text, as llama-cpp-python does by default."""

    def tokenize(self, text: str) -> list[int]:
        native, data = self._native, text.encode()
        ids = (native._api.llama_token * (len(data) + 8))()
        return list(ids[: native._api.llama_tokenize(native.vocab, data, len(data), ids, len(ids), False, False)])


def test_unparsed_special_tokens(tiny_base: Path, lora: Path, merged: Path, f16: Path) -> None:
    def plain(path: Path, context: int) -> LlamaCpp:
        return Plain(path, model="m", fingerprint="", context_size=context, threads=1)

    parity = open_gate(tiny_base, lora, open_engine=plain).judge(merged, f16, {}, way="original")
    assert failed(parity) == {"tokens"}
    assert parity.causes == (Cause.SPECIAL,)


def test_special_tokens_that_the_file_calls_normal(
    tiny_base: Path, lora: Path, merged: Path, f16: Path, tmp_path: Path
) -> None:
    def normal(part: Any) -> None:
        if part[0] == 3:  # control
            part[0] = 1

    file = edited(f16, tmp_path, "tokenizer.ggml.token_type", normal)
    parity = open_gate(tiny_base, lora).judge(merged, file, {}, way="original")
    assert Cause.SPECIAL in parity.causes


def test_wrong_end_token(tiny_base: Path, lora: Path, merged: Path, f16: Path, tmp_path: Path) -> None:
    def other(part: Any) -> None:
        part[0] = 77

    file = edited(f16, tmp_path, "tokenizer.ggml.eos_token_id", other)
    parity = open_gate(tiny_base, lora).judge(merged, file, {}, way="original")
    assert failed(parity) == {"tokens"}
    assert parity.causes == (Cause.END,)


def test_an_end_token_that_only_training_knew(tiny_base: Path, lora: Path, merged: Path, f16: Path, tmp_path: Path) -> None:
    other = tmp_path / "merged"
    shutil.copytree(merged, other)
    (other / "generation_config.json").write_text('{"eos_token_id": [2, 77]}')
    parity = open_gate(tiny_base, lora).judge(other, f16, {}, way="original")
    assert failed(parity) == {"tokens"}
    assert parity.causes == (Cause.END,)
    assert "(77)" in parity.links[0].findings[0].why


def unscaled(lora: Path, folder: Path) -> Path:
    """Copy an rsLoRA as a tool sees it that does not know rsLoRA."""
    shutil.copytree(lora, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_rslora": False}))
    return folder


def test_adapter_merged_at_a_wrong_scale(tiny_base: Path, lora: Path, f16: Path, tmp_path: Path) -> None:
    broken = tmp_path / "merged"
    merge(open_base(str(tiny_base)), open_adapter(unscaled(lora, tmp_path / "adapter")), broken, "original")
    parity = open_gate(tiny_base, lora).judge(broken, f16, {}, way="original")
    link = next(link for link in parity.links if link.name == "merged")
    assert not link.passed
    assert [finding.cause for finding in link.findings] == [Cause.SCALE]
    assert "0.25 times" in link.findings[0].why  # 32 / 16 instead of 32 / √16


def test_adapter_file_at_a_wrong_scale(tiny_base: Path, lora: Path, tmp_path: Path) -> None:
    base_file = convert(tiny_base, tmp_path / "base.gguf")
    good = convert_adapter(open_adapter(lora), tiny_base, tmp_path / "good.gguf")
    bad = convert_adapter(open_adapter(unscaled(lora, tmp_path / "adapter")), tiny_base, tmp_path / "bad.gguf")
    gate = open_gate(tiny_base, lora)
    healthy = gate.judge_adapter(base_file, good, rounded=False)
    assert healthy.passed, healthy.as_json()
    parity = gate.judge_adapter(base_file, bad, rounded=False)
    assert failed(parity) == {"adapter"}
    assert parity.causes == (Cause.SCALE,)


def test_weights_that_are_not_numbers_do_not_pass(tiny_base: Path, lora: Path, merged: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "merged"
    shutil.copytree(merged, broken)
    weights = load_file(broken / "model.safetensors")
    weights["lm_head.weight"][:] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    file = convert(broken, tmp_path / "f16.gguf")
    parity = open_gate(tiny_base, lora).judge(merged, file, {}, way="original")
    assert "f16" in failed(parity)
