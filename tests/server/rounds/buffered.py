"""What the tests of buffered rounds share: settings, and sites that keep a ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import RecordDict

from common.plan import RoundPlan
from common.recipe import Recipe
from common.records import Refusal, SiteReply
from common.wire import reply_to_records
from server.registry.records import BufferSettings, Campaign, Contribution
from server.rounds.staleness import model_versions, staleness_of
from tests.fakes import FakeSite, binding_of, rebuilt, toy_recipe
from tests.server.campaigns import Coordinator


@dataclass
class Ledgered:
    """A site as the real one is: a turn is trained once, and sent again if asked for the same.

    ``loses`` are turns whose training is killed: spent, and no answer.
    """

    loses: tuple[int, ...] = ()
    trained: list[int] = field(default_factory=list)
    newest: tuple[RoundPlan, SiteReply] | None = None

    def __call__(self, reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if plan.purpose != "train":
            return reply_to_records(reply)
        if self.newest is not None and same(self.newest[0], plan):
            assert self.newest[1].update is not None
            return rebuilt(self.newest[1], dict(self.newest[1].update.tensors), binding_of(plan))
        if self.trained and plan.round < max(self.trained):
            return refusing(reply, "plan-out-of-order")
        if plan.round in self.trained:
            return refusing(reply, "plan-replayed")
        self.trained.append(plan.round)
        if plan.round in self.loses:
            return refusing(reply, "plan-replayed")  # as it will say when it is asked again
        self.newest = (plan, reply)
        return reply_to_records(reply)


def same(one: RoundPlan, other: RoundPlan) -> bool:
    free = {"nonce", "issued_at", "expires_at"}
    return one.model_dump(exclude=free) == other.model_dump(exclude=free)


def refusing(reply: SiteReply, code: str) -> RecordDict:
    return reply_to_records(SiteReply(reply.site, refusal=Refusal(code=code)))


def buffered(
    coordinator: Coordinator,
    *,
    size: int = 2,
    rounds: int = 3,
    recipe: Recipe | None = None,
    site_rounds: int = 100,
    max_staleness: int = 20,
    quorum_steps: int = 10,
    **settings: object,
) -> Campaign:
    buffer = BufferSettings(
        size=size,
        site_rounds=site_rounds,
        max_staleness=max_staleness,
        quorum_steps=quorum_steps,
    )
    return coordinator.create(
        recipe or toy_recipe(rounds=rounds), rounds=rounds, buffer=buffer, **settings
    )


def ledgered(folder: Path, *delays: float) -> tuple[Coordinator, dict[str, Ledgered]]:
    """Sites a, b, c, ... that take so many seconds each."""
    names = "abcdefgh"[: len(delays)]
    behaviours = {name: Ledgered() for name in names}
    sites = [
        FakeSite(name, behave=behaviours[name], delay=delay, speed=0.1)
        for name, delay in zip(names, delays, strict=True)
    ]
    return Coordinator(folder, sites), behaviours


def accepted(coordinator: Coordinator, campaign: Campaign) -> list[Contribution]:
    found = coordinator.registry.contributions(campaign.id)
    last = campaign.settings.rounds
    return [c for c in found if c.outcome == "accepted" and 1 <= c.round <= last]


def turns(contributions: list[Contribution], site: str) -> list[int]:
    return [c.receipt.round for c in contributions if c.site == site and c.receipt is not None]


def staleness(coordinator: Coordinator, campaign: Campaign, site: str) -> list[int | None]:
    versions = model_versions(coordinator.registry.rounds(campaign.id))
    return [staleness_of(c, versions) for c in accepted(coordinator, campaign) if c.site == site]
