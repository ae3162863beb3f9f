"""The end of a campaign: its last model scored, judged, and recorded as the candidate."""

from __future__ import annotations

from server.candidates import record_candidate
from server.evaluation import pooled_metrics
from server.model_store import ModelStore
from server.registry.records import Campaign, Candidate
from server.release_gate import Evidence
from server.rounds.global_model import GlobalModel
from server.rounds.link import Link
from server.rounds.loop_state import LoopState
from server.rounds.scoring import evaluate_at_sites


def make_candidate(
    link: Link,
    campaign: Campaign,
    models: ModelStore,
    *,
    model: GlobalModel,
    state: LoopState,
) -> Candidate:
    """Score the last model, take the best one where rounds stopped early, and judge it.

    Where layers stay at the sites, the rounds' scores are of models with each site's own, which
    nobody releases. What is judged then is scored as it would be released (ADR 0013), so which
    model that is, is decided before: the best one where rounds stopped early, else the last.

    Raises
    ------
    RoundFailed
        With code ``campaign-lost``, if another ServerApp drives the campaign now.
    StoreError
        If the registry or the disk failed.
    """
    recipe, final, best = campaign.recipe, campaign.settings.rounds + 1, state.best
    weights = model.averaged()
    local = bool(recipe.federation.local_layers)
    if local and best is not None and state.done < campaign.settings.rounds:
        weights = models.load(best.digest)
    evaluations = evaluate_at_sites(
        link, campaign, final, recipe=recipe, tensors=weights, downlink=model.downlink
    )
    found = pooled_metrics(evaluations, recipe.classes).macro_auroc
    if not local and best is not None and (found is None or found < best.macro_auroc):
        weights, evaluations = models.load(best.digest), best.evaluations
    digest = models.save(weights)
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
        base=models.load(campaign.initial_digest),
    )
    return record_candidate(
        link.registry, campaign, evidence, model_digest=digest, rounds=state.done
    )
