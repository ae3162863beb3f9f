"""``wardround site personalise --layers``: serve a release with the layers that stayed at a site.

A release of a campaign with local layers (FedBN, `common.local_layers`) holds, in their place, what
the campaign began with: nobody's. A site that took part has its own. They answer here by the rule
by which a head of the site's own does (`client.personalisation.judging`), and in its place: kept
in the same file, bound to the release's weights, gone with the next release and with a patient.
"""

from __future__ import annotations

from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from client.cases.store import CaseStore
from client.local_layers import LocalLayerStore, fits
from client.personalisation.head import Floats, PersonalHead, PersonalHeads
from client.personalisation.judging import HoldoutCases, Judgement, case_groups, judge
from client.personalisation.personalise import Personalised
from client.releases.cache import LocalRelease, ReleaseCache
from client.settings import SiteSettings
from client.training.dataset import PatientImages, patient_images
from client.training.device import choose_device, limit_threads
from client.training.evaluation import predict
from client.training.pixel_cache import PixelCache
from common.errors import CaseRefused, ReleaseError, StoreError
from common.local_layers import local_names
from common.model import build_model, load_tensors
from common.release import ReleaseManifest
from common.update import Tensors


def serve_own_layers(
    settings: SiteSettings, *, release: LocalRelease | None = None
) -> Personalised:
    """Judge the release with this site's own layers against the release, and serve the better.

    Parameters
    ----------
    settings : SiteSettings
        The site.
    release : LocalRelease, optional
        The one that the site holds by default.

    Raises
    ------
    ReleaseError
        With code ``no-model`` where the site holds no release, ``no-local-layers`` where it kept
        none of the release's campaign.
    CaseRefused
        With code ``holdout-too-small`` or ``cases-changed``.
    StoreError
        If the database or the disk failed.
    """
    release = release or ReleaseCache(settings).current()
    if release is None:
        raise ReleaseError(
            "The site holds no release yet.",
            action="Wait for the coordinator's first release.",
            code="no-model",
        )
    heads = PersonalHeads(settings)
    heads.forget()  # whatever comes of it, what answered before is not the newest any more
    limit_threads(settings.threads)
    tensors, manifest = release.load(), release.manifest
    before = _training_cases(settings, manifest)
    own = PersonalHead(manifest.model_digest, _layers(settings, manifest, tensors))
    judgement = _judged(settings, manifest, tensors, own)
    if judgement.serves:
        _keep(settings, heads, own, manifest, before)
    return _document(settings, manifest, own, judgement)


def _layers(settings: SiteSettings, manifest: ReleaseManifest, tensors: Tensors) -> Floats:
    recipe = manifest.recipe
    kept = LocalLayerStore(settings).find(manifest.lineage.campaign)
    model = build_model(recipe, pretrained=False)
    staying = local_names(model, recipe.federation.local_layers)
    usable = (
        kept is not None
        and kept.architecture == recipe.model.architecture
        and fits(kept.tensors, tensors, staying)
    )
    if kept is None or not usable or not kept.tensors:
        raise ReleaseError(
            "The site has no layers of its own for this release.",
            meaning="The release's campaign shared the whole network, this site took no part in "
            "it, or a patient withdrew since.",
            action="`wardround site personalise` fits a head of the site's own instead.",
            code="no-local-layers",
        )
    return kept.tensors


def _judged(
    settings: SiteSettings, manifest: ReleaseManifest, tensors: Tensors, own: PersonalHead
) -> Judgement:
    recipe = manifest.recipe
    images = _holdout(settings, manifest)
    device, megabytes = choose_device(settings.device), settings.memory_megabytes
    scores: list[NDArray[np.float64]] = []
    for weights in (tensors, {**tensors, **own.tensors}):
        model = build_model(recipe, pretrained=False)
        load_tensors(model, weights)
        found = predict(model, images, recipe.image, device=device, memory_megabytes=megabytes)
        scores.append(found.astype(np.float64))
    numbers = np.zeros(len(images), np.int64)
    for number, patient in enumerate(images.patients):
        numbers[patient] = number
    cases, owners = case_groups(images.labels, numbers)
    means = [np.array([part[case].mean(axis=0) for case in cases]) for part in scores]
    labels = np.array([images.labels[case[0]] for case in cases], dtype=np.int64)
    positive = [recipe.classes.index(name) for name in recipe.decision.positive_classes]
    held = HoldoutCases(means[0], means[1], labels, owners)
    return judge(held, positive=positive, threshold=manifest.threshold)


def _holdout(settings: SiteSettings, manifest: ReleaseManifest) -> PatientImages:
    recipe = manifest.recipe
    cache = PixelCache(settings.cache, recipe.name, recipe.image)
    with closing(CaseStore.open(settings)) as store:
        holdout = store.holdout_cases(recipe.name)
        # All of the task's: the cache forgets whom it is not asked for.
        cached = cache.load([*store.training_cases(recipe.name), *holdout], store.image_bytes)
    images = patient_images(holdout, cached, recipe.classes)
    if not len(images):
        raise CaseRefused("The site holds no patient out.", code="holdout-too-small")
    return images


def _training_cases(settings: SiteSettings, manifest: ReleaseManifest) -> set[str]:
    with closing(CaseStore.open(settings)) as store:
        return {case.id for case in store.training_cases(manifest.task)}


def _keep(
    settings: SiteSettings,
    heads: PersonalHeads,
    own: PersonalHead,
    manifest: ReleaseManifest,
    before: set[str],
) -> None:
    try:
        heads.keep(own)
    except OSError as error:
        raise StoreError(
            f"The layers cannot be kept ({error.strerror or error}).", action="Free disk space."
        ) from error
    if not before <= _training_cases(settings, manifest):
        heads.forget()  # a withdrawal meanwhile found nothing that it could have removed
        raise CaseRefused(
            "A patient was withdrawn while the layers were judged.",
            meaning="The layers that were trained on that patient are gone.",
            action="Take part in another round or campaign, then run the command again.",
            code="cases-changed",
        )


def _document(
    settings: SiteSettings, manifest: ReleaseManifest, own: PersonalHead, judgement: Judgement
) -> Personalised:
    return Personalised(
        site=settings.name,
        what="layers",
        serving="personal" if judgement.serves else "release",
        release=manifest.version,
        model_digest=manifest.model_digest,
        head_digest=own.digest,
        released_auroc=judgement.released_auroc,
        personal_auroc=judgement.personal_auroc,
        difference_lower=judgement.lower,
        difference_upper=judgement.upper,
        released_found=judgement.released_found,
        personal_found=judgement.personal_found,
        positives=judgement.positives,
    )
