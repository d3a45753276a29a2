"""The parity gate: is the GGUF that will be served the model that was trained?

`gate.py` is the story. Links from the trained adapter to the served file are tested one by one: `tokens.py` (ids, chat
template, end tokens), `logits.py` (merged against adapter, f16 against merged, each quantization against f16), `served.py`
(answers of the very engine that serves). `diagnosis.py` says what a link that fails is likely to have failed by, `limits.py`
what passes.
"""
