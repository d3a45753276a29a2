"""What is wrong with a recipe is said by name, whatever somebody writes; paths start where they were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.recipe import AnyRecipe, Recipe
from finetune.recipe_files import keys, read_recipe, shipped
from finetune.recipe_reader import ReaderRecipe
from retriever.errors import BelegError, SettingsError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def write(tmp_path: Path, text: str, name: str = "r.yaml") -> str:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return str(file)


def plain(tmp_path: Path, more: str = "", data: str = "{train: [a.jsonl]}") -> str:
    return write(tmp_path, f"task: retriever\ndata: {data}\n{more}\n")


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_is_valid(name: str) -> None:
    recipe = read_recipe(name, ["data.train=rows.jsonl"])
    assert name.startswith(recipe.task)
    assert shipped()[name]


def test_a_folder_of_that_name_does_not_hide_a_shipped_recipe() -> None:
    Path("retriever").mkdir()
    assert read_recipe("retriever", ["data.train=a.jsonl"]).task == "retriever"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("bse_model: x", "bse_model is no key. Did you mean base_model?"),
        ("trainer: {epoch: 3}", "trainer.epoch is no key. Did you mean trainer.epochs?"),
        ("epochs: 3", "epochs is no key. Did you mean trainer.epochs?"),
        ("negatives: {zzz: 3}", "negatives.zzz is no key."),
        ("trainer: 3", "trainer: "),
        ("trainer: [1]", "trainer: "),
        ("trainer: {epochs: many}", "trainer.epochs: "),
        ("trainer: {epochs: .inf}", "trainer.epochs: "),
        ("trainer: {epochs: .nan}", "trainer.epochs: "),
        ("trainer: {learning_rate: -1}", "trainer.learning_rate: "),
        ("trainer: {early_stopping: false}", "trainer.early_stopping: "),
        ("trainer: {eval_steps: 2.5}", "trainer.eval_steps must"),
        ("trainer: {warmup_steps: 1.5}", "trainer.warmup_steps must"),
        ("negatives: {mine: [bm25]}", "negatives.mine.0: "),
        ("negatives: {mine: dense}", "negatives.mine: "),
        ("loss: {type: triplets}", "loss.type: "),
        ("loss: {type: triplet}\nnegatives: {easy: 0, hard: 0}", "triplets need negatives"),
        ("chunk_tokens: 4", "chunk_tokens: "),
        ("chunk_tokens: 30", "chunk_overlap must be less"),
        ("encoder: x", "encoder is for rerankers"),
        ("1: 2", "Keys should be strings"),
        ("on: 2", "Keys should be strings"),
        ("trainer: {epochs: 1}\ntrainer: {seed: 2}", "the key trainer is given twice"),
        ("trainer: {epochs: 1, seed: 3, epochs: 2}", "the key epochs is given twice"),
        ("trainer: {", "not valid YAML"),
        ("\x07", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_by_name(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_recipe(plain(tmp_path, more))
    assert said in caught.value.message
    assert "r.yaml" in caught.value.message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{train: [a], split: {sed: 1}}", "data.split.sed is no key. Did you mean data.split.seed?"),
        ("{train: [a], split: {shares: [1, 2]}}", "data.split.shares"),
        ("{train: [a], split: {shares: [.5, .1, .1]}}", "data.split.shares must be"),
        ("{train: [a], split: {shares: [1.5, -.5, 0]}}", "data.split.shares must be"),
        ("{train: [a], split: some}", "data.split: "),
        ("{train: a}", "data.train: "),
        ("{train: [3]}", "data.train.0: "),
        ("{}", "there is no data"),
        ("{train: [a], split: none}", "without development rows there is no early stopping"),
        ("{train: [a], split: {shares: [.8, 0, .2]}}", "without development rows there is no early stopping"),
        ("{train: [a], limit: 0}", "data.limit: "),
    ],
)
def test_what_is_wrong_with_data(tmp_path: Path, data: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_recipe(plain(tmp_path, data=data))
    assert said in caught.value.message
    assert "Split" not in caught.value.message.replace("instance of Split", "")


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read_recipe(plain(tmp_path, "bse_model: x\ntrainer: {epoch: 3, seed: x}"))
    assert len(caught.value.message.splitlines()) == 3


@pytest.mark.parametrize("text", ["", "3", "- a", "just words", "null"])
def test_no_mapping(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="holds no keys"):
        read_recipe(write(tmp_path, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("task: retriever # ä".encode("latin-1"))
    for name, said in [("latin.yaml", "not UTF-8"), ("missing.yaml", "cannot be read"), (".", "no recipe")]:
        with pytest.raises(BelegError, match=said):
            read_recipe(str(tmp_path / name))
    with pytest.raises(BelegError, match="Did you mean retriever-gpu"):
        read_recipe("retriever-gpus")
    with pytest.raises(BelegError, match="Name a YAML file"):
        read_recipe("zzzzz")
    assert read_recipe(write(tmp_path, "\ufefftask: retriever\r\ndata: {train: [ä🧾.jsonl]}\r\n")).data.train


def test_a_reranker_has_rules_of_its_own(tmp_path: Path) -> None:
    for more, said in [("loss: {scale: 3}", "leave out loss"), ("negatives: {easy: 0, hard: 0}", "learns from negatives")]:
        with pytest.raises(SettingsError, match=said):
            read_recipe(write(tmp_path, f"task: reranker\ndata: {{train: [a]}}\n{more}\n"))


def test_no_development_rows_if_asked_for(tmp_path: Path) -> None:
    recipe = read_recipe(plain(tmp_path, "trainer: {early_stopping: null}", "{train: [a], split: none}"))
    assert recipe.data.split == "none"
    assert read_recipe(plain(tmp_path, data="{train: [a], dev: [b], split: none}")).trainer.early_stopping == 3


def test_single_keys(tmp_path: Path) -> None:
    sets = ["trainer.epochs=3", "negatives.mine=[dense]", "preprocessing.global_max_sequence_length=64", "data.split=none",
            "trainer.early_stopping=null", "trainer.learning_rate=2e-5", "base_model=a=b"]  # fmt: skip
    recipe = read_recipe(plain(tmp_path, "trainer: {epochs: 1, seed: 5}"), sets)
    assert (recipe.trainer.epochs, recipe.trainer.seed, recipe.negatives.mine) == (3, 5, ("dense",))
    assert (recipe.trainer.learning_rate, recipe.base_model) == (2e-5, "a=b")
    assert recipe.preprocessing.global_max_sequence_length == 64


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.epochs", "is not KEY=VALUE"),
        ("=3", "is not KEY=VALUE"),
        ("trainer.epochs=[", "not valid YAML"),
        ("trainer.epochs=", "trainer.epochs: "),
        ("trainer.epohcs=3", "Did you mean trainer.epochs?"),
        ("a..b=3", "no key"),
        ("task.name=x", 'task is "retriever", which has no keys'),
        ("data.split.seed=3", 'data.split is "none", which has no keys'),
        ("data.train=", "data.train.0: "),
        ("trainer=3", "trainer: "),
        ("trainer={epochs: 1, epochs: 2}", "not valid YAML"),
    ],
)
def test_single_keys_that_are_none(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_recipe(plain(tmp_path, "trainer: {early_stopping: null}", "{train: [a], split: none}"), [override])
    assert said in caught.value.message


def test_paths_start_where_they_were_written(tmp_path: Path) -> None:
    for place in ("here/both.jsonl", "recipes/both.jsonl", "here/typed.jsonl", "recipes/docs/a.md", "recipes/ours.jsonl"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "recipes")
    data = "{train: [both.jsonl, org/rows], dev: [ours.jsonl], documents: [docs]}"
    for folder in ("recipes", "link"):
        file = write(tmp_path, f"task: retriever\ndata: {data}", f"{folder}/r.yaml")
        found = read_recipe(file).data
        assert found.train == (str(tmp_path / folder / "both.jsonl"), "org/rows")
        assert found.documents == (str(tmp_path / folder / "docs"),)
        for override in ("data.train=[both.jsonl, typed.jsonl]", "data={train: [both.jsonl, typed.jsonl]}"):
            assert read_recipe(file, [override]).data.train == ("both.jsonl", "typed.jsonl")
        assert read_recipe(file, ["data.train=ours.jsonl"]).data.train == ("ours.jsonl",)
        assert read_recipe(file, ["data.train=both.jsonl"]).data.dev == (str(tmp_path / folder / "ours.jsonl"),)


def test_a_file_that_happens_to_lie_here_is_not_the_recipes(tmp_path: Path) -> None:
    (tmp_path / "here" / "a.jsonl").write_text("")
    assert read_recipe(plain(tmp_path)).data.train == (str(tmp_path / "a.jsonl"),)


def test_defaults_give_way(tmp_path: Path) -> None:
    file = plain(tmp_path, "chunk_tokens: 50")
    recipe = read_recipe(file, ["chunk_overlap=7"], defaults={"chunk_tokens": 99, "chunk_overlap": 9})
    assert (recipe.chunk_tokens, recipe.chunk_overlap) == (50, 7)
    assert read_recipe(plain(tmp_path), defaults={"chunk_tokens": 99}).chunk_tokens == 99


def test_the_digest_tells_recipes_apart(tmp_path: Path) -> None:
    one = read_recipe(plain(tmp_path))
    assert one.digest() == read_recipe(plain(tmp_path)).digest()
    assert one.digest() != read_recipe(plain(tmp_path), ["trainer.seed=1"]).digest()


@pytest.mark.parametrize("kind", [Recipe, ReaderRecipe])
def test_every_key_says_what_it_does(kind: type[AnyRecipe]) -> None:
    assert all(text for _, _, text in keys(kind))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("adaptor: {r: 3}", "adaptor is no key. Did you mean adapter?"),
        ("adapter: {rank: 3}", "adapter.rank is no key."),
        ("adapter: {type: lore}", "adapter.type: "),
        ("loss: {weights: {copy: 0.1}}", "loss.weights.copy is no key. Did you mean loss.weights.copied?"),
        ("copied: 0.1", "copied is no key. Did you mean loss.weights.copied?"),
        ("negatives: {hard: 1}", "negatives is no key."),
        ("trainer: {eval_passages: 3}", "trainer.eval_passages is no key."),
        ("quantization: {bits: 3}", "quantization.bits: "),
        ("quantization: {bits: 4}\nadapter: {type: none}", "a quantized model cannot be trained as a whole"),
        ("quantization: {bits: 8}\nadapter: {type: adaption_prompt}", "not trained over quantized layers"),
        ("passages: {count: []}", "passages.count"),
        ("passages: {count: [0]}", "passages.count"),
        ("passages: {golden: 1.5}", "passages.golden: "),
        ("loss: {weights: {reasoning: 0, choice: 0, copied: 0, marks: 0, answer: 0}}", "nothing to learn"),
        ("trainer: {epochs: 0}", "trainer.epochs: "),
        ("preprocessing: {too_long: cut}", "preprocessing.too_long: "),
        ("export: {quantizations: []}", "export.quantizations: "),
    ],
)
def test_what_is_wrong_with_a_readers_recipe(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_recipe(write(tmp_path, f"task: reader\ndata: {{train: [a.jsonl]}}\n{more}\n"))
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{train: [a], split: none}", "set trainer.early_stopping to null"),
        ("{train: [a], split: {shares: [0.9, 0, 0.1]}}", "set trainer.early_stopping to null"),
        ("{train: [a], format: paragraphs}", "set loss.scope to full"),
        ("{train: [a], format: chat}", "data.format: "),
        ("{}", "there is no data"),
    ],
)
def test_what_is_wrong_with_a_readers_data(tmp_path: Path, data: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_recipe(write(tmp_path, f"task: reader\ndata: {data}\n"))
    assert said in caught.value.message


def test_passages_are_drawn_from_raft_rows_only(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="leave out passages"):
        read_recipe("reader-instructions-smollm2", ["data.train=a.jsonl", "passages.golden=0.5"])


def test_a_reader_knows_no_chunks(tmp_path: Path) -> None:
    recipe = read_recipe("reader-raft-smollm2", ["data.train=a.jsonl"], defaults={"chunk_tokens": 99})
    assert isinstance(recipe, ReaderRecipe)
