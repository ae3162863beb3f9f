"""The ``[review]`` table of ``site.toml``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FlagCode = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]


class ReviewSettings(BaseModel):
    """How a case becomes confirmed, which is: may be trained on.

    ``readers`` is how many different people must give a case the same label. ``blinded`` shows
    a reader neither the model's answer nor what others said of a case before they gave their own
    opinion. ``blocking`` are the flags (`client.review.flags`) with which no case is confirmed
    until a reader sets them aside; all others only warn. ``near_duplicate_bits`` is in how many of
    256 bits the perceptual hashes of two images may differ to be called near-duplicates, 0 for
    never. ``keep_answers_days`` is how long the model's answers are kept; those of stored cases
    are kept with their case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    readers: Literal[1, 2] = 1
    blinded: bool = False
    blocking: tuple[FlagCode, ...] = ()
    near_duplicate_bits: Annotated[int, Field(ge=0, le=128)] = 24
    keep_answers_days: Annotated[int, Field(ge=1, le=36_500)] = 365
