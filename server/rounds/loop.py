"""The round loop: from a campaign's first model to a judged candidate.

Each round is one message to each site, which scores the model that it is given and trains it.
So the metrics of round r are of the model after round r - 1, and a last exchange scores the
final one.
"""

from __future__ import annotations

import logging

from common.errors import RoundFailed
from common.evaluation import Metrics
from common.tracing import Place, traced
from common.wire import pack_tensors
from server.evaluation import BySite, pooled_metrics
from server.model_store import ModelStore
from server.registry.records import Campaign, Candidate, RoundState, TrainablePhase
from server.rounds.aggregation import Aggregate, aggregate
from server.rounds.aggregation_spool import UpdateSpool
from server.rounds.checkpoints import Checkpoints
from server.rounds.control_variates import ControlVariates, SentCorrection, remove_variates
from server.rounds.descent_memory import DescentMemory
from server.rounds.exchange import Exchange
from server.rounds.exchange_records import Collected, Request
from server.rounds.final_candidate import make_candidate
from server.rounds.global_model import GlobalModel
from server.rounds.kept_answers import remove_answers
from server.rounds.link import Link
from server.rounds.loop_state import LoopState
from server.rounds.lost_rounds import (
    LOST_IN_A_ROW,
    give_up_updates,
    lost_sites,
    nothing_trained,
    rounds_lost,
)
from server.rounds.round_plans import round_plan
from server.rounds.scoring import note_scores, other_champion_scores
from server.rounds.update_checks import NormHistory
from server.rounds.update_intake import UpdateIntake

logger = logging.getLogger(__name__)


class CampaignPaused(Exception):
    """The campaign was to pause, and the round in progress is over."""


class CampaignRun:
    """One run of a campaign that the registry holds as running, from wherever it stands.

    Parameters
    ----------
    campaign : Campaign
        What to run.
    link : Link
        How to reach the sites.
    models : ModelStore
        Holds the first model, and gets the candidate.
    checkpoints : Checkpoints
        Of this campaign.
    """

    def __init__(
        self, campaign: Campaign, *, link: Link, models: ModelStore, checkpoints: Checkpoints
    ) -> None:
        self._campaign = campaign
        self._link = link
        self._registry = link.registry
        self._models = models
        self._checkpoints = checkpoints
        self._model = GlobalModel(campaign)
        self._norms = NormHistory()
        self._descent = DescentMemory(checkpoints.folder)
        scaffold = campaign.recipe.federation.algorithm == "scaffold"
        self._variates = ControlVariates(checkpoints.folder, campaign) if scaffold else None
        self._phase: TrainablePhase | None = None
        self._state = LoopState()

    def run(self) -> Candidate:
        """Run all rounds that are left, judge the result and record the candidate.

        Raises
        ------
        CampaignPaused
            After a round, if somebody asked for it meanwhile.
        RoundFailed
            With code ``quorum`` (the text says who is missing, and why), ``rounds-lost`` or
            ``aggregate-not-finite``; with ``campaign-lost``, if another one drives it now.
        StoreError
            If the registry or the disk failed.
        """
        try:
            # From the newest checkpoint, or the campaign's first model and the champion's scores.
            self._begin()
            # Round by round: ask the sites, aggregate, step, checkpoint.
            while not self._over():
                with traced("round", Place(self._campaign.id, self._state.done + 1)):
                    self._train(self._state.done + 1)
                self._pause_if_asked()
            if self._is_untrained():
                raise nothing_trained(self._registry, self._campaign.id, count=self._state.done)
            # Score the last model, judge it, and record it as the candidate.
            candidate = make_candidate(
                self._link, self._campaign, self._models, model=self._model, state=self._state
            )
            self._checkpoints.protect(candidate.model_digest)
            self._checkpoints.hold((), purpose="best")
            self._checkpoints.clear()
            remove_variates(self._checkpoints.folder)
            return candidate
        finally:
            self._descent.forget()

    def _begin(self) -> None:
        self._checkpoints.protect(self._campaign.initial_digest)
        newest = self._checkpoints.newest()
        if newest is None:
            self._model.weights = self._models.load(self._campaign.initial_digest)
            scores = other_champion_scores(
                self._link, self._campaign, self._models, self._model.downlink
            )
            self._state.champion = scores
            self._checkpoint()
            return
        self._model.restore(self._models.load(newest.digest), newest.state)
        if self._variates is not None:
            self._variates.restore(newest.state)
        self._state = LoopState.unpack(newest.state)
        self._norms.restore(self._state.norms)
        self._phase = self._campaign.settings.phase(self._state.done)
        self._checkpoints.hold(self._state.bests, purpose="best")
        self._state.former = None if self._state.best is None else self._state.best.digest
        if self._state.done:
            self._end_round(newest.digest)
        logger.info("resumed campaign=%s round=%d", self._campaign.id, self._state.done)

    def _over(self) -> bool:
        """Tell whether the last round, or an early stop, is reached."""
        patience = self._campaign.settings.early_stopping_rounds
        if 0 < patience <= self._state.stale:
            logger.info("stopped-early campaign=%s round=%d", self._campaign.id, self._state.done)
            return True
        return self._state.done >= self._campaign.settings.rounds

    def _is_untrained(self) -> bool:
        """Tell whether no round is left, and all were lost."""
        return self._over() and 0 < self._state.lost == self._state.done

    def _pause_if_asked(self) -> None:
        if self._registry.campaign(self._campaign.id).state == "pausing":
            raise CampaignPaused

    def _train(self, number: int) -> None:
        """Run one training round: collect, aggregate, step, checkpoint."""
        campaign, folder = self._campaign, self._checkpoints.folder
        self._enter_phase(number)
        base_digest = self._model.digest
        shapes = self._shapes(number)
        with UpdateSpool(folder, shapes) as spool:
            intake = UpdateIntake(folder, number, spool=spool, norms=self._norms)
            collected = self._collect(number, intake, base_digest)
            found = pooled_metrics(collected.evaluations, campaign.recipe.classes)
            if not collected.met:
                self._lose(number, collected, found, base_digest)
                return
            self._note(number, base_digest, collected.evaluations)
            aggregated = self._aggregate(spool, collected.refused)
            if self._variates is not None:
                self._variates.learn(spool, self._model.weights, number=number)
        self._registry.note_deviations(campaign.id, number, aggregated.deviations)
        self._model.step(aggregated.delta, number=number)
        self._state.done, self._state.metrics, self._state.lost = number, found, 0
        self._end_round(self._checkpoint())

    def _lose(
        self, number: int, collected: Collected, found: Metrics | None, base_digest: str
    ) -> None:
        """End a round that has no quorum: without a step, where it never will have one."""
        campaign, lost = self._campaign.id, lost_sites(collected)
        if not lost:
            self._registry.end_round(campaign, number, state="failed", metrics=found)
            raise self._quorum_missed(number, collected)
        logger.warning("round-lost campaign=%s round=%d sites=%s", campaign, number, ",".join(lost))
        if base_digest == self._campaign.initial_digest:
            self._note(number, base_digest, collected.evaluations)  # some of the release's scores
        self._state.done, self._state.metrics = number, found
        self._state.lost += 1
        self._end_round(self._checkpoint())
        in_a_row = self._state.lost
        if in_a_row % LOST_IN_A_ROW == 0 and not self._is_untrained():
            # Resumed, it may lose as many again.
            raise rounds_lost(campaign, number, lost, count=in_a_row)

    def _enter_phase(self, number: int) -> None:
        phase = self._campaign.settings.phase(number)
        if phase != self._phase:
            self._norms.forget()
            self._descent.forget()
            if self._variates is not None:
                self._variates.forget()
            self._phase = phase

    def _shapes(self, number: int) -> dict[str, tuple[int, ...]]:
        names = self._campaign.settings.phase(number).names
        return {name: self._model.weights[name].shape for name in names}

    def _collect(self, number: int, intake: UpdateIntake, base_digest: str) -> Collected:
        """Ask the sites to train; those whose answer was kept are not asked again."""
        campaign = self._campaign
        kept = intake.kept(base_digest)
        resumed = any(r.number == number for r in self._registry.rounds(campaign.id))
        self._registry.start_round(campaign.id, number, purpose="train", base_digest=base_digest)
        request = Request(
            number=number,
            plan=round_plan(
                campaign,
                number,
                purpose="train",
                recipe=campaign.recipe,
                base_digest=base_digest,
            ),
            tensors=pack_tensors(self._model.weights),
            shapes=self._shapes(number),
            quorum=campaign.settings.quorum,
            kept=kept,
            step=self._model.downlink.step_to(base_digest),
            resumed=resumed,
            correction=lambda site: self._correction(site, number),
        )
        return Exchange(self._link, request, intake.take).collect()

    def _note(self, number: int, digest: str, evaluations: BySite) -> None:
        best = note_scores(
            self._state, self._campaign, number, digest=digest, evaluations=evaluations
        )
        if best is not None:
            self._models.save(self._model.weights, digest=digest)
            self._checkpoints.hold(self._state.bests, purpose="best")

    def _aggregate(self, spool: UpdateSpool, refused: int) -> Aggregate:
        spec, climbing = self._campaign.aggregation, None
        if spec.name == "descent":
            weights = self._model.weights
            climbing = self._descent.judge(spool, weights, norm_multiple=spec.norm_multiple)
        return aggregate(spool, spec, refused=refused, climbing=climbing)

    def _correction(self, site: str, number: int) -> SentCorrection | None:
        if self._variates is None:
            return None
        return self._variates.correction(site, self._model.weights, number=number)

    def _checkpoint(self) -> str:
        """Make what is known so far durable; return the digest of the weights."""
        digest = self._model.digest
        self._state.norms = self._norms.norms
        memory = self._model.state() | self._state.pack()
        if self._variates is not None:
            memory |= self._variates.state()
        self._checkpoints.save(self._state.done, digest, self._model.weights, memory)
        self._checkpoints.hold(self._state.bests, purpose="best")
        self._state.former = None if self._state.best is None else self._state.best.digest
        if self._variates is not None:
            self._variates.prune()
        return digest

    def _end_round(self, digest: str) -> None:
        """Mark the newest round as ended, if it is not; sites' updates go with it."""
        number, campaign = self._state.done, self._campaign.id
        state: RoundState = "failed" if self._state.lost else "finished"
        found = [r for r in self._registry.rounds(campaign) if r.number == number]
        if [(r.state, r.aggregate_digest) for r in found] != [(state, digest)]:
            if self._state.lost:
                give_up_updates(self._registry, campaign, number)
            self._registry.end_round(
                campaign, number, state=state, aggregate_digest=digest, metrics=self._state.metrics
            )
        remove_answers(self._checkpoints.folder, through=number)

    def _quorum_missed(self, number: int, collected: Collected) -> RoundFailed:
        return RoundFailed(
            f"Round {number} of campaign {self._campaign.id}: {collected.why_not()}",
            meaning="Nothing was released, and the model of the round before is kept.",
            action="See to the sites that are named, then resume the campaign.",
            code="quorum",
        )
