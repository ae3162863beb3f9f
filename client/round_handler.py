"""One round at one site, from the signed plan to the reply; it knows nothing of Flower.

Nothing leaves but the reply: an update, a receipt, and holdout counts where the policy releases
them; or a refusal, which is a code without any text.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from client.cases.transactions import CASES_LOCK, Transactions
from client.kept_reply import keep_reply, kept_reply
from client.plan_keys import read_plan_keys
from client.plan_memory import Limits
from client.policy import SitePolicy
from client.privacy.forecast import forecast_plan, round_budget, round_request
from client.privacy.ledger import PrivacyLedger
from client.privacy.ledger_lines import LedgerLine
from client.privacy.self_test import ensure_gradients
from client.round_task import (
    RoundTask,
    WithdrawnMeanwhile,
    forget_withdrawn,
    keep_layers,
    prepare_task,
    refuse_withdrawn,
    round_receipt,
)
from client.scores_told import forecast_scores
from client.settings import SiteSettings
from client.site_recipes import own_recipe
from client.site_records import SiteRecords
from client.site_status import site_status
from client.training import PrivateStep, Trained, train_plain, train_private
from client.training.evaluation import count_holdout, predict
from client.unfinished_withdrawals import finish_withdrawals
from client.update_feedback import compress_update
from client.withdrawn_mark import withdrawn_now
from common.audit_entries import PlanAccepted
from common.compression import Packed
from common.errors import CaseRefused, PlanRefused, WardroundError
from common.evaluation import SiteEvaluation
from common.plan import RoundPlan, SignedPlan, verify_plan
from common.records import Refusal, SiteReply
from common.refusals import INTERNAL_ERROR, OUT_OF_MEMORY, outward_code
from common.update import ModelUpdate, Tensors, UpdateBinding, difference, tensors_digest

logger = logging.getLogger(__name__)


class RoundHandler:
    """Answers round plans for one site.

    Parameters
    ----------
    settings : SiteSettings
        The site.
    clock : callable, optional
        Returns UTC seconds since 1970; for tests.
    self_test : callable, optional
        As `client.privacy.self_test.ensure_gradients`; for tests.
    """

    def __init__(
        self,
        settings: SiteSettings,
        *,
        clock: Callable[[], float] = time.time,
        self_test: Callable[..., None] = ensure_gradients,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._self_test = self_test

    def handle(
        self, signed: SignedPlan, base: Tensors, correction: Packed | None = None
    ) -> SiteReply:
        """Answer a plan; never raises, but for the end of the process.

        Parameters
        ----------
        signed : SignedPlan
            As it came.
        base : mapping of str to ndarray
            The whole model that the plan speaks of.
        correction : Packed, optional
            What came with it to be added to the gradients (SCAFFOLD).
        """
        try:
            return self._answer(signed, base, correction)
        except Exception as error:  # the edge: no text of an exception leaves the site
            code = refusal_code(error)
            known = isinstance(error, WardroundError)
            logger.warning(
                "round-refused code=%s reason=%s", code, error if known else type(error).__name__
            )
            if not known:
                logger.debug("round-refused traceback", exc_info=True)
            return SiteReply(site=self._settings.name, refusal=Refusal(code=code))

    def _answer(self, signed: SignedPlan, base: Tensors, correction: Packed | None) -> SiteReply:
        started = time.perf_counter()
        now = self._clock()
        plan = verify_plan(signed, read_plan_keys(self._settings), now=now)
        policy = SitePolicy.read(self._settings.policy)
        policy.check(plan, own=own_recipe(self._settings, plan.recipe.name), now=now)
        if tensors_digest(base) != plan.base_digest:
            raise PlanRefused("The base model is not the plan's.", code="plan-base-mismatch")
        limits = Limits(policy.rounds_per_day, policy.evaluations_per_day)
        with SiteRecords.open(self._settings) as records:
            accepted = records.plans.accept(plan, limits, now=now)
            records.audit.append(_accepted(plan, signed))
            if plan.purpose == "preflight":
                forecast = forecast_plan(records.ledger, plan, policy, site=self._settings.name)
                status = site_status(self._settings, plan, policy, records.plans, now=now)
                told = forecast_scores(self._settings, plan, policy, records.plans, now=now)
                forecast = forecast.model_copy(update={"status": status, "scores": told})
                return SiteReply(site=self._settings.name, forecast=forecast)
            finish_withdrawals(self._settings, records.ledger.engine)
            scores = accepted.scores and policy.release_evaluation
            withdrawn = withdrawn_now(Transactions(records.ledger.engine, CASES_LOCK))
            again = kept_reply(self._settings, plan, scores=scores, withdrawn=withdrawn)
            if again is not None:
                return again
            prepare = partial(
                prepare_task, self._settings, plan, policy, base, records.ledger, correction
            )
            while True:
                reply = self._attempt(prepare(), scores=accepted.scores, started=started)
                if reply is not None:
                    return reply

    def _attempt(self, task: RoundTask, *, scores: bool, started: float) -> SiteReply | None:
        """Do the work; None where it is to be done anew, since a case of it was withdrawn.

        That is before the reservation, with nothing spent, or where the plan only evaluates. Such
        a case is gone for good, so that of any number of attempts one is the last.
        """
        reply: SiteReply | None = None
        try:
            reply = self._work(task, scores=scores, started=started)
            keep_reply(self._settings, task.plan, reply, withdrawn=task.withdrawn)
        except WithdrawnMeanwhile:
            logger.info("round-prepared-anew campaign=%s", task.plan.campaign)
        finally:
            withdrawn = forget_withdrawn(self._settings, task)
        return reply if reply is None or not withdrawn else _without_counts(reply)

    def _work(self, task: RoundTask, *, scores: bool, started: float) -> SiteReply:
        evaluation = _evaluate(task) if scores else None
        update = self._train(task) if task.plan.purpose == "train" else None
        name, seconds = self._settings.name, time.perf_counter() - started
        receipt = round_receipt(task, update, site=name, seconds=seconds)
        return SiteReply(site=name, receipt=receipt, update=update, evaluation=evaluation)

    def _train(self, task: RoundTask) -> ModelUpdate:
        if not task.training.patients:
            raise CaseRefused("The site has no confirmed training case.", code="no-cases")
        plan, ledger = task.plan, task.ledger
        if plan.privacy.epsilon is not None:
            _warn_of_declaration(task)
            proofs = self._settings.data / "selftest.json"
            self._self_test(plan.recipe, trainable=plan.trainable, proofs=proofs)
        reservation = _reserve(ledger, task)
        try:
            trained = _run(task, reservation)
            leaving = keep_layers(self._settings, task, trained.tensors)
            update = difference(leaving, task.base, binding=_binding(plan))
            update = compress_update(self._settings, plan, update, withdrawn=task.withdrawn)
        except BaseException as error:
            ledger.outcome(reservation, refusal_code(error))
            raise
        ledger.outcome(reservation, "trained")
        return update


def refusal_code(error: BaseException) -> str:
    """Return the code that may leave the site for an error: never any of its text."""
    if isinstance(error, WardroundError):
        return outward_code(error.code)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return OUT_OF_MEMORY
    return INTERNAL_ERROR


def _without_counts(reply: SiteReply) -> SiteReply | None:
    """Return what may leave though a case was withdrawn: an update, which the ledger bounds."""
    return replace(reply, evaluation=None) if reply.update is not None else None


def _evaluate(task: RoundTask) -> SiteEvaluation | None:
    if not task.policy.release_evaluation:
        return None
    if not len(task.holdout):
        if task.plan.purpose == "evaluate":
            raise CaseRefused("The site holds no patient out.", code="no-holdout")
        return None
    probabilities = predict(
        task.model,
        task.holdout,
        task.plan.recipe.image,
        device=task.job.device,
        memory_megabytes=task.job.memory_megabytes,
    )
    return count_holdout(probabilities, task.holdout, task.plan.recipe, task.policy)


def _reserve(ledger: PrivacyLedger, task: RoundTask) -> LedgerLine:
    request = round_request(task.plan, task.policy)
    all_there = partial(refuse_withdrawn, task=task)
    if task.plan.privacy.epsilon is None:
        return ledger.reserve_without_privacy(request, delta=task.policy.delta, first=all_there)
    budget = round_budget(task.plan.privacy.epsilon, task.policy)
    return ledger.reserve(request, budget, first=all_there)


def _warn_of_declaration(task: RoundTask) -> None:
    counted, declared = len(task.training.patients), task.patients
    if not declared / 2 <= counted <= 2 * declared:
        logger.warning("declared-patients-far-off declared=%d", declared)


def _run(task: RoundTask, reservation: LedgerLine) -> Trained:
    plan = task.plan
    if reservation.spend is None:
        return train_plain(
            task.model,
            task.training,
            task.job,
            campaign=plan.campaign,
            steps_before=plan.steps_before,
        )
    step = PrivateStep(
        noise_multiplier=reservation.noise_multiplier,
        max_grad_norm=reservation.max_grad_norm,
        expected_patients=plan.training.sampling_rate * task.patients,
        augmentation_multiplicity=plan.privacy.augmentation_multiplicity,
    )
    return train_private(task.model, task.training, task.job, step=step)


def _accepted(plan: RoundPlan, signed: SignedPlan) -> PlanAccepted:
    return PlanAccepted(
        campaign=plan.campaign,
        round=plan.round,
        nonce=plan.nonce,
        purpose=plan.purpose,
        plan_digest=signed.digest,
    )


def _binding(plan: RoundPlan) -> UpdateBinding:
    return UpdateBinding(plan.campaign, plan.round, plan.nonce, plan.base_digest)
