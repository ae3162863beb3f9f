"""The round loop: from a campaign's first model to a judged candidate.

Each round is one message to each site, which scores the model that it is given and trains it.
So the metrics of round r are of the model after round r - 1, and a last exchange scores the
final one.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from common.errors import RoundFailed, UpdateRefused
from common.plan import PrivacyRequest, RoundPlan
from common.recipe import Recipe
from common.records import Receipt, SiteReply
from common.update import Tensors, tensors_digest
from common.wire import Content, pack_tensors
from server.candidates import record_candidate
from server.evaluation import BySite, pooled_metrics
from server.model_store import ModelStore
from server.registry.records import Campaign, Candidate, Purpose, RoundState, TrainablePhase
from server.release_gate import Evidence
from server.rounds.aggregation import Aggregate, aggregate
from server.rounds.aggregation_spool import UpdateSpool
from server.rounds.checkpoints import Checkpoints
from server.rounds.descent_memory import DescentMemory
from server.rounds.downlink import DownLink
from server.rounds.exchange import Exchange, Link, Take
from server.rounds.exchange_records import Collected, Request
from server.rounds.kept_answers import AnswerHeader, KeptAnswers, remove_answers
from server.rounds.loop_state import LoopState, Scored
from server.rounds.update_checks import Expected, NormHistory, check_update
from server.strategy.averaging import WeightAverage
from server.strategy.optimizers import choose_optimizer

logger = logging.getLogger(__name__)

CHAMPION_ROUND = 0
"""Number, in the registry, of the exchange that scores a champion of another architecture."""

_NO_NONCE = "0" * 64


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
        rounds = campaign.settings.rounds
        spec = campaign.server_optimizer
        self._optimizer = choose_optimizer(spec, campaign.training, rounds=rounds)
        self._average = WeightAverage(spec.ema_decay)
        self._downlink = DownLink(campaign.recipe.federation.compression)
        self._norms = NormHistory()
        self._descent = DescentMemory(checkpoints.folder)
        self._weights: dict[str, NDArray[np.generic]] = {}
        self._phase: TrainablePhase | None = None
        self._state = LoopState()

    def run(self) -> Candidate:
        """Run all rounds that are left, judge the result and record the candidate.

        Raises
        ------
        CampaignPaused
            After a round, if somebody asked for it meanwhile.
        RoundFailed
            With code ``quorum`` (the text says who is missing, and why), or
            ``aggregate-not-finite``; with ``campaign-lost``, if another one drives it now.
        StoreError
            If the registry or the disk failed.
        """
        try:
            # From the newest checkpoint, or the campaign's first model and the champion's scores.
            self._begin()
            # Round by round: ask the sites, aggregate, step, checkpoint.
            while not self._over():
                self._train(self._state.done + 1)
                self._pause_if_asked()
            # Score the last model, judge it, and record it as the candidate.
            return self._finish()
        finally:
            self._descent.forget()

    def _begin(self) -> None:
        self._checkpoints.protect(self._campaign.initial_digest)
        newest = self._checkpoints.newest()
        if newest is None:
            self._weights = self._models.load(self._campaign.initial_digest)
            self._score_other_champion()
            self._checkpoint()
            return
        self._weights = self._models.load(newest.digest)
        self._optimizer.restore(newest.state)
        self._average.restore(newest.state)
        self._downlink.restore(newest.state)
        self._state = LoopState.unpack(newest.state)
        self._norms.restore(self._state.norms)
        self._phase = self._campaign.settings.phase(self._state.done)
        if self._state.best is not None:
            self._checkpoints.protect(self._state.best.digest)
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

    def _pause_if_asked(self) -> None:
        if self._registry.campaign(self._campaign.id).state == "pausing":
            raise CampaignPaused

    def _train(self, number: int) -> None:
        """Run one training round: collect, aggregate, step, checkpoint."""
        phase = self._campaign.settings.phase(number)
        if phase != self._phase:
            self._norms.forget()
            self._descent.forget()
            self._phase = phase
        base_digest = tensors_digest(self._weights)
        shapes = {name: self._weights[name].shape for name in phase.names}
        with UpdateSpool(self._checkpoints.folder, shapes) as spool:
            collected, refused = self._collect_updates(number, spool, base_digest)
            found = pooled_metrics(collected.evaluations, self._campaign.recipe.classes)
            if not collected.met:
                self._registry.end_round(self._campaign.id, number, state="failed", metrics=found)
                raise self._quorum_missed(number, collected)
            self._note(number, base_digest, collected.evaluations, found.macro_auroc)
            aggregated = self._aggregate(spool, refused)
        self._registry.note_deviations(self._campaign.id, number, aggregated.deviations)
        self._weights = self._step(aggregated, number)
        self._state.done, self._state.metrics = number, found
        self._end_round(self._checkpoint())

    def _checkpoint(self) -> str:
        """Make what is known so far durable; return the digest of the weights."""
        digest = tensors_digest(self._weights)
        self._state.norms = self._norms.norms
        memory = self._optimizer.state() | self._average.state() | self._state.pack()
        memory |= self._downlink.state()
        self._checkpoints.save(self._state.done, digest, self._weights, memory)
        return digest

    def _end_round(self, digest: str) -> None:
        """Mark the newest round as finished, if it is not; sites' updates go with it."""
        number, campaign = self._state.done, self._campaign.id
        found = [r for r in self._registry.rounds(campaign) if r.number == number]
        if [r.state for r in found] != ["finished"]:
            self._registry.end_round(
                campaign, number, aggregate_digest=digest, metrics=self._state.metrics
            )
        remove_answers(self._checkpoints.folder, through=number)

    def _aggregate(self, spool: UpdateSpool, refused: int) -> Aggregate:
        spec, climbing = self._campaign.aggregation, None
        if spec.name == "descent":
            climbing = self._descent.judge(spool, self._weights, norm_multiple=spec.norm_multiple)
        return aggregate(spool, spec, refused=refused, climbing=climbing)

    def _collect_updates(
        self, number: int, spool: UpdateSpool, base_digest: str
    ) -> tuple[Collected, int]:
        """Ask the sites to train; what is accepted goes to disk, what is not is counted."""
        refused: set[str] = set()
        answers = KeptAnswers(self._checkpoints.folder, number)
        kept: list[AnswerHeader] = []
        for answer in answers.read(base_digest):
            told = answer.header
            spool.add(told.site, answer.delta, weight=told.receipt.public_patients, norm=told.norm)
            self._norms.add(told.norm)
            kept.append(told)

        def take(reply: SiteReply, receipt: Receipt, expected: Expected, came: Content) -> float:
            refused.add(expected.site)
            norm = check_update(reply.update, receipt, expected, self._norms)
            if reply.update is None:  # check_update refuses that; this is for the type checker
                raise UpdateRefused("A reply has no update.", code="update-missing")
            tensors = reply.update.tensors
            told = AnswerHeader(
                site=expected.site,
                norm=norm,
                receipt=receipt,
                evaluation=reply.evaluation,
                digest=reply.update.digest,
                bytes=came.bytes,
                sha256=came.sha256,
            )
            answers.keep(told, tensors)
            spool.add(expected.site, tensors, weight=receipt.public_patients, norm=norm)
            refused.remove(expected.site)
            return norm

        recipe, weights = self._campaign.recipe, self._weights
        collected = self._exchange(number, "train", recipe, weights, take, kept=tuple(kept))
        return collected, len(refused)

    def _step(self, aggregated: Aggregate, number: int) -> dict[str, NDArray[np.generic]]:
        weights = self._optimizer.step(self._weights, aggregated.delta, number=number)
        floating = (a for a in weights.values() if np.issubdtype(a.dtype, np.floating))
        if not all(np.isfinite(array).all() for array in floating):
            raise RoundFailed(
                f"The model is not finite after round {number}.",
                meaning="Training diverged.",
                action="Start a campaign with a lower learning rate.",
                code="aggregate-not-finite",
            )
        weights = self._downlink.advance(self._weights, weights, number=number)
        self._average.update(weights)
        return weights

    def _note(
        self, number: int, digest: str, evaluations: BySite, macro_auroc: float | None
    ) -> None:
        """Remember the champion's scores, and the best model for early stopping."""
        if number == 1 and self._campaign.base_release is not None:
            self._state.champion = evaluations
        if self._campaign.settings.early_stopping_rounds == 0 or macro_auroc is None:
            return
        if number == 1:  # the model that the campaign started from is not a result of it
            return
        best = self._state.best
        if best is not None and macro_auroc <= best.macro_auroc:
            self._state.stale += 1
            return
        self._state.stale = 0
        self._state.best = Scored(
            digest=digest, evaluations=dict(evaluations), macro_auroc=macro_auroc
        )
        self._models.save(self._weights, digest=digest)
        self._checkpoints.protect(digest)

    def _score_other_champion(self) -> None:
        """Score a current release that this campaign does not start from, for the gate."""
        champion = self._registry.champion(self._campaign.recipe.name)
        if champion is None or self._campaign.base_release is not None:
            return
        recipe = champion.manifest.recipe
        self._state.champion = {}  # a champion that cannot be compared keeps the gate shut
        if recipe.classes == self._campaign.recipe.classes:
            tensors = self._models.load(champion.model_digest)
            self._state.champion = self._evaluate(CHAMPION_ROUND, recipe, tensors)

    def _evaluate(self, number: int, recipe: Recipe, tensors: Tensors) -> BySite:
        """Have a model scored; fewer sites than wished are the gate's business."""
        collected = self._exchange(number, "evaluate", recipe, tensors, lambda *_: None)
        found = pooled_metrics(collected.evaluations, recipe.classes)
        state: RoundState = "finished" if collected.met else "failed"
        self._registry.end_round(self._campaign.id, number, state=state, metrics=found)
        if not collected.met:
            logger.warning("evaluation-incomplete round=%d %s", number, collected.why_not())
        return collected.evaluations

    def _exchange(
        self,
        number: int,
        purpose: Purpose,
        recipe: Recipe,
        tensors: Tensors,
        take: Take,
        *,
        kept: tuple[AnswerHeader, ...] = (),
    ) -> Collected:
        settings, training = self._campaign.settings, self._campaign.training
        phase = settings.phase(number)
        within = min(max(number, 1), settings.rounds)
        digest = tensors_digest(tensors)
        plan = RoundPlan(
            purpose=purpose,
            campaign=self._campaign.id,
            round=within,
            rounds=settings.rounds,
            nonce=_NO_NONCE,
            base_digest=digest,
            recipe=recipe,
            training=training,
            trainable=phase.scope,
            privacy=PrivacyRequest(
                epsilon=settings.epsilon,
                max_grad_norm=recipe.privacy.max_grad_norm,
                augmentation_multiplicity=recipe.privacy.augmentation_multiplicity,
            ),
            evaluate=_is_scored(within, settings.rounds, recipe.federation.evaluations),
            steps_before=(within - 1) * training.local_steps,
            issued_at=0,
            expires_at=1,
        )
        train = purpose == "train"
        shapes = {name: tensors[name].shape for name in phase.names} if train else {}
        quorum = settings.quorum if train else max(settings.quorum, recipe.release.minimum_sites)
        self._registry.start_round(self._campaign.id, number, purpose=purpose, base_digest=digest)
        step = self._downlink.step_to(digest)
        request = Request(number, plan, pack_tensors(tensors), shapes, quorum, kept, step)
        return Exchange(self._link, request, take).collect()

    def _quorum_missed(self, number: int, collected: Collected) -> RoundFailed:
        return RoundFailed(
            f"Round {number} of campaign {self._campaign.id}: {collected.why_not()}",
            meaning="Nothing was released, and the model of the round before is kept.",
            action="See to the sites that are named, then resume the campaign.",
            code="quorum",
        )

    def _finish(self) -> Candidate:
        best = self._state.best
        weights = self._average.weights(self._weights)
        final = self._campaign.settings.rounds + 1
        evaluations = self._evaluate(final, self._campaign.recipe, weights)
        found = pooled_metrics(evaluations, self._campaign.recipe.classes).macro_auroc
        if best is not None and (found is None or found < best.macro_auroc):
            weights, evaluations = self._models.load(best.digest), best.evaluations
        digest = self._models.save(weights)
        self._checkpoints.protect(digest)
        contributions = self._registry.contributions(self._campaign.id)
        evidence = Evidence(
            recipe=self._campaign.recipe,
            epsilon=self._campaign.settings.epsilon,
            tensors=weights,
            candidate=evaluations,
            champion=self._state.champion,
            accepted=tuple(
                c for c in contributions if c.outcome == "accepted" and 0 < c.round < final
            ),
            base=self._models.load(self._campaign.initial_digest),
        )
        candidate = record_candidate(
            self._registry, self._campaign, evidence, model_digest=digest, rounds=self._state.done
        )
        self._checkpoints.clear()
        return candidate


def _is_scored(number: int, rounds: int, evaluations: int) -> bool:
    """Tell whether round ``number`` is among the first and ``evaluations`` evenly spread ones."""
    if number == 1 or evaluations == 0:
        return True
    return number * evaluations // rounds > (number - 1) * evaluations // rounds
