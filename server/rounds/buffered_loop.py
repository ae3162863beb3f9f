"""Buffered rounds: the model moves after every few updates, and no site waits for another.

FedBuff (Nguyen et al. 2022, arXiv:2106.06639, algorithm 1): each update is the way from the model
that its site was given, shortened by 1 / sqrt(1 + staleness), and a full buffer is one step of
the server's optimizer. A round, in the registry and to whoever reads it, is such a step. A site's
own rounds are its turns (`server.rounds.turns`).
"""

from __future__ import annotations

import logging

from common.errors import RoundFailed
from server.evaluation import pooled_metrics
from server.model_store import ModelStore
from server.registry.records import Campaign, Candidate
from server.rounds.aggregation import aggregate
from server.rounds.aggregation_spool import UpdateSpool
from server.rounds.buffer_recovery import leave_over, recover
from server.rounds.buffered_exchange import BufferedExchange
from server.rounds.buffered_requests import USED_UP, BufferedRequests
from server.rounds.buffered_step import BufferedStep, open_step
from server.rounds.checkpoints import Checkpoints
from server.rounds.link import Link
from server.rounds.loop import CampaignRun
from server.rounds.staleness import base_age, model_versions
from server.rounds.turns import Turn, Turns
from server.rounds.update_buffer import UpdateBuffer

logger = logging.getLogger(__name__)


class BufferedRun(CampaignRun):
    """A run of a campaign whose rounds are buffered; see `CampaignRun`."""

    def __init__(
        self, campaign: Campaign, *, link: Link, models: ModelStore, checkpoints: Checkpoints
    ) -> None:
        super().__init__(campaign, link=link, models=models, checkpoints=checkpoints)
        self._turns = Turns(checkpoints.folder)
        requests = BufferedRequests(
            link, model=self._model, models=models, checkpoints=checkpoints, turns=self._turns
        )
        self._exchange = BufferedExchange(link, requests)
        self._used_up = False
        self._met = False

    def run(self) -> Candidate:
        """Run as `CampaignRun` does; what the sites were asked last goes with the campaign."""
        candidate = super().run()
        self._checkpoints.hold((), purpose="turns")
        self._turns.remove()
        return candidate

    def _begin(self) -> None:
        super()._begin()
        self._checkpoints.hold(self._turns.bases(), purpose="turns")
        for told in self._registry.contributions(self._campaign.id):
            if not 1 <= told.round <= self._campaign.settings.rounds:
                continue  # a scoring, which is no site's turn
            receipt = told.receipt
            known = self._turns.of(told.site)
            if receipt is None or (known is not None and known.number >= receipt.round):
                continue
            # The file is gone: what was answered is known all the same.
            turn = Turn(number=receipt.round, base_digest=receipt.base_digest, evaluate=False)
            self._turns.begin(told.site, turn.model_copy(update={"state": "answered"}))

    def _over(self) -> bool:
        return self._used_up or super()._over()

    def _train(self, number: int) -> None:
        """Take one step: fill the buffer, aggregate, move the model, checkpoint."""
        campaign = self._campaign
        self._enter_phase(number)
        self._registry.start_round(
            campaign.id, number, purpose="train", base_digest=self._model.digest
        )
        step = self._open(number)
        filled = self._wait_for_quorum() and self._exchange.fill(step)
        if filled or self._end_without(step):
            self._take(step)

    def _open(self, number: int) -> BufferedStep:
        campaign, settings = self._campaign, self._campaign.settings
        assert settings.buffer is not None
        versions = model_versions(self._registry.rounds(campaign.id))
        buffer = UpdateBuffer(
            self._checkpoints.folder,
            number,
            norms=self._norms,
            staleness=lambda d: base_age(d, step=number, versions=versions, settings=settings),
            limit=settings.buffer.max_staleness,
        )
        step = open_step(self._link, campaign, buffer, versions)
        recover(self._link, step, self._turns)
        return step

    def _wait_for_quorum(self) -> bool:
        """Wait once a run for a quorum to be connected: nobody is to spend privacy for nothing."""
        if self._met:
            return True
        quorum = self._campaign.settings.quorum
        found = self._link.directory.wait(
            lambda connected: len(connected) >= quorum,
            everyone=False,
            seconds=self._campaign.settings.site_wait_seconds,
        )
        self._met = len(found) >= quorum
        return self._met

    def _end_without(self, step: BufferedStep) -> bool:
        """Tell whether what there is makes a last step, where the sites' own rounds are used up.

        Raises
        ------
        RoundFailed
            With code ``quorum``: it fails closed.
        """
        steps, rule = self._campaign.settings.rounds, step.rule
        whole = rule.lacking(steps, step.buffer.sites, step.earlier) == 0
        self._used_up = USED_UP in step.standing.faults.values()
        if self._used_up and whole:
            return True
        self._registry.end_round(self._campaign.id, step.number, state="failed")
        if not self._used_up or not rule.held(step.earlier):
            raise self._step_missed(step)
        leave_over(self._link, step)
        logger.info("rounds-used-up campaign=%s round=%d", self._campaign.id, step.number)
        return False

    def _take(self, step: BufferedStep) -> None:
        campaign, number, folder = self._campaign, step.number, self._checkpoints.folder
        found = pooled_metrics(step.scores, campaign.recipe.classes)
        self._note_step(step)
        with UpdateSpool(folder, self._shapes(number)) as spool:
            step.buffer.spool_into(spool)
            aggregated = aggregate(spool, campaign.aggregation, refused=step.refused)
        self._registry.note_deviations(campaign.id, number, aggregated.deviations)
        self._model.step(aggregated.delta, number=number)
        self._state.done, self._state.metrics = number, found
        self._end_round(self._checkpoint())
        logger.info(
            "step campaign=%s round=%d updates=%d sites=%d",
            *(campaign.id, number, len(step.buffer.headers), len(set(step.buffer.sites))),
        )
        if self._over():
            self._exchange.close(step)

    def _note_step(self, step: BufferedStep) -> None:
        """Remember the champion's scores, however late they come, and the best model."""
        campaign = self._campaign
        if campaign.base_release is not None:
            told = dict(step.buffer.scores(campaign.initial_digest))
            if step.number == 1:
                told |= step.scores
            # Also where nobody told anything: no scores keep the gate shut, no champion opens it.
            self._state.champion = {**(self._state.champion or {}), **told}
        if step.number > 1:
            self._note(step.number, step.base_digest, step.scores)

    def _step_missed(self, step: BufferedStep) -> RoundFailed:
        rule, sites = step.rule, step.buffer.sites
        lacking = rule.lacking(step.number, sites, step.earlier)
        faults = ", ".join(f"{s} ({code})" for s, code in sorted(step.standing.faults.items()))
        return RoundFailed(
            f"Round {step.number} of campaign {self._campaign.id}: {len(sites)} of the "
            f"{rule.size} updates that a step needs came, of {len(set(sites))} different sites; "
            f"{lacking} more sites are needed for a quorum of {rule.quorum} in {rule.window} "
            f"steps; missing: {faults or 'no other site is connected'}.",
            meaning="The step was not taken, and the model of the one before is kept.",
            action="Start a campaign with more `site_rounds`."
            if self._used_up
            else "See to the sites that are named, then resume the campaign.",
            code="quorum",
        )
