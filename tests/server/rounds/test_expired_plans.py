"""A site that gets a plan after its end is asked again; one whose clock is wrong is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import RecordDict

from common.errors import RoundFailed
from common.plan import RoundPlan
from common.records import SiteReply
from common.wire import reply_to_records
from tests.fakes import FakeSite
from tests.server.campaigns import Coordinator
from tests.server.rounds.buffered import buffered, refusing

PLAN_SECONDS = 50


class Busy:
    """Has other work for longer than a plan's life when it is first asked for ``purpose``."""

    def __init__(self, purpose: str, *, times: int = 1, delay: float = PLAN_SECONDS + 10) -> None:
        self.site = FakeSite("b", behave=self)
        self.asked = 0
        self._purpose, self._times, self._delay = purpose, times, delay

    def __call__(self, reply: SiteReply, plan: RoundPlan) -> RecordDict:
        self.site.delay = 0.0
        if plan.purpose == self._purpose:
            self.asked += 1
            if self.asked <= self._times:
                self.site.delay = self._delay
                return refusing(reply, "plan-expired")
        return reply_to_records(reply)


def coordinator(folder: Path, busy: Busy) -> Coordinator:
    made = Coordinator(folder, [FakeSite("a"), busy.site])
    made.settings = made.settings.model_copy(update={"plan_seconds": PLAN_SECONDS})
    return made


@pytest.mark.parametrize("purpose", ["train", "evaluate"])
def test_a_plan_that_came_too_late_is_sent_again(tmp_path: Path, purpose: str) -> None:
    busy = Busy(purpose)
    made = coordinator(tmp_path, busy)
    campaign = made.create(rounds=2, quorum=2, attempts=3)
    candidate = made.run(campaign)
    assert [c.name for c in candidate.draft.gate if not c.passed] == []
    number = 1 if purpose == "train" else 3
    told = made.registry.contributions(campaign.id, number=number)
    outcomes = [(c.attempt, c.outcome, c.code) for c in told if c.site == "b"]
    assert outcomes == [(1, "failed", "plan-late"), (2, "accepted", None)]


@pytest.mark.parametrize("purpose", ["train", "evaluate"])
def test_a_site_that_stays_busy_is_an_outage_and_no_verdict(tmp_path: Path, purpose: str) -> None:
    busy = Busy(purpose, times=2)
    made = coordinator(tmp_path, busy)
    campaign = made.create(rounds=2, quorum=2, attempts=2)
    with pytest.raises(RoundFailed) as caught:
        made.run(campaign)
    assert caught.value.code == "quorum"
    assert "b (plan-late)" in caught.value.what
    made.registry.moves.resume(campaign.id)
    assert made.run(campaign).state == "approved"


@pytest.mark.parametrize("purpose", ["train", "evaluate"])
def test_a_site_whose_clock_is_ahead_has_refused(tmp_path: Path, purpose: str) -> None:
    busy = Busy(purpose, times=9, delay=1.0)
    made = coordinator(tmp_path, busy)
    campaign = made.create(rounds=2, quorum=2, attempts=3)
    if purpose == "train":
        with pytest.raises(RoundFailed):
            made.run(campaign)
    else:
        assert made.run(campaign).state == "refused"
    assert busy.asked == 1
    told = made.registry.contributions(campaign.id)
    assert ("refused", "plan-expired") in {(c.outcome, c.code) for c in told}


def test_a_buffered_turn_whose_plan_came_too_late_is_asked_for_again(tmp_path: Path) -> None:
    busy = Busy("train")
    made = coordinator(tmp_path, busy)
    campaign = buffered(made, rounds=3, attempts=3, quorum_steps=2)
    made.run(campaign)
    told = [c for c in made.registry.contributions(campaign.id) if c.site == "b"]
    assert (told[0].outcome, told[0].code) == ("failed", "plan-late")
    turns = [p.round for p in busy.site.plans if p.purpose == "train"]
    assert turns[:2] == [1, 1]  # the same turn: nothing was trained, and no budget is used up
