"""Campaigns in one process: the real round loop and the real ClientApp, without Flower between.

`simulations.engine` runs them on Ray, whose start costs more than a small campaign itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from flwr.app import Context, Message, RecordDict

from client.app import SITES_FOLDER, app
from server.app import run_campaign
from server.campaigns import create_campaign
from server.registry.registry import Registry
from simulations.engine import Campaigned, Federation, Simulation
from tests.fakes import FakeClock, FakeGrid


class OneProcess(FakeGrid):
    """A grid whose sites answer at once, one after another.

    Parameters
    ----------
    sites : Path
        The folder that holds the sites' folders.
    """

    def __init__(self, sites: Path) -> None:
        super().__init__(FakeClock(), {})
        os.environ[SITES_FOLDER] = str(sites)
        self._count = sum((path / "site.toml").is_file() for path in sites.iterdir())

    def get_node_ids(self) -> Iterable[int]:
        return range(1, self._count + 1)

    def _deliver(self, identifier: str, message: Message) -> None:
        node = message.metadata.dst_node_id
        context = Context(
            run_id=1,
            node_id=node,
            node_config={"partition-id": node - 1},
            state=RecordDict(),
            run_config={},
        )
        self._due[identifier] = (0.0, app(message, context))


def run_here(simulation: Simulation, federation: Federation) -> Campaigned:
    """Run a campaign over a prepared federation, as `simulations.engine.run_campaign` does."""
    registry = Registry.open(federation.coordinator)
    try:
        campaign = create_campaign(
            federation.coordinator,
            registry,
            simulation.recipe,
            private=simulation.private,
            weights=simulation.weights,
            sites=tuple(site.name for site in federation.sites),
        )
        grid = OneProcess(simulation.out / "sites")
        candidate = run_campaign(grid, federation.coordinator, campaign, flower_run=1)
        assert candidate is not None
        return Campaigned(
            campaign, candidate, registry.rounds(campaign), registry.contributions(campaign), 0.0
        )
    finally:
        registry.close()
