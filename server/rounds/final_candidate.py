"""The end of a campaign: its last or best model scored, judged, recorded as the candidate."""

from __future__ import annotations

from common.update import Tensors, tensors_digest
from server.candidates import record_candidate
from server.evaluation import BySite
from server.model_store import ModelStore
from server.registry.records import Campaign, Candidate
from server.release_gate import Evidence
from server.rounds.global_model import GlobalModel
from server.rounds.link import Link
from server.rounds.loop_state import LoopState
from server.rounds.scoring import evaluate_at_sites, gain


def make_candidate(
    link: Link,
    campaign: Campaign,
    models: ModelStore,
    *,
    model: GlobalModel,
    state: LoopState,
) -> Candidate:
    """Score the last model, and the best one of the rounds if that did better; judge and record it.

    Whatever is judged was scored by itself, in an exchange of its own: a training round's scores
    lack the sites that missed that round. They only say whether the best one is worth that
    exchange; the two exchanges say which is taken, and the last is where they say nothing.

    Where layers stay at the sites, the rounds' scores are of models with each site's own, which
    nobody releases (ADR 0013). They cannot be compared with the last model's, so which model is
    scored is decided before: the best one where rounds stopped early, else the last.

    Each scoring counts at the sites. So what the disk has to give and to take is seen to before the
    first one; but the best model is read when it is needed, as mostly it is not.

    Raises
    ------
    RoundFailed
        With code ``campaign-lost``, if another ServerApp drives the campaign now; with ``quorum``,
        if too few sites could be reached to score a model: resumed, both are scored again. To
        keep the last would refuse for good what was trained, where it is the one that got worse.
    StoreError
        If the registry or the disk failed.
    """
    recipe, final, best = campaign.recipe, campaign.settings.rounds + 1, state.best
    weights = model.averaged()
    local = bool(recipe.federation.local_layers)
    if local and best is not None and state.done < campaign.settings.rounds:
        weights = models.load(best.digest)
    digest = tensors_digest(weights)
    fresh = digest not in models  # an average, which no checkpoint names
    models.save(weights, digest=digest)
    first = models.load(campaign.initial_digest)

    def score(number: int, tensors: Tensors) -> BySite:
        return evaluate_at_sites(
            link, campaign, number, recipe=recipe, tensors=tensors, downlink=model.downlink
        )

    evaluations = score(final, weights)
    if not local and best is not None:
        gained = gain(evaluations, best.evaluations, campaign)
        if gained is None or gained < 0:
            rival = models.load(best.digest)
            anew = score(final + 1, rival)
            if _is_better(anew, evaluations, campaign):
                if fresh:
                    models.remove(digest)
                weights, evaluations, digest = rival, anew, best.digest
    contributions = link.registry.contributions(campaign.id)
    champion = state.champion
    if champion is None and campaign.base_release is not None:
        champion = {}  # a release that nobody has scored keeps the gate shut
    evidence = Evidence(
        recipe=recipe,
        epsilon=campaign.settings.epsilon,
        tensors=weights,
        candidate=evaluations,
        champion=champion,
        accepted=tuple(c for c in contributions if c.outcome == "accepted" and 0 < c.round < final),
        base=first,
    )
    lost = sum(r.code is not None for r in link.registry.rounds(campaign.id))
    return record_candidate(
        link.registry, campaign, evidence, model_digest=digest, rounds=state.done - lost
    )


def _is_better(best: BySite, last: BySite, campaign: Campaign) -> bool:
    """Tell whether the best model goes to the gate instead of the last, as both were scored now.

    Not one that fewer sites scored: the gate counts them, and what it does at the others is not
    known. It goes there without a comparison only where a quorum scored it, and not the last.
    """
    quorum, scorers = campaign.settings.quorum, len(_told(best))
    if scorers >= quorum > len(_told(last)):
        return True
    gained = gain(best, last, campaign)
    return gained is not None and gained > 0 and scorers >= len(_told(last))


def _told(evaluations: BySite) -> set[str]:
    return {site for site, one in evaluations.items() if one.cases}
