"""Buffered rounds in which more tensors move from some step on: no late answer stops them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import RecordDict

from common.plan import RoundPlan
from common.records import SiteReply
from common.update import ModelUpdate
from server.registry.records import Campaign, TrainablePhase
from server.rounds import buffered_loop
from tests.fakes import TRAINABLE, FakeSite, binding_of
from tests.server.campaigns import Coordinator
from tests.server.rounds.buffered import Ledgered, accepted, buffered, turns

HEAD = ("head.bias",)
PHASES = (
    TrainablePhase(first_round=1, scope="head", names=HEAD),
    TrainablePhase(first_round=2, scope="all", names=TRAINABLE),
)


def phased(name: str, *delays: float) -> FakeSite:
    """A site that trains what the plan says; its first trainings take so long, others a second."""
    site, ledger, slow = FakeSite(name, speed=0.1), Ledgered(), iter(delays)

    def behave(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        site.delay = _next(slow) if plan.purpose == "train" else 0.0
        if reply.update is None or reply.receipt is None:
            return ledger(reply, plan)
        names = HEAD if plan.trainable == "head" else TRAINABLE
        update = ModelUpdate(binding_of(plan), {n: reply.update.tensors[n] for n in names})
        receipt = reply.receipt.model_copy(update={"update_digest": update.digest})
        return ledger(replace(reply, update=update, receipt=receipt), plan)

    site.behave = behave
    return site


def _next(delays: Iterator[float]) -> float:
    return next(delays, 1.0)


def one_late(folder: Path) -> tuple[Coordinator, Campaign]:
    """B and c miss the first step's deadline; c's answer to it comes in the last step."""
    sites = [phased("a", 10.0), phased("b", 1000.0, 1.0), phased("c", 1000.0, 60.0)]
    made = Coordinator(folder, sites)
    campaign = buffered(
        made, size=3, rounds=4, phases=PHASES, round_deadline_seconds=100.0, attempts=3
    )
    return made, campaign


def told(made: Coordinator, campaign: Campaign, site: str, number: int) -> list[str | None]:
    found = made.registry.contributions(campaign.id, number=number)
    return [c.code or c.outcome for c in found if c.site == site]


def test_a_late_answer_from_before_more_tensors_moved_is_too_old(tmp_path: Path) -> None:
    made, campaign = one_late(tmp_path)
    assert made.run(campaign).state == "approved"
    assert told(made, campaign, "c", 1) == ["deadline"]
    assert told(made, campaign, "c", 4)[0] == "update-stale"
    assert 1 not in turns(accepted(made, campaign), "c")


def test_a_campaign_that_kept_such_an_answer_goes_on_without_it(tmp_path: Path) -> None:
    made, campaign = one_late(tmp_path)

    def steps_alone(digest: str, *, step: int, versions: dict[str, int], **_: object) -> int:
        return step - 1 - versions[digest]  # as it was told before

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffered_loop, "base_age", steps_alone)
        with pytest.raises(KeyError, match=r"head\.weight"):
            made.run(campaign)
    assert told(made, campaign, "c", 4) == ["accepted"]
    assert made.registry.campaign(campaign.id).state == "interrupted"
    others = [turns(accepted(made, campaign), site) for site in "ab"]
    assert made.run(campaign).state == "approved"
    assert told(made, campaign, "c", 4) == ["answer-dropped"]
    found = accepted(made, campaign)
    assert [turns(found, s)[: len(o)] for s, o in zip("ab", others, strict=True)] == others
    assert 1 not in turns(found, "c")
