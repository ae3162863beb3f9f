"""What the monitor found when it last looked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from client.monitoring.drift import KindDrift
from client.monitoring.fairness import Fairness
from client.monitoring.performance import Performance, broken
from client.monitoring.promise import FigureName, Promise

NO_PROMISE, NOBODY = Promise(), Fairness()


@dataclass(frozen=True)
class DriftLook:
    """One comparison of the newest answers with a reference.

    Attributes
    ----------
    kinds : tuple of KindDrift
        Empty where there is no reference.
    reference_patients : int or None
        How many the reference is of, None where there is none.
    newest : datetime or None
        When the newest answer that was looked at was given.
    looked_at : datetime
        UTC.
    """

    kinds: tuple[KindDrift, ...]
    reference_patients: int | None
    newest: datetime | None
    looked_at: datetime


@dataclass(frozen=True)
class Snapshot:
    """All that is known; None where it is not, or may not be told.

    Attributes
    ----------
    refreshed_at : datetime
        UTC.
    seconds : float
        Of the processor, that finding it took.
    version : int or None
        Of the model that answered then.
    minimum_cell : int or None
        The policy's; None where there is no policy that can be read, and then no figure over
        confirmed cases is told.
    drift : DriftLook or None
    recent : Performance or None
        Of the model that answered then.
    promise : Promise
        What that model is held to.
    months : tuple of Performance
    fairness : Fairness
        Of the same answers as ``recent``.
    """

    refreshed_at: datetime
    seconds: float = 0.0
    version: int | None = None
    minimum_cell: int | None = None
    drift: DriftLook | None = None
    recent: Performance | None = None
    promise: Promise = NO_PROMISE
    months: tuple[Performance, ...] = ()
    fairness: Fairness = NOBODY

    @property
    def broken(self) -> tuple[FigureName, ...]:
        """Figures that are shown to be worse than promised."""
        return () if self.recent is None else broken(self.recent, self.promise)

    @property
    def drifted(self) -> tuple[KindDrift, ...]:
        """Kinds of which some drift is found."""
        kinds = () if self.drift is None else self.drift.kinds
        return tuple(kind for kind in kinds if kind.level)
