"""A resumed round is answered in a second by what was kept: that is no site's pace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flwr.app import RecordDict

from common.plan import RoundPlan
from common.records import SiteReply
from common.wire import reply_to_records
from server.registry.records import Campaign, Contribution, TrainablePhase
from server.registry.registry import Registry
from tests.fakes import TRAINABLE, FakeSite, binding_of, rebuilt
from tests.server.campaigns import Coordinator
from tests.server.rounds.buffered import buffered, same

TRAINING = 400.0
NAMES = ("north", "south", "west")


@dataclass
class Keeping(FakeSite):
    """It trains for minutes, and asked for the same again it sends what it has kept, at once."""

    newest: tuple[RoundPlan, SiteReply] | None = None
    trained: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.behave = self.reply

    def reply(self, reply: SiteReply, plan: RoundPlan) -> RecordDict:
        self.delay = 1.0
        if plan.purpose != "train":
            return reply_to_records(reply)
        if self.newest is not None and same(self.newest[0], plan):
            kept = self.newest[1]
            assert kept.update is not None
            assert kept.receipt is not None
            receipt = kept.receipt.model_copy(update={"seconds": 0.0})
            told = SiteReply(kept.site, None, receipt, kept.update, kept.evaluation)
            return rebuilt(told, dict(kept.update.tensors), binding_of(plan))
        self.delay = TRAINING
        self.trained.append(plan.round)
        self.newest = (plan, reply)
        return reply_to_records(reply)


def coordinator(folder: Path) -> Coordinator:
    return Coordinator(folder, [Keeping(name) for name in NAMES])


def cut(made: Coordinator, campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run into a crash after one site's answer was kept, before the registry has it."""

    def lost(registry: Registry, contribution: Contribution) -> None:
        raise ConnectionError

    with monkeypatch.context() as broken:
        broken.setattr(Registry, "record_contribution", lost)
        with pytest.raises(ConnectionError):
            made.run(campaign)
    assert made.registry.campaign(campaign.id).state == "interrupted"


def check(made: Coordinator, campaign: Campaign) -> None:
    made.run(campaign)
    told = [c for c in made.registry.contributions(campaign.id) if 1 <= c.round <= 3]
    assert "deadline" not in {c.code for c in told}, "its privacy would be spent for nothing"
    used = [c for c in told if c.outcome == "accepted" and c.receipt is not None]
    first = [c.seconds for c in used if c.receipt is not None and c.receipt.round == 1]
    assert first == [0.0] * 3
    assert all(c.seconds >= TRAINING for c in used if c.receipt and c.receipt.round > 1)


def test_after_a_resume_slow_sites_are_waited_for_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = coordinator(tmp_path)
    campaign = made.create(quorum=3, attempts=1, round_deadline_seconds=3600.0)
    cut(made, campaign, monkeypatch)
    check(made, campaign)


def test_after_a_resume_of_buffered_rounds_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = coordinator(tmp_path)
    campaign = buffered(made, size=3, rounds=3, quorum=3, round_deadline_seconds=3600.0)
    cut(made, campaign, monkeypatch)
    check(made, campaign)


def test_a_quick_first_answer_is_a_pace_though_its_receipt_rounds_to_nothing(
    tmp_path: Path,
) -> None:
    def quick(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        assert reply.receipt is not None
        receipt = reply.receipt.model_copy(update={"seconds": 0.0})
        return reply_to_records(
            SiteReply(reply.site, None, receipt, reply.update, reply.evaluation)
        )

    made = Coordinator(tmp_path, [FakeSite(n, delay=3.0, behave=quick) for n in NAMES])
    campaign = made.create(quorum=3)
    made.run(campaign)
    told = [c for c in made.registry.contributions(campaign.id) if 1 <= c.round <= 3]
    assert len(told) == 9
    assert all(c.seconds >= 3.0 for c in told)


def test_rounds_in_which_more_moves_are_given_their_own_time(tmp_path: Path) -> None:
    """The head alone takes seconds, the whole network minutes."""
    made = coordinator(tmp_path)

    def growing(site: FakeSite) -> Callable[[SiteReply, RoundPlan], RecordDict]:
        def reply(told: SiteReply, plan: RoundPlan) -> RecordDict:
            site.delay = TRAINING if plan.round == 3 and plan.purpose == "train" else 1.0
            return reply_to_records(told)

        return reply

    for site in made.sites.values():
        site.behave = growing(site)
    phases = (
        TrainablePhase(first_round=1, scope="head", names=TRAINABLE),
        TrainablePhase(first_round=3, scope="all", names=TRAINABLE),
    )
    campaign = made.create(quorum=3, attempts=1, round_deadline_seconds=3600.0, phases=phases)
    made.run(campaign)
    told = [c for c in made.registry.contributions(campaign.id) if c.round == 3]
    assert [(c.outcome, c.seconds >= TRAINING) for c in told] == [("accepted", True)] * 3
