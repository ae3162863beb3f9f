"""What a campaign that is over leaves on the coordinator's disk."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.rounds.control_variates import holds_variates
from server.rounds.driver import campaign_folder, driving
from server.rounds.leftovers import KEPT_DAYS, remove_leftovers
from tests.fakes import toy_recipe
from tests.server.campaigns import Coordinator


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path, [])


def campaign_that(coordinator: Coordinator, how: str) -> str:
    identifier = coordinator.create(toy_recipe(algorithm="scaffold")).id
    registry = coordinator.registry
    if how != "created":
        registry.start_campaign(identifier)
    if how == "failed":
        registry.moves.fail(identifier, "no quorum", code="quorum")
    elif how == "cancelled":
        registry.moves.cancel(identifier)
    elif how == "interrupted":
        registry.moves.interrupt(identifier, "killed", code="driver-gone")
    variates = campaign_folder(coordinator.settings, identifier) / "control-variates"
    variates.mkdir(parents=True)
    (variates / "north-000001.safetensors").touch()
    return identifier


@pytest.mark.parametrize(
    ("how", "days", "kept"),
    [
        ("failed", KEPT_DAYS - 1, True),  # it may be resumed
        ("failed", KEPT_DAYS + 1, False),
        ("cancelled", 0, False),  # whoever cancelled it was killed before
        ("interrupted", 400, True),
        ("running", 400, True),
        ("created", 400, True),
    ],
)
def test_variates_go_when_nothing_will_use_them(
    coordinator: Coordinator, how: str, days: int, kept: bool
) -> None:
    identifier = campaign_that(coordinator, how)
    now = datetime.now(UTC) + timedelta(days=days)
    told = remove_leftovers(coordinator.settings, coordinator.registry, now=now)
    assert told == (() if kept else (identifier,))
    assert holds_variates(campaign_folder(coordinator.settings, identifier)) == kept


def test_one_that_is_driven_keeps_them(coordinator: Coordinator) -> None:
    identifier = campaign_that(coordinator, "failed")
    late = datetime.now(UTC) + timedelta(days=KEPT_DAYS + 1)
    with driving(campaign_folder(coordinator.settings, identifier)):
        assert remove_leftovers(coordinator.settings, coordinator.registry, now=late) == ()
    assert remove_leftovers(coordinator.settings, coordinator.registry, now=late) == (identifier,)
