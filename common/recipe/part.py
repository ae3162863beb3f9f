"""What every part of a recipe is: frozen, and strict about its fields' names."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Part(BaseModel):
    """A table of a recipe; a field that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
