"""A coordinator with fake sites, for the tests of rounds."""

from __future__ import annotations

from pathlib import Path

from common.recipe import Recipe
from server.app import run_campaign
from server.coordinator_folder import create_coordinator_folder
from server.model_store import ModelStore
from server.registry.records import (
    Campaign,
    CampaignSettings,
    Candidate,
    Contribution,
    TrainablePhase,
)
from server.registry.registry import Registry
from tests.fakes import TRAINABLE, FakeClock, FakeGrid, FakeSite, first_model, toy_recipe


class Coordinator:
    """A coordinator's folder, a fake clock and a fake grid of registered sites."""

    def __init__(self, folder: Path, sites: list[FakeSite], *, register: bool = True) -> None:
        self.settings = create_coordinator_folder(folder / "coordinator", releases=False)
        self.registry = Registry.open(self.settings)
        self.clock = FakeClock()
        self.sites = {site.name: site for site in sites}
        self.grid = FakeGrid(self.clock, {100 + i: site for i, site in enumerate(sites)})
        if register:
            for node, site in self.grid.sites.items():
                self.registry.register_site(site.name, node_id=node, public_key="key")

    def create(
        self,
        recipe: Recipe | None = None,
        *,
        rounds: int = 3,
        epsilon: float | None = None,
        base_release: int | None = None,
        **settings: object,
    ) -> Campaign:
        fields: dict[str, object] = {
            "rounds": rounds,
            "epsilon": epsilon,
            "quorum": 2,
            "round_deadline_seconds": 100.0,
            "site_wait_seconds": 30.0,
            "attempts": 2,
            "phases": (TrainablePhase(first_round=1, scope="all", names=TRAINABLE),),
        }
        initial = ModelStore(self.settings.models).save(first_model())
        return self.registry.add_campaign(
            recipe or toy_recipe(rounds=rounds),
            CampaignSettings.model_validate(fields | settings),
            initial_digest=initial,
            base_release=base_release,
        )

    def run(self, campaign: Campaign) -> Candidate:
        candidate = self.run_any(campaign)
        assert candidate is not None
        return candidate

    def run_any(self, campaign: Campaign) -> Candidate | None:
        return run_campaign(self.grid, self.settings, campaign.id, flower_run=1, clock=self.clock)

    def contribution(
        self, campaign: Campaign, site: str, *, number: int = 1, attempt: int = 1
    ) -> Contribution:
        found = self.registry.contributions(campaign.id, number=number)
        return next(c for c in found if c.site == site and c.attempt == attempt)


def three(folder: Path, **last: object) -> Coordinator:
    """Two honest sites, and a third, ``west``, of the kind that a test is about."""
    third = FakeSite("west", **last)  # type: ignore[arg-type]
    return Coordinator(folder, [FakeSite("north"), FakeSite("south", patients=300), third])
