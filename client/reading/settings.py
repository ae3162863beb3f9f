"""The ``[reading]`` table of ``site.toml``."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class ReadingSettings(BaseModel):
    """How this site reads a model's answers; ``docs/inference-service.md`` says what each means.

    ``calibrate`` fits a temperature on the site's holdout. ``wanted_sensitivity`` asks for a
    threshold of the site's own; without it the release's stays. ``coverage`` is how often a
    prediction set is to hold the right class, ``conformal`` its kind (``lac``: the smallest
    sets; ``aps``: sets that grow with doubt and are never empty; ``off``), ``by_class`` promises
    it for each class apart. Where uncertainty tells wrong answers from right ones, answers go to
    a human above a limit that refers no more than ``refer_at_most`` of the holdout.
    ``largest_set`` refers sets of more classes; 0 is half of them. ``false_alarms`` is the share
    of ordinary images that each warning may wrongly name. ``smallest_side`` is in pixels, of an
    image's longer side; 0 is half of what the network sees.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calibrate: bool = True
    wanted_sensitivity: Annotated[float | None, Field(gt=0, lt=1)] = None
    conformal: Literal["lac", "aps", "off"] = "lac"
    coverage: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    by_class: bool = False
    refer_at_most: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    largest_set: Annotated[int, Field(ge=0)] = 0
    false_alarms: Annotated[float, Field(gt=0, le=0.1)] = 0.01
    smallest_side: Annotated[int, Field(ge=0)] = 0

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the table; a profile made under another one is made again."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
