"""What a site's holdout said of two releases, and what follows from it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from client.releases.policy import ReleasePolicy

Finding: TypeAlias = Literal["not-worse", "worse", "unclear"]
Figure: TypeAlias = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]


class ShadowFigures(BaseModel):
    """What a site's holdout says of two releases; for inside the site only.

    ``lower`` and ``upper`` end the 95 % interval of the new release's figure minus that of
    ``beside``, the version that answered then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    beside: int
    patients: int
    positives: int
    auroc: Figure
    auroc_beside: Figure
    auroc_lower: Figure
    auroc_upper: Figure
    sensitivity: Figure
    sensitivity_beside: Figure
    sensitivity_lower: Figure
    sensitivity_upper: Figure

    def finding(self, policy: ReleasePolicy) -> Finding:
        """Return what follows.

        ``worse``: a figure is lower by more than its margin, and its interval lies below 0.
        ``not-worse``: both intervals lie above their margins. ``unclear``: neither.
        """
        auroc = (self.auroc - self.auroc_beside, self.auroc_lower, self.auroc_upper)
        found = (
            self.sensitivity - self.sensitivity_beside,
            self.sensitivity_lower,
            self.sensitivity_upper,
        )
        pairs = ((auroc, policy.margin), (found, policy.sensitivity_margin))
        if any(difference < -margin and upper < 0 for (difference, _, upper), margin in pairs):
            return "worse"
        clear = all(lower >= -margin for (_, lower, _), margin in pairs)
        return "not-worse" if clear else "unclear"
