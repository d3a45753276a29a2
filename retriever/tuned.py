"""What tuning found out about a model beside its weights: `beleg.json` in the model's folder. Knows no model.

Nothing in it changes what the model computes, so it is no part of the model's fingerprint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retriever.errors import ModelError

__all__ = ["TUNED_FILE", "Tuned", "read_tuned"]

TUNED_FILE = "beleg.json"

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Tuned(BaseModel):
    """Values that were tuned on development questions; whatever else the file holds is for people.

    Attributes:
        alpha: of an encoder: weight of the dense side when fusing; None where nothing was tuned.
        weight: of a reranker: its weight against the fused score.
        depth: of a reranker: how many of the best hits it judges.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    alpha: _Share | None = None
    weight: _Share = 1.0
    depth: Annotated[int, Field(ge=1, le=1000)] = 30


def read_tuned(folder: Path) -> Tuned:
    """Return what the folder's `beleg.json` says, or the defaults where there is none.

    Raises:
        ModelError: it cannot be read, or a value does not fit; the message names file and field.
    """
    file = folder / TUNED_FILE
    if not file.exists():
        return Tuned()
    way_out = "Correct the file; without it the defaults hold."
    try:
        return Tuned.model_validate_json(file.read_text(encoding="utf-8-sig"))
    except ValidationError as error:
        said = "; ".join(": ".join((*map(str, problem["loc"]), problem["msg"])) for problem in error.errors())
        raise ModelError(f"{file}: {said}.", way_out=way_out) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} cannot be read: {error}.", way_out=way_out) from error
