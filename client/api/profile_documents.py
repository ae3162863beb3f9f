"""The JSON of a site's profile of the model, in ``GET /model``: for inside the site only."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from client.reading.parts import Missing, SiteOperatingPoint
from client.reading.profile import SiteProfile


class ProfileDocument(BaseModel):
    """What the site's confirmed holdout taught about the model; None where it could not.

    ``missing`` says which parts are not there, and why. ``tells_out_of_distribution`` and
    ``tells_image_faults`` are whether warnings of these kinds can be given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    made_at: datetime
    holdout_patients: int
    temperature: float | None
    operating_point: SiteOperatingPoint | None
    conformal: str | None
    coverage: float | None
    uncertainty_limit: float | None
    tells_out_of_distribution: bool
    tells_image_faults: bool
    missing: tuple[Missing, ...]

    @classmethod
    def of(cls, profile: SiteProfile) -> ProfileDocument:
        """Write a profile down, in short."""
        rule = profile.conformal
        return cls(
            digest=profile.digest,
            made_at=profile.made_at,
            holdout_patients=profile.holdout_patients,
            temperature=profile.temperature,
            operating_point=profile.operating_point,
            conformal=rule.method if rule else None,
            coverage=rule.coverage if rule else None,
            uncertainty_limit=profile.uncertainty_limit,
            tells_out_of_distribution=profile.out_of_distribution is not None,
            tells_image_faults=profile.image_limits is not None,
            missing=profile.missing,
        )
