"""The last exchange: it follows the campaign's locked limits, and waits for nobody in vain."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from common.errors import RoundFailed
from common.recipe import Recipe, ReleaseGateSpec
from server.protocol import default_protocol
from server.registry.records import Round
from tests.fakes import FakeSite, broken, toy_recipe
from tests.server.campaigns import Coordinator


def demanding(minimum_sites: int = 3) -> Recipe:
    return toy_recipe(rounds=1).model_copy(
        update={"release": ReleaseGateSpec(minimum_sites=minimum_sites)}
    )


def last_round(made: Coordinator, campaign: str) -> Round:
    return made.registry.rounds(campaign)[-1]


@pytest.mark.parametrize("registered", [2, 3])
def test_the_locked_limits_say_how_many_sites_are_waited_for(
    tmp_path: Path, registered: int
) -> None:
    sites = [FakeSite(name) for name in ("north", "south", "west")[:registered]]
    made = Coordinator(tmp_path, sites)
    made.grid.offline = {102}
    recipe = demanding(3)
    locked = default_protocol(recipe).model_copy(update={"limits": demanding(2).release})
    campaign = made.create(recipe, rounds=1, quorum=2, protocol=locked, site_wait_seconds=5000.0)
    candidate = made.run(campaign)
    assert last_round(made, campaign.id).state == "finished"
    # The preflight alone waits, and only for a site that is registered.
    assert made.clock.slept < (100 if registered == 2 else 5100)
    checks = {check.name: check.passed for check in candidate.draft.gate}
    assert checks["minimum-sites"]
    assert checks["evaluated-sites"]


def test_a_limit_beyond_all_registered_sites_is_the_gates_business(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    campaign = made.create(demanding(3), rounds=1, site_wait_seconds=5000.0)
    with caplog.at_level(logging.WARNING):
        candidate = made.run(campaign)
    assert last_round(made, campaign.id).state == "finished"
    assert made.clock.slept < 100
    assert "evaluation-incomplete" not in caplog.text
    assert "evaluated-sites" in {check.name for check in candidate.draft.gate if not check.passed}


def test_an_evaluation_has_failed_where_a_site_that_was_asked_did(tmp_path: Path) -> None:
    def half(reply, plan):  # type: ignore[no-untyped-def]
        from common.wire import reply_to_records

        return broken(reply, plan) if plan.purpose == "evaluate" else reply_to_records(reply)

    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south", behave=half)])
    campaign = made.create(rounds=1)
    made.run(campaign)
    assert last_round(made, campaign.id).state == "failed"


def test_a_registered_site_that_is_absent_does_not_make_an_evaluation_fail(tmp_path: Path) -> None:
    sites = [FakeSite(name) for name in ("north", "south", "west")]
    made = Coordinator(tmp_path, sites)
    made.grid.offline = {102}
    campaign = made.create(demanding(3), rounds=1)
    made.run(campaign)
    found = made.registry.contributions(campaign.id, number=2)
    assert ("west", "absent") in {(c.site, c.outcome) for c in found}
    assert last_round(made, campaign.id).state == "finished"


def test_a_preflight_waits_for_no_site_that_is_not_registered(tmp_path: Path) -> None:
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])
    campaign = made.create(quorum=3, epsilon=8.0, site_wait_seconds=5000.0)
    with pytest.raises(RoundFailed, match="no other site is registered") as caught:
        made.run(campaign)
    assert caught.value.code == "preflight"
    assert made.clock.slept < 10


def test_who_is_waited_for_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south"), FakeSite("west")])
    made.grid.offline = {102}
    campaign = made.create(rounds=1, epsilon=8.0, only_preflight=True)
    with caplog.at_level(logging.INFO):
        made.run_any(campaign)
    assert "sites-awaited sites=west seconds=30" in caplog.text
    assert made.clock.slept >= 30
