"""What the round loop remembers from one round to the next, beside weights and optimizer.

It goes into every checkpoint, so that a campaign that is resumed judges as one that ran through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import StoreError
from common.evaluation import Metrics, SiteEvaluation
from server.evaluation import BySite

KEY = "loop-state"
"""Of the array, in a checkpoint's file, that holds the state as JSON."""


class Scored(BaseModel):
    """A model that the sites scored."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # older checkpoints hold a figure, too

    digest: str
    evaluations: dict[str, SiteEvaluation]


class _Packed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    done: int
    champion: dict[str, SiteEvaluation] | None
    best: Scored | None
    stale: int
    norms: tuple[float, ...]
    metrics: Metrics | None
    former: str | None = None
    lost: int = 0


@dataclass
class LoopState:
    """A campaign after ``done`` training rounds.

    Attributes
    ----------
    champion : mapping of str to SiteEvaluation, or None
        The current release's scores by site; None where there is no release, or it is not
        scored yet.
    best : Scored or None
        For early stopping: what rounds are compared with.
    stale : int
        How many rounds in a row were no better, those left out that could not be compared.
    norms : tuple of float
        Of accepted updates since the phase began.
    metrics : Metrics or None
        Of the last round, for its row in the registry.
    former : str or None
        Digest of the best model as the checkpoint before has it.
    lost : int
        How many rounds in a row, the last one among them, ended without a step.
    """

    done: int = 0
    champion: BySite | None = None
    best: Scored | None = None
    stale: int = 0
    norms: tuple[float, ...] = ()
    metrics: Metrics | None = None
    former: str | None = None
    lost: int = 0

    @property
    def bests(self) -> frozenset[str]:
        """The digests of the best models that this checkpoint and the one before name."""
        named = {self.former, None if self.best is None else self.best.digest}
        return frozenset(digest for digest in named if digest is not None)

    def pack(self) -> dict[str, NDArray[np.generic]]:
        """Return it as an array for a checkpoint."""
        champion = None if self.champion is None else dict(self.champion)
        packed = _Packed(**{**vars(self), "champion": champion})
        return {KEY: np.frombuffer(packed.model_dump_json().encode(), dtype=np.uint8)}

    @classmethod
    def unpack(cls, arrays: Mapping[str, NDArray[np.generic]]) -> LoopState:
        """Read it from a checkpoint.

        Raises
        ------
        StoreError
            With code ``checkpoint-damaged``; one of an older version has none.
        """
        try:
            packed = _Packed.model_validate_json(arrays[KEY].tobytes())
        except (KeyError, ValidationError) as error:
            raise StoreError(
                "A campaign's checkpoint cannot be read.",
                action="Start a new campaign.",
                code="checkpoint-damaged",
            ) from error
        return cls(**{name: getattr(packed, name) for name in _Packed.model_fields})
