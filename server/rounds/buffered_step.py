"""One buffered step in progress: its updates, its scores, and how each site stands in it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from common.evaluation import SiteEvaluation
from common.plan import RoundPlan
from server.registry.records import Campaign, Contribution
from server.rounds.buffer_rule import BufferRule
from server.rounds.link import Link
from server.rounds.replies import Answer, contribution_of, is_caught
from server.rounds.round_plans import is_scored, round_plan
from server.rounds.sent_requests import SentRequest
from server.rounds.site_pace import SitePace
from server.rounds.staleness import base_age
from server.rounds.standing import Standing
from server.rounds.turns import Turn
from server.rounds.update_buffer import UpdateBuffer

logger = logging.getLogger(__name__)


@dataclass
class BufferedStep:
    """What is known of a step until it is taken.

    Attributes
    ----------
    base_digest : str
        Of the model that the step starts from; ``versions`` says how many steps led to it and to
        the ones before.
    earlier : tuple of frozenset of str
        Whose updates were in the steps before.
    scores : dict of str to SiteEvaluation
        Of that very model, by site.
    caught : set of str
        The sites of which an answer was refused for what was in it, in this step.
    """

    campaign: Campaign
    buffer: UpdateBuffer
    base_digest: str
    versions: Mapping[str, int]
    earlier: tuple[frozenset[str], ...]
    standing: Standing
    pace: SitePace
    scores: dict[str, SiteEvaluation] = field(default_factory=dict)
    caught: set[str] = field(default_factory=set)

    @property
    def number(self) -> int:
        """The step's, and the round's in the registry."""
        return self.buffer.step

    @property
    def rule(self) -> BufferRule:
        """When it is complete."""
        return BufferRule.of(self.campaign)

    @property
    def refused(self) -> int:
        """How many sites were caught, and have no update in it."""
        return len(self.caught - set(self.buffer.sites))

    @property
    def drains(self) -> bool:
        """Whether nobody may be at work when it is taken.

        In the last step the privacy of whoever is at work would be spent for nothing, and where
        other tensors move from the next step on, an update of these would not fit.
        """
        settings = self.campaign.settings
        if self.number >= settings.rounds:
            return True
        return settings.phase(self.number) != settings.phase(self.number + 1)

    @property
    def scored(self) -> bool:
        """Whether its base model is to be scored."""
        rounds = self.campaign.settings.rounds
        return is_scored(self.number, rounds, self.campaign.recipe.federation.evaluations)

    def staleness(self, digest: str) -> int:
        """Return how many steps old a base model is; see `base_age`."""
        settings = self.campaign.settings
        return base_age(digest, step=self.number, versions=self.versions, settings=settings)

    def usable(self, digest: str) -> bool:
        """Tell whether an update to this base model could still be taken into this step."""
        return self.staleness(digest) <= self.rule.max_staleness

    def ends_use_of(self, digest: str) -> bool:
        """Tell whether an update to this base model would be too old once the step is taken."""
        return self.staleness(digest) + 1 > self.rule.max_staleness


def open_step(
    link: Link, campaign: Campaign, buffer: UpdateBuffer, versions: Mapping[str, int]
) -> BufferedStep:
    """Return a step that begins, or goes on after an interruption.

    Parameters
    ----------
    link : Link
        The campaign's; the round's row is in the registry.
    campaign : Campaign
        With buffered rounds.
    buffer : UpdateBuffer
        With what was kept.
    versions : mapping of str to int
        By a base model's digest, how many steps had led to it.
    """
    told = link.registry.contributions(campaign.id)
    own = [c for c in told if c.round == buffer.step]
    base = next(d for d, version in versions.items() if version == buffer.step - 1)
    taken: dict[int, set[str]] = {number: set() for number in range(1, buffer.step)}
    for c in told:
        if c.outcome == "accepted" and c.round in taken:
            taken[c.round].add(c.site)
    evaluations = campaign.recipe.federation.evaluations
    scores = is_scored(buffer.step, campaign.settings.rounds, evaluations)
    return BufferedStep(
        campaign=campaign,
        buffer=buffer,
        base_digest=base,
        versions=versions,
        earlier=tuple(frozenset(taken[number]) for number in sorted(taken)),
        standing=Standing(own, attempts=campaign.settings.attempts),
        pace=SitePace(
            told,
            maximum=campaign.settings.round_deadline_seconds,
            alike=not (scores and evaluations > 0),
            since=campaign.settings.phase(buffer.step).first_round,
        ),
        scores=dict(buffer.scores(base)),
        caught={c.site for c in own if is_caught(c)},
    )


def turn_plan(step: BufferedStep, turn: Turn) -> RoundPlan:
    """Return the plan of a site's turn; the same turn gives the same plan, whenever it is."""
    campaign = step.campaign
    return round_plan(
        campaign,
        step.versions[turn.base_digest] + 1,
        purpose="train",
        recipe=campaign.recipe,
        base_digest=turn.base_digest,
        turn=turn,
    )


def record(link: Link, step: BufferedStep, request: SentRequest, answer: Answer) -> Contribution:
    """Write what became of a request into the registry, under the step in progress."""
    request = replace(request, attempt=step.standing.next_number(request.site))
    told = contribution_of(link, request, answer, number=step.number)
    link.registry.record_contribution(told)
    if is_caught(told):
        step.caught.add(told.site)
    logger.info(
        "contribution campaign=%s round=%d site=%s turn=%d outcome=%s code=%s",
        *(told.campaign, told.round, told.site, request.expected.plan.round),
        *(told.outcome, told.code),
    )
    return told
