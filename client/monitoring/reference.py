"""What drift is measured against: the site's own holdout, as the release saw it on its first day.

One image of each patient, so that the rows are independent. The rows are figures and no images,
and stay at the site with the rest of its profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from client.cases.case import Case
from client.monitoring.answer_statistics import INPUTS, PROJECTIONS, network_statistics
from client.monitoring.input_statistics import DIGITS, IMAGE_STATISTICS

FEWEST_PATIENTS, MOST_PATIENTS = 50, 500
"""With fewer patients no reference is made; of more an evenly spaced choice is kept."""

Figure = Annotated[float, Field(allow_inf_nan=False)]


class Scored(Protocol):
    """Scores of a holdout, `client.inference.holdout_scores.HoldoutScores`: N cases.

    ``logits`` (N, K), ``features`` (N, D), ``statistics`` (N, M) of
    `client.monitoring.input_statistics.image_statistics`.
    """

    @property
    def cases(self) -> Sequence[Case]: ...  # noqa: D102

    @property
    def logits(self) -> NDArray[np.float64]: ...  # noqa: D102

    @property
    def features(self) -> NDArray[np.float32]: ...  # noqa: D102

    @property
    def statistics(self) -> NDArray[np.float64]: ...  # noqa: D102


class DriftReference(BaseModel):
    """A sample of holdout patients, a row each.

    Attributes
    ----------
    inputs : tuple of str
        Names of the image figures that the rows begin with. Ones made by another version of this
        software, with other figures, fit no fresh answer and are not used (`fits`).
    classes : int
        How many class probabilities end a row.
    rows : tuple of tuple of float
        ``inputs``, `PROJECTIONS` projections, ``classes`` probabilities.
    newest : datetime or None
        When the last of the cases was confirmed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[str, ...]
    classes: Annotated[int, Field(ge=2, le=1000)]
    rows: Annotated[
        tuple[tuple[Figure, ...], ...],
        Field(min_length=FEWEST_PATIENTS, max_length=MOST_PATIENTS),
    ]
    newest: AwareDatetime | None = None

    @model_validator(mode="after")
    def _rectangular(self) -> DriftReference:
        if {len(row) for row in self.rows} != {len(self.inputs) + PROJECTIONS + self.classes}:
            raise ValueError("rows: not of the length that inputs and classes give")
        return self

    @property
    def fits(self) -> bool:
        """Whether today's answers have the same figures."""
        return self.inputs == IMAGE_STATISTICS

    def table(self) -> NDArray[np.float64]:
        """Return the rows, float64 (patients, INPUTS + PROJECTIONS + classes)."""
        return np.array(self.rows, dtype=np.float64)


def make_reference(scores: Scored) -> DriftReference | None:
    """Return the reference of a scored holdout; None of fewer than `FEWEST_PATIENTS` patients.

    Parameters
    ----------
    scores : HoldoutScores
        Of the release that is about to answer, or answers.
    """
    if scores.statistics.shape != (len(scores.cases), INPUTS):
        return None  # figures of another version of this software: none rather than wrong ones
    first: dict[str, int] = {}
    for position, case in enumerate(scores.cases):
        first.setdefault(case.patient, position)
    chosen = np.array(list(first.values()), dtype=np.int64)
    if len(chosen) < FEWEST_PATIENTS:
        return None
    if len(chosen) > MOST_PATIENTS:
        chosen = chosen[np.linspace(0, len(chosen) - 1, MOST_PATIENTS).astype(np.int64)]
    network = network_statistics(scores.logits[chosen], scores.features[chosen])
    rows = np.hstack([np.round(scores.statistics[chosen], DIGITS), network])
    moments = [c.confirmed_at for c in scores.cases if c.confirmed_at is not None]
    return DriftReference(
        inputs=IMAGE_STATISTICS,
        classes=scores.logits.shape[1],
        rows=tuple(tuple(row) for row in rows.tolist()),
        newest=max(moments, default=None),
    )
