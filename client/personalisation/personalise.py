"""``wardround site personalise``: fit a head to the site's patients, judge it, serve it if better.

The service takes the head up, or drops it, when it next looks for releases.
"""

from __future__ import annotations

from contextlib import closing

import numpy as np
from numpy.typing import NDArray
from torch import nn

from client.cases.store import CaseStore
from client.personalisation.head import PersonalHead, PersonalHeads
from client.personalisation.judging import Judgement
from client.personalisation.trial import (
    Personalised,
    held,
    judge_on_holdout,
    keep,
    outcome,
    withdrawn_by_now,
)
from client.personalisation.tuning import FOLDS, OnFit, TunedHead, tune_head
from client.releases.cache import LocalRelease, ReleaseCache
from client.settings import SiteSettings
from client.training.dataset import PatientImages, patient_images
from client.training.device import choose_device, limit_threads
from client.training.features import HeadSplit, compute_features, features_key, split_head
from client.training.pixel_cache import PixelCache
from common.errors import CaseRefused, ModelError
from common.model import build_model, classifier_names, load_tensors
from common.release import ReleaseManifest


def personalise(
    settings: SiteSettings,
    *,
    release: LocalRelease | None = None,
    on_fit: OnFit = lambda *_: None,
) -> Personalised:
    """Fit, judge, and keep or drop a head of the site's own.

    Parameters
    ----------
    settings : SiteSettings
        The site.
    release : LocalRelease, optional
        The one that answers by default.
    on_fit : callable, optional
        For a progress display.

    Raises
    ------
    ReleaseError
        With code ``no-model`` where the site holds no release.
    ModelError
        With code ``head-not-linear``.
    CaseRefused
        With code ``no-cases`` or ``holdout-too-small``; a head from before goes then, too.
    StoreError
        If the database or the disk failed.
    """
    release = held(release or ReleaseCache(settings).answering())
    heads = PersonalHeads(settings)
    heads.forget()  # whatever comes of it, the one before is not the newest any more
    limit_threads(settings.threads)
    model = build_model(release.manifest.recipe, pretrained=False)
    load_tensors(model, release.load())
    withdrawn, before = withdrawn_by_now(settings), _cases(settings, release.manifest)
    training, holdout, split = _images(settings, release, model)
    if len(training.patients) < FOLDS or len(np.unique(training.labels)) < 2:
        raise CaseRefused("The site has too few confirmed training cases.", code="no-cases")
    tuned = tune_head(split.head, training, release.manifest.recipe.loss, on_fit=on_fit)
    judgement = _judged(split.head, tuned, holdout, release.manifest)
    head = _named(model, split.head, tuned, release.manifest)
    if judgement.serves:
        keep(
            *(heads, head),
            name="The head",
            withdrawn=withdrawn,
            unchanged=lambda: (
                before <= _cases(settings, release.manifest)
                and withdrawn_by_now(settings) == withdrawn  # or the next look takes it away
            ),
            changed=CaseRefused(
                "A patient was withdrawn while the head was fitted.",
                action="Run the command again.",
                code="cases-changed",
            ),
        )
    pull = tuned.pull if np.isfinite(tuned.pull) else None
    return outcome(settings, release.manifest, head, judgement, what="head", pull=pull)


def stop_personalising(settings: SiteSettings) -> Personalised:
    """Remove the site's own head: the plain release answers."""
    removed = PersonalHeads(settings).forget()
    return Personalised(site=settings.name, serving="release", removed=removed)


def _cases(settings: SiteSettings, manifest: ReleaseManifest) -> set[str]:
    with closing(CaseStore.open(settings)) as store:
        task = manifest.recipe.name
        return {case.id for case in (*store.training_cases(task), *store.holdout_cases(task))}


def _images(
    settings: SiteSettings, release: LocalRelease, model: nn.Module
) -> tuple[PatientImages, PatientImages, HeadSplit]:
    recipe = release.manifest.recipe
    split = split_head(model, recipe.image.size)
    if split is None or split.head.bias is None:
        raise ModelError(
            "This network has no linear classifier on its features.",
            meaning="A head of the site's own cannot be fitted.",
            code="head-not-linear",
        )
    cache = PixelCache(settings.cache, recipe.name, recipe.image)
    with closing(CaseStore.open(settings)) as store:
        cases = (store.training_cases(recipe.name), store.holdout_cases(recipe.name))
        cached = cache.load([*cases[0], *cases[1]], store.image_bytes)
    if not cached.row_of:
        raise CaseRefused("The site has no confirmed case.", code="no-cases")
    device, megabytes = choose_device(settings.device), settings.memory_megabytes
    compute = compute_features(split, model, recipe, device=device, memory_megabytes=megabytes)
    features = cache.features(features_key(recipe, release.load(), model), cached, compute)
    model.cpu()
    sides = [patient_images(side, cached, recipe.classes) for side in cases]
    training, holdout = (
        PatientImages(s.pixels, s.rows, s.labels, s.patients, features) for s in sides
    )
    return training, holdout, split


def _judged(
    head: nn.Linear, tuned: TunedHead, images: PatientImages, manifest: ReleaseManifest
) -> Judgement:
    features = images.read_features(np.arange(len(images))).astype(np.float64)
    released = (head.weight.detach().numpy(), head.bias.detach().numpy())
    scores = [_chances(features, *pair) for pair in (released, (tuned.weight, tuned.bias))]
    return judge_on_holdout(images, scores[0], scores[1], manifest)


def _chances(
    features: NDArray[np.float64], weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> NDArray[np.float64]:
    logits = features @ weight.T.astype(np.float64) + bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _named(
    model: nn.Module, head: nn.Linear, tuned: TunedHead, manifest: ReleaseManifest
) -> PersonalHead:
    own = {id(p): name for name, p in model.named_parameters()}
    tensors = {own[id(head.weight)]: tuned.weight, own[id(head.bias)]: tuned.bias}
    if set(tensors) != set(classifier_names(model)):
        raise ModelError("The classifier is more than one layer.", code="head-not-linear")
    return PersonalHead(manifest.model_digest, tensors)
