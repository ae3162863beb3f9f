"""Campaigns that are cut off anywhere, and go on: nothing lost, nothing trained twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict
from sqlalchemy.orm import Session

from common.audit_entries import CampaignMoved
from common.errors import RoundFailed
from common.plan import RoundPlan
from common.records import Refusal, SiteReply
from common.wire import reply_to_records
from server.model_store import ModelStore
from server.registry.records import Campaign, Candidate
from server.registry.sessions import Sessions
from server.rounds.driver import campaign_folder, driving
from tests.fakes import FakeSite, binding_of, rebuilt, silent, toy_recipe
from tests.server.campaigns import Coordinator


class Killed(BaseException):
    """Stands in for SIGKILL: from the first one on, this process writes nothing any more."""


@dataclass
class OnceOnly:
    """A site's behaviour: a round is trained once, and asked for again, sent again."""

    trained: list[int] = field(default_factory=list)
    newest: SiteReply | None = None

    def __call__(self, reply: SiteReply, plan: RoundPlan) -> RecordDict | Error | None:
        if plan.purpose != "train":
            return reply_to_records(reply)
        if plan.round not in self.trained:
            self.trained.append(plan.round)
            self.newest = reply
        elif self.newest is None or self.newest.receipt is None or self.newest.update is None:
            return reply_to_records(SiteReply(reply.site, refusal=Refusal(code="plan-replayed")))
        assert self.newest is not None
        assert self.newest.update is not None
        return rebuilt(self.newest, dict(self.newest.update.tensors), binding_of(plan))


def three(tmp_path: Path) -> tuple[Coordinator, dict[str, OnceOnly]]:
    behaviours = {name: OnceOnly() for name in ("north", "south", "west")}
    sites = [FakeSite(name, behave=behaviour) for name, behaviour in behaviours.items()]
    return Coordinator(tmp_path, sites), behaviours


@contextmanager
def killed_at(write: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Let the ``write``-th transaction, and all after it, not be committed."""
    count = 0
    real = Sessions.writing

    @contextmanager
    def writing(sessions: Sessions) -> Iterator[Session]:
        nonlocal count
        count += 1
        if count >= write:
            raise Killed
        with real(sessions) as session:
            yield session

    with monkeypatch.context() as patch:
        patch.setattr(Sessions, "writing", writing)
        yield lambda: count


def run_to_the_end(coordinator: Coordinator, campaign: Campaign) -> Candidate:
    return coordinator.run(campaign)


def check(
    coordinator: Coordinator,
    campaign: Campaign,
    behaviours: dict[str, OnceOnly],
    *,
    taken_once: bool = True,
) -> None:
    registry = coordinator.registry
    assert registry.campaign(campaign.id).state == "finished"
    found = registry.rounds(campaign.id)
    states = [(r.number, r.state) for r in found if r.purpose == "train"]
    assert states == [(n, "finished") for n in (1, 2, 3)]
    accepted = sorted((c.round, c.site) for c in registry.contributions(campaign.id)
                      if c.outcome == "accepted" and 1 <= c.round <= 3)  # fmt: skip
    assert accepted == [(n, s) for n in (1, 2, 3) for s in ("north", "south", "west")]
    for behaviour in behaviours.values():
        assert behaviour.trained == [1, 2, 3]
    taken = [line.body for line in registry.audit.lines(kinds=("reply-taken",))]
    for site in behaviours if taken_once else ():
        for number in (1, 2, 3):
            own = f'"site":"{site}","campaign":"{campaign.id}","round":{number},'
            assert sum(own in body and '"update_digest":null' not in body for body in taken) == 1
    folder = campaign_folder(coordinator.settings, campaign.id)
    assert list(folder.glob("answers-*")) == []


def test_killed_at_any_write_a_campaign_ends_as_if_nothing_had_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, behaviours = three(tmp_path / "calm")
    first = calm.create(epsilon=8.0)  # its own writes are not among those of the run
    with killed_at(10**6, monkeypatch) as writes:
        candidate = calm.run(first)
        total = writes()
    check(calm, first, behaviours)
    assert total > 20
    for write in range(2, total + 1, 3):
        made, behaviours = three(tmp_path / f"at-{write}")
        campaign = made.create(epsilon=8.0)
        with killed_at(write, monkeypatch), pytest.raises(Killed):
            made.run(campaign)
        resumed = run_to_the_end(made, campaign)
        check(made, campaign, behaviours)
        assert resumed.model_digest == candidate.model_digest, write


def test_an_answer_that_was_kept_is_used_and_its_site_not_asked_again(tmp_path: Path) -> None:
    made, behaviours = three(tmp_path)
    made.sites["south"].delay = made.sites["west"].delay = 1.0
    campaign = made.create(rounds=1, quorum=3, attempts=1)
    real = made.grid.pull_messages

    def cut(identifiers: Iterable[str]) -> Iterable[Message]:
        if made.registry.contributions(campaign.id):
            raise ConnectionError
        return real(identifiers)

    made.grid.pull_messages = cut  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        made.run(campaign)
    assert made.registry.campaign(campaign.id).state == "interrupted"
    made.grid.pull_messages = real  # type: ignore[method-assign]
    made.run(campaign)
    assert [b.trained for b in behaviours.values()] == [[1]] * 3
    asked = {name: sum(p.purpose == "train" for p in s.plans) for name, s in made.sites.items()}
    assert asked == {"north": 1, "south": 2, "west": 2}


def test_kept_answers_are_the_coordinators_alone_and_go_with_the_campaign(tmp_path: Path) -> None:
    made, _ = three(tmp_path)
    made.sites["west"].behave = silent
    campaign = made.create(rounds=1, quorum=3, attempts=1)
    folder = campaign_folder(made.settings, campaign.id)
    modes: set[int] = set()
    sleep = made.clock.sleep

    def look(seconds: float) -> None:
        modes.update(p.stat().st_mode & 0o777 for p in folder.glob("answers-*/*"))
        modes.update(p.stat().st_mode & 0o777 for p in folder.glob("answers-*"))
        sleep(seconds)

    made.clock.sleep = look  # type: ignore[method-assign]
    with pytest.raises(RoundFailed):
        made.run(campaign)
    assert modes == {0o600, 0o700}
    assert list(folder.glob("answers-*")) == []


def test_a_campaign_that_missed_its_quorum_can_be_resumed(tmp_path: Path) -> None:
    made, behaviours = three(tmp_path)
    for name in ("south", "west"):
        made.sites[name].behave = silent
    campaign = made.create(rounds=3, quorum=3, attempts=1)
    with pytest.raises(RoundFailed):
        made.run(campaign)
    assert made.registry.campaign(campaign.id).state == "failed"
    for name in ("south", "west"):
        made.sites[name].behave = behaviours[name]
    made.registry.moves.resume(campaign.id)
    made.run(campaign)
    check(made, campaign, behaviours, taken_once=False)
    dropped = made.contribution(campaign, "north")
    assert (dropped.outcome, dropped.code) == ("failed", "answer-dropped")


def test_a_pause_takes_effect_after_the_round_and_lasts(tmp_path: Path) -> None:
    made, behaviours = three(tmp_path)
    campaign = made.create(rounds=3)
    north = behaviours["north"]

    def pausing(reply: SiteReply, plan: RoundPlan) -> RecordDict | Error | None:
        if plan.round == 2:
            made.registry.moves.pause(campaign.id)
        return north(reply, plan)

    made.sites["north"].behave = pausing
    assert made.run_any(campaign) is None
    assert made.registry.campaign(campaign.id).state == "paused"
    assert [r.state for r in made.registry.rounds(campaign.id)] == ["finished"] * 2
    with pytest.raises(RoundFailed) as caught:
        made.run(campaign)
    assert "paused" in caught.value.what
    made.sites["north"].behave = north
    made.registry.moves.resume(campaign.id)
    made.run(campaign)
    check(made, campaign, behaviours)


def test_a_cancelled_campaign_ends_at_its_next_write(tmp_path: Path) -> None:
    made, behaviours = three(tmp_path)
    campaign = made.create(rounds=3)
    north = behaviours["north"]

    def cancelling(reply: SiteReply, plan: RoundPlan) -> RecordDict | Error | None:
        if plan.round == 2:
            made.registry.moves.cancel(campaign.id)
        return north(reply, plan)

    made.sites["north"].behave = cancelling
    with pytest.raises(RoundFailed) as caught:
        made.run(campaign)
    assert caught.value.code == "campaign-lost"
    assert made.registry.campaign(campaign.id).state == "cancelled"
    assert made.registry.candidates(campaign=campaign.id) == ()


def test_two_serverapps_cannot_drive_one_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = three(tmp_path)
    campaign = made.create(rounds=1)
    monkeypatch.setattr("server.rounds.driver.PATIENCE_SECONDS", 0.05)
    folder = campaign_folder(made.settings, campaign.id)
    with driving(folder), pytest.raises(RoundFailed) as caught:
        made.run(campaign)
    assert caught.value.code == "campaign-driven"
    assert made.registry.campaign(campaign.id).state == "created"


def test_of_seven_sites_the_four_that_fail_are_named_and_the_campaign_finishes(
    tmp_path: Path,
) -> None:
    """One hangs, one is ten times as slow, one drops and returns, one sends NaN; quorum 3."""
    names = ("east", "north", "south", "hangs", "slow", "drops", "nan")
    sites = [FakeSite(name, delay=8.0) for name in names]
    made = Coordinator(tmp_path, sites)
    made.sites["hangs"].behave = silent
    made.sites["slow"].delay = 80.0
    drops = names.index("drops") + 100

    def not_a_number(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if reply.update is None:
            return reply_to_records(reply)
        bad = {n: np.full_like(a, np.nan) for n, a in reply.update.tensors.items()}
        return rebuilt(reply, bad)

    def comes_and_goes(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        offline = made.grid.offline
        offline.add(drops) if plan.round in (2, 3) else offline.discard(drops)
        return reply_to_records(reply)

    made.sites["nan"].behave = not_a_number
    made.sites["east"].behave = comes_and_goes
    campaign = made.create(toy_recipe(rounds=6), rounds=6, quorum=3, round_deadline_seconds=600.0)
    made.run(campaign)
    registry = made.registry
    rounds = [r for r in registry.rounds(campaign.id) if r.purpose == "train"]
    assert [r.state for r in rounds] == ["finished"] * 6
    told = {(c.round, c.site): (c.outcome, c.code) for c in registry.contributions(campaign.id)}
    for number in range(1, 7):
        assert told[number, "hangs"] == ("late", "deadline")
        assert told[number, "nan"] == ("rejected", "update-not-finite")
        assert told[number, "slow"] == ("accepted", None), "it is waited for as slow as it is"
        for name in ("east", "north", "south"):
            assert told[number, name] == ("accepted", None)
    dropped = [told[n, "drops"] for n in range(1, 7)]
    absent = ("absent", "not-connected")
    assert dropped == [("accepted", None)] + [absent, absent] + [("accepted", None)] * 3 or (
        dropped.count(absent) == 2 and dropped[-1] == ("accepted", None)
    )
    seconds = [(r.finished_at or r.started_at) - r.started_at for r in rounds]
    assert len(seconds) == 6
    hanging = [c.seconds for c in registry.contributions(campaign.id) if c.site == "hangs"]
    assert hanging[0] >= 600
    assert max(hanging[1:6]) < 600, "from then on it is not waited for until the longest deadline"


def test_an_old_driver_is_fenced_off(tmp_path: Path) -> None:
    made, behaviours = three(tmp_path)
    campaign = made.create(rounds=3)
    north = behaviours["north"]

    def taken_over(reply: SiteReply, plan: RoundPlan) -> RecordDict | Error | None:
        if plan.round == 2 and len(north.trained) == 1:
            made.registry.moves.interrupt(campaign.id, "taken for dead")
            made.registry.moves.take(campaign.id)
        return north(reply, plan)

    made.sites["north"].behave = taken_over
    with pytest.raises(RoundFailed) as caught:
        made.run(campaign)
    assert caught.value.code == "campaign-lost"
    assert made.registry.campaign(campaign.id).state == "running"
    moves = [line.entry() for line in made.registry.audit.lines(kinds=("campaign-moved",))]
    assert [m.epoch for m in moves if isinstance(m, CampaignMoved) and m.action == "take"] == [1, 2]


def test_early_stopping_and_the_average_go_on_where_they_were(tmp_path: Path) -> None:
    recipe = toy_recipe(
        rounds=3,
        early_stopping_rounds=2,
        server={"ema_decay": 0.9},
        server_with_privacy={"ema_decay": 0.9},
    )
    digests = []
    for folder, stop in (("calm", 0), ("cut", 2)):
        made, behaviours = three(tmp_path / folder)
        campaign = made.create(recipe, rounds=3, early_stopping_rounds=2)
        north = behaviours["north"]
        if stop:

            def cut(reply: SiteReply, plan: RoundPlan) -> RecordDict | Error | None:
                if plan.round == 3:
                    raise Killed
                return north(reply, plan)  # noqa: B023 - of this turn

            made.sites["north"].behave = cut
            with pytest.raises(Killed):
                made.run(campaign)
            made.sites["north"].behave = north
        digests.append(made.run(campaign).model_digest)
    assert digests[0] == digests[1]
    assert digests[0] in ModelStore(made.settings.models)
