"""The ``[explanation]`` table of ``site.toml``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ExplanationSettings(BaseModel):
    """How much explaining this site's service does beside predicting.

    Explanations are made one at a time, those that take long (all but Grad-CAM) beside the others.
    Of either kind ``queue`` may wait, one more is told to try again; ``queue_seconds`` is for how
    long; ``seconds`` how long one may take. ``similar_cases`` is
    how many of the newest confirmed cases are compared with an image; 0 compares none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue: Annotated[int, Field(ge=1, le=100)] = 4
    queue_seconds: Annotated[float, Field(gt=0)] = 20.0
    seconds: Annotated[float, Field(gt=0)] = 60.0
    similar_cases: Annotated[int, Field(ge=0, le=20_000)] = 4000
