"""What a site said that a campaign would cost it, as scripts and the HTTP service read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from common.records import Forecast

if TYPE_CHECKING:
    from server.registry.records import SiteForecast


class SiteAnswer(BaseModel):
    """One site's answer; ``code`` says why it cannot, or did not answer.

    ``scores`` says whether it could score a candidate: False where nothing of its holdout may
    leave, for too few cases or by its policy; None where no forecast came. Sites of versions that
    do not say it count as able.
    """

    model_config = ConfigDict(frozen=True)

    site: str
    affordable: bool
    code: str | None
    scores: bool | None = None
    forecast: Forecast | None

    @classmethod
    def of(cls, told: SiteForecast) -> SiteAnswer:
        """Take it from the registry's record."""
        return cls(
            site=told.site,
            affordable=told.affordable,
            code=told.code,
            scores=None if told.forecast is None else told.forecast.scores,
            forecast=told.forecast,
        )
