"""Whose weights a campaign must leave where they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import RoundFailed
from common.wire import reply_to_records as told
from server.registry.records import Campaign
from tests.fakes import FakeSite, silent
from tests.server.campaigns import Coordinator
from tests.server.registry.test_champions import record

BASE, AFTER = "a" * 64, "b" * 64


@pytest.fixture
def made(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")])


def with_a_round(made: Coordinator) -> Campaign:
    campaign = made.create()
    made.registry.start_campaign(campaign.id)
    made.registry.start_round(campaign.id, 1, purpose="train", base_digest=BASE)
    made.registry.end_round(campaign.id, 1, aggregate_digest=AFTER)
    return campaign


def test_what_a_release_a_candidate_or_a_beginning_names_stays(made: Coordinator) -> None:
    campaign = made.create(rounds=1)
    candidate = made.run(campaign)
    named = made.registry.names_model
    for own in (campaign.id, "another"):
        assert named(candidate.model_digest, beside=own)
        assert named(campaign.initial_digest, beside=own)
        assert not named(BASE, beside=own)
    other = candidate.draft.model_copy(update={"model_digest": AFTER})
    record(made, replace(candidate, draft=other, model_digest=AFTER), 1)
    assert named(AFTER, beside=campaign.id), "the release's, whatever its candidate is by now"


def test_a_campaigns_rounds_are_its_own_to_remove(made: Coordinator) -> None:
    campaign, other = with_a_round(made), made.create()
    for digest in (BASE, AFTER):
        assert not made.registry.names_model(digest, beside=campaign.id)
        assert made.registry.names_model(digest, beside=other.id)


@pytest.mark.parametrize(
    ("how", "named"), [("failed", True), ("interrupted", True), ("paused", True), ("over", False)]
)
def test_another_campaigns_rounds_stay_while_it_may_go_on(
    made: Coordinator, how: str, named: bool
) -> None:
    campaign, moves = with_a_round(made), made.registry.moves
    if how == "failed":
        moves.fail(campaign.id, "no quorum", code="quorum")
    elif how == "over":
        moves.cancel(campaign.id)
    else:
        moves.interrupt(campaign.id, "killed", code="driver-gone")
        if how == "paused":
            moves.pause(campaign.id)
    assert made.registry.names_model(AFTER, beside="another") == named


def test_two_campaigns_with_the_same_weights_leave_them_to_each_other(made: Coordinator) -> None:
    """The same sites, recipe and first model: the rounds of both lead to the same digests."""
    failed, other = made.create(), made.create()
    north = made.sites["north"]
    north.behave = lambda reply, plan: silent(reply, plan) if plan.round == 3 else told(reply)
    with pytest.raises(RoundFailed):
        made.run(failed)
    north.behave = None
    made.run(other)
    made.registry.moves.resume(failed.id)
    made.run(failed)
    assert made.registry.campaign(failed.id).state == "finished"
    left = {path.stem for path in made.settings.models.iterdir()}
    kept = {c.model_digest for c in made.registry.candidates()} | {failed.initial_digest}
    assert left == kept
