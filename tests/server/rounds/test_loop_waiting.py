"""Whom a round asks, and how long it waits for sites that are slow or not there."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from common.errors import RoundFailed
from common.plan import RoundPlan
from common.records import SiteReply
from common.wire import reply_to_records
from tests.fakes import FakeSite
from tests.server.campaigns import Coordinator, three


def test_a_slow_site_is_waited_for_within_the_deadline(tmp_path: Path) -> None:
    coordinator = three(tmp_path, delay=60.0)
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    found = coordinator.contribution(campaign, "west")
    assert found.outcome == "accepted"
    assert 60 <= found.seconds <= 62
    assert coordinator.clock.slept < 2 * 62


def test_a_site_beyond_the_deadline_is_left_behind(tmp_path: Path) -> None:
    coordinator = three(tmp_path, delay=500.0)
    campaign = coordinator.create(rounds=2)
    candidate = coordinator.run(campaign)
    assert coordinator.contribution(campaign, "west").outcome == "late"
    assert coordinator.contribution(campaign, "west", number=2).outcome == "late"
    assert [s.site for s in candidate.draft.lineage.sites] == ["north", "south"]
    assert coordinator.clock.slept == pytest.approx(3 * 100, rel=0.05)


def test_polling_slows_down_but_never_beyond_a_second(tmp_path: Path) -> None:
    coordinator = three(tmp_path, delay=50.0)
    pulls = []
    original = coordinator.grid.pull_messages

    def counted(identifiers: object) -> object:
        pulls.append(coordinator.clock.now())
        return original(identifiers)  # type: ignore[arg-type]

    coordinator.grid.pull_messages = counted  # type: ignore[method-assign,assignment]
    coordinator.run(coordinator.create(rounds=1))
    gaps = np.diff(pulls)
    assert gaps.max() <= 1.0
    assert 50 < len(pulls) < 200


def test_a_site_at_work_is_given_more_time_when_it_is_needed(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, [FakeSite("north"), FakeSite("south", delay=150.0)])
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    assert coordinator.contribution(campaign, "south").outcome == "accepted"
    assert len([p for p in coordinator.sites["south"].plans if p.purpose == "train"]) == 1


def test_a_missing_site_delays_a_campaign_once_and_not_for_ever(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    coordinator.grid.offline = {102}
    campaign = coordinator.create()
    candidate = coordinator.run(campaign)
    assert candidate.state == "approved"
    absent = coordinator.contribution(campaign, "west")
    assert (absent.outcome, absent.code) == ("absent", "not-connected")
    assert 30 <= coordinator.clock.slept < 33


def test_a_late_comer_joins_the_next_round(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    coordinator.grid.offline = {102}

    def arrive(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        coordinator.grid.offline.clear()
        return reply_to_records(reply)

    coordinator.sites["north"].behave = arrive
    campaign = coordinator.create()
    coordinator.run(campaign)
    assert coordinator.contribution(campaign, "west").outcome == "absent"
    assert coordinator.contribution(campaign, "west", number=2).outcome == "accepted"


def test_with_too_few_sites_nobody_spends_privacy_for_nothing(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    coordinator.grid.offline = {101, 102}
    campaign = coordinator.create()
    with pytest.raises(RoundFailed, match="south \\(not-connected\\)"):
        coordinator.run(campaign)
    assert coordinator.sites["north"].plans == []
    assert coordinator.clock.slept < 2 * 30 + 5


def test_no_site_at_all_ends_in_bounded_time(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, [])
    with pytest.raises(RoundFailed, match="no other site"):
        coordinator.run(coordinator.create())
    assert coordinator.clock.slept < 2 * 30 + 5


def test_a_node_that_is_not_registered_is_not_asked(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    stranger = FakeSite("stranger")
    coordinator.grid.sites[999] = stranger
    campaign = coordinator.create(rounds=1)
    coordinator.run(campaign)
    assert stranger.plans == []
    found = coordinator.registry.contributions(campaign.id)
    assert {c.site for c in found} == {"north", "south", "west"}


def test_a_site_that_is_not_invited_is_not_asked(tmp_path: Path) -> None:
    coordinator = three(tmp_path)
    campaign = coordinator.create(rounds=1, sites=("north", "south"))
    coordinator.run(campaign)
    assert coordinator.sites["west"].plans == []
    found = coordinator.registry.contributions(campaign.id)
    assert {c.site for c in found} == {"north", "south"}


def test_unregistered_nodes_are_asked_who_they_are(tmp_path: Path) -> None:
    sites = [FakeSite("north"), FakeSite("south")]
    coordinator = Coordinator(tmp_path, sites, register=False)
    campaign = coordinator.create()
    coordinator.run(campaign)
    found = coordinator.registry.contributions(campaign.id)
    assert {c.site for c in found} == {"north", "south"}
