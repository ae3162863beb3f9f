"""What a site has spent and was asked last, however its campaigns overlap and the clock runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from server.registry import registry as registry_module
from server.registry.records import CampaignSettings, Contribution, TrainablePhase
from server.registry.registry import Registry
from tests.fakes import TRAINABLE, FakeSite, first_model, toy_recipe
from tests.plans import make_plan
from tests.server.registry.opened import opened

SETTINGS = CampaignSettings(
    rounds=9,
    epsilon=8.0,
    quorum=1,
    phases=(TrainablePhase(first_round=1, scope="all", names=TRAINABLE),),
)
Note = Callable[..., None]


@pytest.fixture
def registry(database_url: str) -> Iterator[Registry]:
    with opened(database_url) as registry:
        yield registry


def begun(registry: Registry) -> str:
    made = registry.add_campaign(toy_recipe(), SETTINGS, initial_digest="0" * 64)
    return registry.start_campaign(made.id).id


@pytest.fixture
def note(registry: Registry) -> Note:
    def record(
        campaign: str, number: int, *, life: float | None, site: str = "north", **changes: object
    ) -> None:
        reply = FakeSite(site).honest(make_plan(campaign=campaign, round=number), first_model())
        assert reply.receipt is not None
        receipt = reply.receipt.model_copy(update={"epsilon_life": life, **changes})
        registry.start_round(campaign, number, purpose="train", base_digest="0" * 64)
        registry.record_contribution(
            Contribution(campaign, number, site, 1, "accepted", receipt=receipt)
        )

    return record


def test_an_older_campaign_that_runs_longer_is_not_forgotten(
    registry: Registry, note: Note
) -> None:
    older, newer = begun(registry), begun(registry)
    note(older, 1, life=1.0)
    note(newer, 1, life=2.0)
    note(older, 2, life=5.0)
    note(older, 3, life=9.0)
    note(newer, 2, life=10.0, site="south")
    history = registry.history
    assert {site: found.epsilon for site, found in history.spent().items()} == {
        "north": 9.0,
        "south": 10.0,
    }
    asked = {site: (found.campaign, found.round) for site, found in history.last_asked().items()}
    assert asked == {"north": (older, 3), "south": (newer, 2)}


def test_a_clock_that_was_set_back_takes_nothing_off_what_was_spent(
    registry: Registry, note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = begun(registry)
    note(campaign, 1, life=1.0)
    earlier = datetime.now(UTC) - timedelta(days=30)
    monkeypatch.setattr(registry_module, "utc_now", lambda: earlier)
    note(campaign, 2, life=2.0)
    assert registry.history.spent()["north"].epsilon == 2.0


@pytest.mark.parametrize(
    "told",
    [
        {"privacy_unit": "none", "delta": None, "epsilon_campaign": None},
        {"privacy_unit": "patient"},
    ],
)
def test_nothing_bounds_the_life_of_a_site_that_trained_without_privacy(
    registry: Registry, note: Note, told: dict[str, object]
) -> None:
    """Neither where its own receipt says so, nor a later private one; also an older one counts."""
    campaign = begun(registry)
    note(campaign, 1, life=3.0)
    note(campaign, 2, life=None, **told)
    note(campaign, 3, life=4.0)
    assert registry.history.spent()["north"].epsilon is None


def test_what_cost_no_privacy_hides_no_receipt_that_did(registry: Registry, note: Note) -> None:
    campaign = begun(registry)
    assert registry.history.spent() == {}
    assert registry.history.last_asked() == {}
    note(campaign, 1, life=12.5)
    scored = {"privacy_unit": "none", "update_digest": None, "delta": None}
    note(campaign, 2, life=None, **scored)
    registry.start_round(campaign, 3, purpose="train", base_digest="0" * 64)
    registry.record_contribution(Contribution(campaign, 3, "north", 1, "refused", code="paused"))
    assert registry.history.spent()["north"].epsilon == 12.5
    assert registry.history.last_asked()["north"].code == "paused"


def test_campaigns_that_are_long_past_count(registry: Registry, note: Note) -> None:
    first = begun(registry)
    note(first, 1, life=3.0)
    for _ in range(51):
        begun(registry)
    assert registry.history.spent()["north"].epsilon == 3.0
    assert registry.history.last_asked()["north"].campaign == first
