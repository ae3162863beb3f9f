"""The ``[monitoring]`` table of ``site.toml``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class MonitoringSettings(BaseModel):
    """How the site watches its own answers.

    Every ``refresh_minutes`` the figures are made anew. Drift is of the newest ``window`` answers
    of the last ``days``; of fewer than ``fewest`` nothing is said. Performance is of the answers
    of the last ``performance_days``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    refresh_minutes: Annotated[float, Field(gt=0, le=1440)] = 10.0
    window: Annotated[int, Field(ge=50, le=1000)] = 500
    fewest: Annotated[int, Field(ge=30, le=1000)] = 100
    days: Annotated[int, Field(ge=1, le=365)] = 28
    performance_days: Annotated[int, Field(ge=1, le=3650)] = 365
