"""Having models scored by the sites: the champion first, then the newest, the last at the end."""

from __future__ import annotations

import logging

from common.errors import RoundFailed
from common.recipe import Recipe
from common.update import Tensors, tensors_digest
from common.wire import pack_tensors
from server.evaluation import BySite, compared, on_common_sites, pooled_metrics
from server.model_store import ModelStore
from server.outcome_reasons import PLAN_LATE
from server.registry.champions import CHAMPION_ROUND
from server.registry.records import Campaign, RoundState
from server.rounds.downlink import DownLink
from server.rounds.exchange import NOT_CONNECTED, Exchange
from server.rounds.exchange_records import Collected, Request
from server.rounds.link import Link
from server.rounds.loop_state import LoopState, Scored
from server.rounds.round_plans import round_plan

logger = logging.getLogger(__name__)

OUTAGES = frozenset(
    {NOT_CONNECTED, PLAN_LATE, "deadline", "not-delivered", "reply-lost", "site-unreachable"}
)
"""Faults of the way to a site: it said nothing of the round, and may when it is asked again."""


def evaluate_at_sites(
    link: Link,
    campaign: Campaign,
    number: int,
    *,
    recipe: Recipe,
    tensors: Tensors,
    downlink: DownLink,
) -> BySite:
    """Have a model scored; fewer sites than wished are the gate's business.

    So the exchange has failed only where a site that was asked did not answer well, or nobody did.

    Raises
    ------
    RoundFailed
        With code ``quorum``, where an outage left fewer than the campaign's quorum, which the
        sites that said nothing could have made: no verdict on a model may come of that, and
        resumed, the campaign has the model scored again.
    """
    digest = tensors_digest(tensors)
    quorum = _wished_sites(link, campaign)
    link.registry.start_round(campaign.id, number, purpose="evaluate", base_digest=digest)
    plan = round_plan(campaign, number, purpose="evaluate", recipe=recipe, base_digest=digest)
    step = downlink.step_to(digest)
    request = Request(number, plan, pack_tensors(tensors), {}, quorum, step=step)
    collected = Exchange(link, request, lambda *_: None).collect()
    found = pooled_metrics(collected.evaluations, recipe.classes)
    unharmed = bool(collected.accepted) and set(collected.faults.values()) <= {NOT_CONNECTED}
    state: RoundState = "finished" if collected.met or unharmed else "failed"
    link.registry.end_round(campaign.id, number, state=state, metrics=found)
    if not collected.met:
        logger.warning("evaluation-incomplete round=%d %s", number, collected.why_not())
    if _is_outage(link, campaign, collected):
        raise RoundFailed(
            f"Round {number} of campaign {campaign.id}, which scores a model: "
            f"{collected.why_not()}",
            meaning="The model was not judged, and nothing that was trained is lost.",
            action="See to the sites that are named, then resume the campaign.",
            code="quorum",
        )
    return collected.evaluations


def _is_outage(link: Link, campaign: Campaign, collected: Collected) -> bool:
    """Tell whether sites that said nothing are what a quorum lacks; a refusal stands all the same.

    What each of them would have answered is not known, so it is enough that they could have.
    """
    needed, faults = _of_reachable(link, campaign.settings.quorum), collected.faults
    answered = len(collected.accepted)
    silent = sum(code in OUTAGES for code in faults.values())
    return answered < needed and (silent == len(faults) or answered + silent >= needed)


def _wished_sites(link: Link, campaign: Campaign) -> int:
    """Return how many sites are waited for: those that the gate will ask for, if there are any."""
    return _of_reachable(link, max(campaign.settings.quorum, campaign.limits.minimum_sites))


def _of_reachable(link: Link, wished: int) -> int:
    reachable = link.directory.reachable()
    return wished if reachable is None else max(1, min(wished, len(reachable)))


def other_champion_scores(
    link: Link, campaign: Campaign, models: ModelStore, downlink: DownLink
) -> BySite | None:
    """Score a current release that this campaign does not start from, for the gate."""
    champion = link.registry.champion(campaign.recipe.name)
    if champion is None or campaign.base_release is not None:
        return None
    recipe = champion.manifest.recipe
    if recipe.classes != campaign.recipe.classes:
        return {}  # a champion that cannot be compared keeps the gate shut
    tensors = models.load(champion.model_digest)
    return evaluate_at_sites(
        link, campaign, CHAMPION_ROUND, recipe=recipe, tensors=tensors, downlink=downlink
    )


def note_scores(
    state: LoopState, campaign: Campaign, number: int, *, digest: str, evaluations: BySite
) -> Scored | None:
    """Remember a round's scores, which are of its base model.

    Until the first step that is the current release, where the campaign starts from it. Rounds
    that end without a step may have it scored by some sites each; what they told adds up.

    A base that a quorum scored, but too few of them scored the best one, too, takes its place:
    the best would else be whatever the sites that are gone had scored, for all rounds that follow.

    Returns
    -------
    Scored or None
        The base, where rounds are compared with it from now on and early stopping asks for that:
        its weights are to be kept.
    """
    first = number == 1 or digest == campaign.initial_digest
    if first and campaign.base_release is not None:
        state.champion = {**(state.champion or {}), **evaluations}
    if campaign.settings.early_stopping_rounds == 0:
        return None
    if first:  # the model that the campaign started from is not a result of it
        return None
    if gain(evaluations, evaluations, campaign) is None:  # nothing can be compared with it
        return None
    gained = None if state.best is None else gain(evaluations, state.best.evaluations, campaign)
    if gained is not None and gained <= 0:
        state.stale += 1
        return None
    if gained is not None:
        state.stale = 0
    state.best = Scored(digest=digest, evaluations=dict(evaluations))
    return state.best


def gain(new: BySite, old: BySite, campaign: Campaign) -> float | None:
    """Return by how much a model's pooled macro AUROC is above another's.

    On the sites alone that scored both: hospitals differ by more than rounds do, and a model that
    fails at one looks better wherever that one is missing. Over the classes that both have an
    AUROC for alone, for the same reason. None where fewer than a quorum scored both, or the other
    has a class that the new one lacks.
    """
    here, there = on_common_sites(new, old)
    if len(here) < campaign.settings.quorum:
        return None
    found = compared(here, there, campaign.recipe.classes)
    return None if found.new is None or found.old is None else found.new - found.old
