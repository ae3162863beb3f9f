"""What an exchange with the sites works with."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.serverapp import Grid

from common.signing import SigningKey
from server.registry.records import CampaignSettings
from server.registry.registry import Registry
from server.rounds.clock import Clock
from server.rounds.site_directory import SiteDirectory


@dataclass(frozen=True)
class Link:
    """Flower's grid, who is on it, the plan key, and plans' life in seconds."""

    grid: Grid
    directory: SiteDirectory
    registry: Registry
    key: SigningKey
    clock: Clock
    settings: CampaignSettings
    plan_seconds: int
