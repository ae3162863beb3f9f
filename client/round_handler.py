"""One round at one site, from the signed plan to the reply; it knows nothing of Flower.

Nothing leaves but the reply: an update, a receipt, and holdout counts where the policy releases
them; or a refusal, which is a code without any text.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from client.cases.store import CaseStore
from client.policy import SitePolicy
from client.privacy.accounting import Budget, public_patients
from client.privacy.ledger import PrivacyLedger
from client.privacy.ledger_lines import LedgerLine, RoundRequest
from client.privacy.self_test import ensure_gradients
from client.settings import SiteSettings
from client.training import PrivateStep, Trained, TrainingJob, train_plain, train_private
from client.training.dataset import PatientImages, PixelCache, patient_images
from client.training.device import choose_device, limit_threads
from client.training.evaluation import predict
from common.errors import CaseRefused, PlanRefused, PrivacyRefused, WardroundError
from common.evaluation import SiteEvaluation, evaluate_predictions
from common.model import build_model, load_tensors
from common.plan import RoundPlan, SignedPlan, verify_plan
from common.recipe import Recipe
from common.records import Receipt, Refusal, SiteReply
from common.signing import VerifyKey
from common.update import ModelUpdate, Tensors, UpdateBinding, difference, tensors_digest

logger = logging.getLogger(__name__)

INTERNAL_ERROR = "internal-error"
_CODE = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class _Task:
    """A verified plan, held against the policy, and what it will be answered with."""

    plan: RoundPlan
    policy: SitePolicy
    base: Tensors
    job: TrainingJob
    training: PatientImages
    holdout: PatientImages


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

    def handle(self, signed: SignedPlan, base: Tensors) -> SiteReply:
        """Answer a plan; never raises, but for the end of the process.

        Parameters
        ----------
        signed : SignedPlan
            As it came.
        base : mapping of str to ndarray
            The whole model that the plan speaks of.
        """
        try:
            return self._answer(signed, base)
        except Exception as error:  # the edge: no text of an exception leaves the site
            code = refusal_code(error)
            known = isinstance(error, WardroundError)
            logger.warning(
                "round-refused code=%s reason=%s", code, error if known else type(error).__name__
            )
            if not known:
                logger.debug("round-refused traceback", exc_info=True)
            return SiteReply(site=self._settings.name, refusal=Refusal(code=code))

    def _answer(self, signed: SignedPlan, base: Tensors) -> SiteReply:
        started = time.perf_counter()
        keys = [
            VerifyKey.read(p) for p in sorted((self._settings.trust / "plan-keys").glob("*.pem"))
        ]
        plan = verify_plan(signed, keys, now=self._clock())
        policy = SitePolicy.read(self._settings.folder / "policy.toml")
        policy.check(plan)
        if tensors_digest(base) != plan.base_digest:
            raise PlanRefused("The base model is not the plan's.", code="plan-base-mismatch")
        task = self._task(plan, policy, base)
        model = build_model(plan.recipe, pretrained=False)
        load_tensors(model, base)
        evaluation = self._evaluate(task, model)
        update = self._train(task, model) if plan.purpose == "train" else None
        receipt = self._receipt(task, update, seconds=time.perf_counter() - started)
        return SiteReply(
            site=self._settings.name, receipt=receipt, update=update, evaluation=evaluation
        )

    def _task(self, plan: RoundPlan, policy: SitePolicy, base: Tensors) -> _Task:
        limit_threads(self._settings.threads)
        job = TrainingJob(
            recipe=plan.recipe,
            training=plan.training,
            trainable=plan.trainable,
            device=choose_device(self._settings.device),
            memory_megabytes=self._settings.memory_megabytes,
        )
        training, holdout = self._images(plan.recipe)
        return _Task(plan, policy, base, job, training, holdout)

    def _images(self, recipe: Recipe) -> tuple[PatientImages, PatientImages]:
        store = CaseStore.open(self._settings)
        try:
            training = store.training_cases(recipe.name)
            holdout = store.holdout_cases(recipe.name)
            cache = PixelCache(self._settings.cache, recipe.name, recipe.image)
            cached = cache.load([*training, *holdout], store.image_bytes)
        finally:
            store.close()
        return (
            patient_images(training, cached, recipe.classes),
            patient_images(holdout, cached, recipe.classes),
        )

    def _evaluate(self, task: _Task, model: nn.Module) -> SiteEvaluation | None:
        wanted = task.plan.purpose == "evaluate" or task.plan.evaluate
        if not wanted or not task.policy.release_evaluation:
            return None
        if not len(task.holdout):
            if task.plan.purpose == "evaluate":
                raise CaseRefused("The site holds no patient out.", code="no-holdout")
            return None
        probabilities = predict(
            model,
            task.holdout,
            task.plan.recipe.image,
            device=task.job.device,
            memory_megabytes=task.job.memory_megabytes,
        )
        return evaluate_predictions(
            probabilities,
            task.holdout.labels,
            task.plan.recipe.classes,
            minimum_cell=task.policy.minimum_cell,
        )

    def _train(self, task: _Task, model: nn.Module) -> ModelUpdate:
        patients = len(task.training.patients)
        if patients == 0:
            raise CaseRefused("The site has no confirmed training case.", code="no-cases")
        plan = task.plan
        private = plan.privacy.epsilon is not None
        if private:
            if task.policy.delta >= 1 / patients:
                raise PrivacyRefused(
                    "The policy's delta is not below 1 / (number of training patients).",
                    meaning="It would allow one patient to be given away whole.",
                    action="Lower delta before the ledger's first line.",
                    code="delta-too-large",
                )
            proofs = self._settings.data / "selftest.json"
            self._self_test(plan.recipe, trainable=plan.trainable, proofs=proofs)
        with PrivacyLedger.open(self._settings) as ledger:
            reservation = _reserve(ledger, task)
            try:
                trained = _run(task, model, reservation)
                update = difference(trained.tensors, task.base, binding=_binding(plan))
            except BaseException as error:
                ledger.outcome(reservation, refusal_code(error))
                raise
            ledger.outcome(reservation, "trained")
        return update

    def _receipt(self, task: _Task, update: ModelUpdate | None, *, seconds: float) -> Receipt:
        plan, policy = task.plan, task.policy
        private = plan.privacy.epsilon is not None
        with PrivacyLedger.open(self._settings) as ledger:
            spent = ledger.spent(policy.delta)
            own = ledger.reservation(plan.campaign, plan.round) if update is not None else None
        return Receipt(
            site=self._settings.name,
            campaign=plan.campaign,
            round=plan.round,
            nonce=plan.nonce,
            base_digest=plan.base_digest,
            update_digest=update.digest if update is not None else None,
            privacy_unit="patient" if private else "none",
            epsilon_campaign=spent.campaigns.get(plan.campaign, 0.0) if private else None,
            epsilon_life=spent.guaranteed_life if private else None,
            delta=policy.delta if private else None,
            max_grad_norm=own.max_grad_norm if own is not None and private else None,
            noise_multiplier=own.noise_multiplier if own is not None and private else None,
            sampling_rate=plan.training.sampling_rate,
            steps=own.steps if own is not None else 0,
            public_patients=public_patients(len(task.training.patients)),
            seconds=round(seconds, 1),
        )


def refusal_code(error: BaseException) -> str:
    """Return the code that may leave the site for an error: never any of its text."""
    if isinstance(error, WardroundError):
        return error.code if _CODE.fullmatch(error.code) else INTERNAL_ERROR
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "out-of-memory"
    return INTERNAL_ERROR


def _reserve(ledger: PrivacyLedger, task: _Task) -> LedgerLine:
    plan, policy = task.plan, task.policy
    request = RoundRequest(
        campaign=plan.campaign,
        round=plan.round,
        nonce=plan.nonce,
        rounds_left=plan.rounds - plan.round + 1,
        sampling_rate=plan.training.sampling_rate,
        steps=plan.training.local_steps,
        max_grad_norm=min(plan.privacy.max_grad_norm, policy.max_grad_norm),
    )
    if plan.privacy.epsilon is None:
        return ledger.reserve_without_privacy(request, delta=policy.delta)
    budget = Budget(
        epsilon_campaign=min(plan.privacy.epsilon, policy.epsilon_campaign),
        epsilon_life=policy.epsilon_life,
        delta=policy.delta,
        min_noise_multiplier=policy.min_noise_multiplier,
    )
    return ledger.reserve(request, budget)


def _run(task: _Task, model: nn.Module, reservation: LedgerLine) -> Trained:
    plan = task.plan
    if reservation.spend is None:
        return train_plain(
            model,
            task.training,
            task.job,
            campaign=plan.campaign,
            steps_before=plan.steps_before,
        )
    patients = public_patients(len(task.training.patients))
    step = PrivateStep(
        noise_multiplier=reservation.noise_multiplier,
        max_grad_norm=reservation.max_grad_norm,
        expected_patients=plan.training.sampling_rate * patients,
        augmentation_multiplicity=plan.privacy.augmentation_multiplicity,
    )
    return train_private(model, task.training, task.job, step=step)


def _binding(plan: RoundPlan) -> UpdateBinding:
    return UpdateBinding(plan.campaign, plan.round, plan.nonce, plan.base_digest)
