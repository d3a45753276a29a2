"""llama.cpp through its C API: weights, vocabulary, KV cache, one batch at a time.

Tokens in, logits out. It knows nothing about grammars, prompts or when to stop. The C API is used instead of
llama-cpp-python's `Llama`: that class keeps a second copy of the logits, guesses chat formats, and hides which tokens
lie in the KV cache, which is what reuse needs to know.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reader.engine.adapters import check_adapter
from reader.engine.decoding import Logits
from reader.errors import EngineError
from retriever.errors import ModelError

__all__ = ["Native", "library"]


@functools.cache
def library() -> tuple[Any, deque[str], object]:
    """Load llama.cpp once, and hear its complaints instead of letting them onto stderr."""
    try:
        with _waiting_asleep():
            import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelError(
            f"llama-cpp-python cannot be loaded: {error}.",
            way_out="Run `make install`, or configure a remote engine.",
        ) from error
    heard: deque[str] = deque(maxlen=8)

    def on_log(level: int, text: bytes, _: object) -> None:
        if level == 4:  # GGML_LOG_LEVEL_ERROR
            heard.append(text.decode("utf-8", "replace").strip())

    callback = llama_cpp.llama_log_callback(on_log)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    # The C side keeps a bare pointer to the callback, so the cache must keep it alive.
    return llama_cpp, heard, callback


class Native:
    """One loaded GGUF with one context.

    Args:
        path: the GGUF file.
        context_size: tokens that the KV cache holds; 0 takes what the model was trained with.
        threads: CPU threads; None takes as many as this process may run on.
        adapter: GGUF of a LoRA to put over it, as it was trained.

    Attributes:
        vocab: llama.cpp's vocabulary handle, for llguidance.
        ends: every token that ends a generation (EOS, EOT and their like).
        block: tokens that one batch holds.

    Raises:
        ModelError: a file is missing, damaged, of an unknown architecture, or too large for the memory; or the adapter is of
            another base.
    """

    def __init__(self, path: Path, *, context_size: int, threads: int | None, adapter: Path | None = None) -> None:
        self._model: Any = None
        self._adapter: Any = None
        self._context: Any = None
        self._batch: Any = None
        self._memory: Any = None
        if not path.is_file():
            raise ModelError(f"There is no model file at {path}.", way_out="Check the reader's path, or fetch the model.")
        if adapter:
            check_adapter(adapter, path)
        self._api, heard, _ = library()
        api = self._api
        heard.clear()
        self._model = api.llama_model_load_from_file(os.fsencode(path), api.llama_model_default_params())
        if not self._model:
            raise ModelError(
                f"{path} cannot be loaded as a GGUF model{_because(heard)}.",
                way_out="Fetch or export the file again; a newer architecture needs a newer llama-cpp-python.",
            )
        if adapter:
            # Before the context, which makes room for what it computes.
            self._adapter = api.llama_adapter_lora_init(self._model, os.fsencode(adapter))
            if not self._adapter:
                self.free()
                raise ModelError(
                    f"{adapter} cannot be put over {path}{_because(heard)}.",
                    way_out="Name the base that it was exported for in `reader`, or export it again.",
                )
        self.vocab: Any = api.llama_model_get_vocab(self._model)
        self.vocab_size: int = api.llama_vocab_n_tokens(self.vocab)
        self.ends = frozenset(i for i in range(self.vocab_size) if api.llama_vocab_is_eog(self.vocab, i))
        self.context_size: int = context_size or api.llama_model_n_ctx_train(self._model)
        # Small batches let a long prompt be cancelled between them and cost a CPU nothing; a GPU wants larger ones.
        self.block = min(512 if api.llama_supports_gpu_offload() else 128, self.context_size)
        self._open_context(threads or _processors(), heard)

    def _open_context(self, threads: int, heard: deque[str]) -> None:
        api = self._api
        parameters = api.llama_context_default_params()
        parameters.n_ctx = self.context_size
        parameters.n_batch = parameters.n_ubatch = self.block
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.n_seq_max = 1
        # A cache of the whole context, also for sliding-window models: a cut prefix can then be taken up again.
        parameters.swa_full = True
        if not api.llama_supports_gpu_offload():
            # On a CPU plain attention generates faster: 1.2 times at 800 tokens of context, 1.6 times at 3000.
            parameters.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.no_perf = True
        self._context = api.llama_init_from_model(self._model, parameters)
        if not self._context:
            self.free()
            raise ModelError(
                f"There is no room for a context of {self.context_size} tokens{_because(heard)}.",
                way_out="Lower the reader's context size.",
            )
        if self._adapter:
            adapters = (api.llama_adapter_lora_p_ctypes * 1)(self._adapter)
            api.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0))
        self._memory = api.llama_get_memory(self._context)
        self._batch = api.llama_batch_init(self.block, 0, 1)
        self._ids: npt.NDArray[np.int32] = np.ctypeslib.as_array(self._batch.token, shape=(self.block,))
        self._positions: npt.NDArray[np.int32] = np.ctypeslib.as_array(self._batch.pos, shape=(self.block,))
        self._wanted: npt.NDArray[np.int8] = np.ctypeslib.as_array(self._batch.logits, shape=(self.block,))
        for i in range(self.block):
            self._batch.n_seq_id[i] = 1
            self._batch.seq_id[i][0] = 0

    @property
    def chat_template(self) -> str:
        """The Jinja source in the GGUF, or ""."""
        source = self._api.llama_model_chat_template(self._model, None)
        return source.decode("utf-8", "replace") if source else ""

    @property
    def bos(self) -> str:
        """The text of the token that begins a sequence, or ""."""
        return self._text(self._api.llama_vocab_bos(self.vocab))

    @property
    def eos(self) -> str:
        """The text of the token that ends a sequence, or ""."""
        return self._text(self._api.llama_vocab_eos(self.vocab))

    def _text(self, token: int) -> str:
        if token < 0:
            return ""
        text: bytes = self._api.llama_vocab_get_text(self.vocab, token)
        return text.decode("utf-8", "replace")

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of `text`, with special tokens recognised and none added."""
        # A lone surrogate, as some PDFs yield, has no UTF-8 form, and llama.cpp ends the process on broken UTF-8.
        data = text.encode("utf-8", "replace")
        ids = (self._api.llama_token * (len(data) + 8))()
        count = self._api.llama_tokenize(self.vocab, data, len(data), ids, len(ids), False, True)
        if count < 0:
            raise EngineError(f"The model's vocabulary cannot express a text of {len(data)} bytes.")
        return list(ids[:count])

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token stands for; none for control tokens."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            written: int = self._api.llama_token_to_piece(self.vocab, token, buffer, size, 0, False)
            if written >= 0:
                return buffer.raw[:written]
            size = -written

    def keep(self, count: int) -> int:
        """Drop all but the first `count` tokens from the KV cache.

        Returns:
            How many are left: `count`, or 0 where the architecture (a recurrent one, say) cannot be cut.
        """
        if count and self._api.llama_memory_seq_rm(self._memory, 0, count, -1):
            return count
        self._api.llama_memory_clear(self._memory, False)
        return 0

    def decode(self, tokens: list[int], position: int, *, logits: bool) -> Logits | None:
        """Evaluate at most `block` tokens that stand at `position`.

        Returns:
            The logits after the last one, shape (vocab,), valid until the next call; None if they are not wanted.
        """
        count = len(tokens)
        self._ids[:count] = tokens
        self._positions[:count] = np.arange(position, position + count)
        self._wanted[:count] = 0
        self._wanted[count - 1] = logits
        self._batch.n_tokens = count
        status = self._api.llama_decode(self._context, self._batch)
        if status != 0:
            heard = library()[1]
            raise EngineError(f"llama.cpp failed to evaluate {count} tokens at {position} (status {status}){_because(heard)}.")
        if not logits:
            return None
        pointer = self._api.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.vocab_size,))

    def free(self) -> None:
        """Give all memory back; afterwards nothing else may be called."""
        if self._batch is not None:
            self._api.llama_batch_free(self._batch)
        if self._context:
            self._api.llama_free(self._context)
        if self._adapter:
            self._api.llama_adapter_lora_free(self._adapter)
        if self._model:
            self._api.llama_model_free(self._model)
        self._model = self._adapter = self._context = self._batch = None


@contextlib.contextmanager
def _waiting_asleep() -> Iterator[None]:
    """Have OpenMP threads sleep while they wait for each other, unless the operator said otherwise.

    They spin by default, hundreds of times a token. As soon as anything else wants the processors (a training, a second
    server) each of these waits lasts until the scheduler comes round: 14 prompt tokens a second were measured where
    sleeping threads do 225. OpenMP reads this once, when it is loaded with llama.cpp; training processes keep theirs.
    """
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        yield
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        yield
    finally:
        del os.environ["OMP_WAIT_POLICY"]


def _because(heard: deque[str]) -> str:
    return f": {' '.join(heard)}".rstrip(".") if heard else ""


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
