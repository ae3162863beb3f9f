"""What a site works with in one round: the plan, its images, and what it says about itself."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy import Connection
from torch import nn

from client.cases.store import CaseStore
from client.cases.transactions import CASES_LOCK, Transactions, join_writers
from client.kept_reply import forget_reply
from client.local_layers import LocalLayerStore
from client.policy import SitePolicy
from client.privacy.accounting import public_patients
from client.privacy.ledger import PrivacyLedger
from client.settings import SiteSettings
from client.training import TrainingJob
from client.training.cache_folder import forget_prepared
from client.training.dataset import PatientImages, patient_images
from client.training.device import choose_device, limit_threads
from client.training.features import compute_features, features_key, split_head
from client.training.pixel_cache import CachedPixels, PixelCache
from client.update_feedback import forget_feedback
from client.withdrawn_mark import withdrawn_cases, withdrawn_now
from common.compression import Packed
from common.correction import norm_bound, read_correction
from common.errors import CaseRefused, ModelError
from common.local_layers import local_names
from common.model import build_model, load_tensors, set_trainable
from common.plan import RoundPlan
from common.records import Receipt
from common.update import ModelUpdate, Tensors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundTask:
    """A verified plan, held against the policy, and what it will be answered with.

    ``base`` is the model that came. ``start`` is what ``model`` holds: the same, but where the plan
    trains, the layers that stay at the site (named by ``staying``) are the site's own.
    ``withdrawn`` is how many cases had been withdrawn before anything that knows the site's cases
    was read (`client.withdrawn_mark`).
    """

    plan: RoundPlan
    policy: SitePolicy
    base: Tensors
    job: TrainingJob
    model: nn.Module
    training: PatientImages
    holdout: PatientImages
    ledger: PrivacyLedger
    start: Tensors
    withdrawn: int
    staying: frozenset[str] = frozenset()

    @property
    def patients(self) -> int:
        """Return the number of training patients as it may be told.

        The policy's word; without privacy, where it may be silent, the rounded count.
        """
        return self.policy.declared_patients or public_patients(len(self.training.patients))


def prepare_task(
    settings: SiteSettings,
    plan: RoundPlan,
    policy: SitePolicy,
    base: Tensors,
    ledger: PrivacyLedger,
    correction: Packed | None = None,
) -> RoundTask:
    """Build the plan's network and bring the site's images within reach.

    Raises
    ------
    PlanRefused
        If the correction that came is not the plan's, or unusable (`common.correction`).
    ConfigurationError, ModelError, StoreError
        If the device, the network, the database or the disk cannot be used.
    """
    limit_threads(settings.threads)
    recipe = plan.recipe
    model = build_model(recipe, pretrained=False)
    staying = local_names(model, recipe.federation.local_layers)
    # Before layers and images are read: whoever withdraws from here on is found to be gone.
    withdrawn = _withdrawn_now(ledger)
    start = _start(settings, plan, base, staying, withdrawn)
    load_tensors(model, start)
    moving = [name for name in set_trainable(model, plan.trainable) if name not in staying]
    if not moving:
        raise ModelError("All that the plan trains stays at the site.", code="model-unsupported")
    job = TrainingJob(
        recipe=recipe,
        training=plan.training,
        trainable=plan.trainable,
        device=choose_device(settings.device),
        memory_megabytes=settings.memory_megabytes,
        staying=staying,
        correction=read_correction(
            correction,
            named=plan.correction,
            shapes={name: base[name].shape for name in moving},
            bound=norm_bound(base, plan.training),
        ),
    )
    cache = PixelCache(settings.cache, recipe.name, recipe.image)
    with closing(CaseStore.open(settings)) as store:
        training = store.training_cases(recipe.name)
        holdout = store.holdout_cases(recipe.name)
        cached = cache.load([*training, *holdout], store.image_bytes)
    task = RoundTask(
        plan=plan,
        policy=policy,
        base=base,
        job=job,
        model=model,
        training=patient_images(training, cached, recipe.classes),
        holdout=patient_images(holdout, cached, recipe.classes),
        ledger=ledger,
        start=start,
        withdrawn=withdrawn,
        staying=staying,
    )
    return _with_features(task, cache, cached) if plan.trainable == "head" else task


def keep_layers(settings: SiteSettings, task: RoundTask, trained: Tensors) -> Tensors:
    """Keep those of the trained tensors that stay at the site; return those that may leave.

    Raises
    ------
    StoreError
        If the disk failed.
    """
    own = {n: a.astype(np.float32) for n, a in trained.items() if n in task.staying}
    if own:
        LocalLayerStore(settings).keep(task.plan, own, withdrawn=task.withdrawn)
    return {name: array for name, array in trained.items() if name not in own}


class WithdrawnMeanwhile(CaseRefused):
    """A case was withdrawn after a round read the site's cases, and before it spent anything."""

    default_code = "case-withdrawn"


def refuse_withdrawn(connection: Connection, task: RoundTask) -> None:
    """Look, in the transaction that reserves, whether any of the site's cases was withdrawn.

    No withdrawal comes between this look and the reservation: whoever withdraws later finds the
    round in the ledger, and is told of it.

    Raises
    ------
    WithdrawnMeanwhile
        If one was withdrawn.
    """
    join_writers(connection, CASES_LOCK)
    if withdrawn_cases(connection) != task.withdrawn:
        raise WithdrawnMeanwhile("A case was withdrawn while the round was prepared.")


def forget_withdrawn(settings: SiteSettings, task: RoundTask) -> bool:
    """Remove what this round wrote, if a case of the site's was withdrawn while it ran.

    The withdrawal removed what it found, which was not yet what the round has written since: its
    reply, what compression left over, layers that stay, prepared pixels and features. What an
    update says of the patient is bounded by the ledger's line; the withdrawal's report names the
    round. Nothing bounds exact holdout counts: they must not leave.

    Returns
    -------
    bool
        Whether one was withdrawn.
    """
    if _withdrawn_now(task.ledger) == task.withdrawn:
        return False
    forget_reply(settings)
    forget_feedback(settings)
    LocalLayerStore(settings).forget()
    forget_prepared(settings.cache, task.plan.recipe.name)
    logger.info("withdrawn-during-round campaign=%s", task.plan.campaign)
    return True


def _withdrawn_now(ledger: PrivacyLedger) -> int:
    return withdrawn_now(Transactions(ledger.engine, CASES_LOCK))


def _start(
    settings: SiteSettings,
    plan: RoundPlan,
    base: Tensors,
    staying: frozenset[str],
    withdrawn: int,
) -> Tensors:
    """Return what the site begins with.

    Scored by itself a model is scored as it came: as a site without layers of its own would serve
    it. Scored on the way to training it is what is trained.
    """
    if plan.purpose != "train" or not staying:
        return base
    return {**base, **LocalLayerStore(settings).before(plan, base, staying, withdrawn)}


def _with_features(task: RoundTask, cache: PixelCache, cached: CachedPixels) -> RoundTask:
    """Give the images their backbone's features, where only the classifier moves.

    A plan that only evaluates uses what is kept, and computes nothing for images that it does
    not look at.
    """
    recipe, job = task.plan.recipe, task.job
    split = split_head(task.model, recipe.image.size) if cached.row_of else None
    if split is None:
        return task
    compute = compute_features(
        split, task.model, recipe, device=job.device, memory_megabytes=job.memory_megabytes
    )
    features = cache.features(
        features_key(recipe, task.start, task.model),
        cached,
        compute if task.plan.purpose == "train" else None,
    )
    return replace(
        task,
        training=replace(task.training, features=features),
        holdout=replace(task.holdout, features=features),
    )


def round_receipt(
    task: RoundTask, update: ModelUpdate | None, *, site: str, seconds: float
) -> Receipt:
    """Return what the round cost, as policy and ledger say it.

    Parameters
    ----------
    task : RoundTask
        The round's.
    update : ModelUpdate or None
        What leaves with the receipt; None where the site only evaluated.
    site : str
        The site's name.
    seconds : float
        What it took; rounded to ten, since the exact time tells how many patients were sampled.
    """
    plan, policy, ledger = task.plan, task.policy, task.ledger
    private = plan.privacy.epsilon is not None
    spent = ledger.spent(policy.delta)
    own = ledger.reservation(plan.campaign, plan.round) if update is not None else None
    return Receipt(
        site=site,
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
        public_patients=task.patients if update is not None else (policy.declared_patients or 0),
        seconds=round(seconds, -1),
    )
