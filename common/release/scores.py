"""What a released model scored, and the checks that it had to pass."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common.evaluation import Metrics
from common.recipe import Fraction
from common.release.document import FiniteFloat, Part


class OperatingPoint(Part):
    """What the positive verdict does on the holdouts at the release's threshold.

    ``wanted_sensitivity`` chose the threshold; None where it is the recipe's own. The threshold
    was chosen on the patients that the rates are of: they are a little better than on new ones.
    """

    threshold: Fraction
    wanted_sensitivity: Fraction | None
    sensitivity: Fraction | None
    specificity: Fraction | None
    cases: Annotated[int, Field(ge=0)]


class ReleaseMetrics(Part):
    """Merged holdout metrics of the candidate, and of the champion on the same patients.

    ``operating`` and ``calibration_error`` (of the top class) are None where no site released
    what they follow from.
    """

    candidate: Metrics
    champion: Metrics | None = None
    operating: OperatingPoint | None = None
    calibration_error: Fraction | None = None


class GateCheck(Part):
    """One named check of the release gate: its figure, the limit it was held to, the verdict.

    ``unjudged`` names the sites or subgroups that have too few cases for a verdict on them. It is
    the coordinator's: sites read of it in the explanation (`ReleaseDraft.released`).
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    passed: bool
    figure: FiniteFloat | None = None
    limit: FiniteFloat | None = None
    explanation: Annotated[str, Field(max_length=500)] = ""
    unjudged: Annotated[
        tuple[Annotated[str, Field(max_length=80)], ...],
        Field(max_length=10_000, exclude_if=lambda names: not names),
    ] = ()

    @property
    def verdict(self) -> Literal["passed", "failed", "not enough cases to judge"]:
        """The verdict in words; one that lacks cases need not have failed (``passed``)."""
        if self.figure is None and self.unjudged:
            return "not enough cases to judge"
        return "passed" if self.passed else "failed"
