"""The fingerprint by which open pages hear of changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from server.registry.records import CampaignSettings, SiteForecast, TrainablePhase
from server.registry.registry import Registry
from tests.fakes import TRAINABLE, toy_recipe
from tests.server.registry.opened import opened
from tests.server.signed_in import account

SETTINGS = CampaignSettings(
    rounds=3,
    epsilon=8.0,
    quorum=1,
    phases=(TrainablePhase(first_round=1, scope="all", names=TRAINABLE),),
)


@pytest.fixture
def registry(database_url: str) -> Iterator[Registry]:
    with opened(database_url) as registry:
        yield registry


def test_it_differs_after_all_that_a_page_shows(registry: Registry) -> None:
    campaign = registry.add_campaign(toy_recipe(), SETTINGS, initial_digest="0" * 64).id
    told = SiteForecast("north", "budget-exhausted", refuses=True)
    changes: dict[str, Callable[[], object]] = {
        "a site": lambda: registry.register_site("north", node_id=1, public_key="key"),
        "a campaign's state": lambda: registry.start_campaign(campaign),
        "what a site says before it": lambda: registry.record_forecasts(campaign, [told]),
        "an account": lambda: account(registry, "eve", "approver"),
        "a role": lambda: registry.accounts.set_role("eve", "viewer", by="console-test"),
        "its end": lambda: registry.accounts.disable("eve", by="console-test"),
    }
    before = registry.changes.fingerprint()
    for what, change in changes.items():
        assert registry.changes.fingerprint() == before, "nothing has changed"
        change()
        after = registry.changes.fingerprint()
        assert after != before, what
        before = after
