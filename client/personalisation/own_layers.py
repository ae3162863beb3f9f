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
from client.personalisation.judging import Judgement
from client.personalisation.trial import (
    Personalised,
    held,
    judge_on_holdout,
    keep,
    outcome,
    withdrawn_by_now,
)
from client.releases.cache import LocalRelease, ReleaseCache
from client.settings import SiteSettings
from client.training.dataset import PatientImages, patient_images
from client.training.device import choose_device, limit_threads
from client.training.evaluation import predict
from client.training.pixel_cache import PixelCache
from common.errors import CaseRefused, ReleaseError
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
        The one that answers by default.

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
    release = held(release or ReleaseCache(settings).answering())
    heads = PersonalHeads(settings)
    heads.forget()  # whatever comes of it, what answered before is not the newest any more
    limit_threads(settings.threads)
    tensors, manifest = release.load(), release.manifest
    withdrawn, before = withdrawn_by_now(settings), _training_cases(settings, manifest)
    own = PersonalHead(manifest.model_digest, _layers(settings, manifest, tensors, withdrawn))
    judgement = _judged(settings, manifest, tensors, own)
    if judgement.serves:
        keep(
            *(heads, own),
            name="The layers",
            withdrawn=withdrawn,
            unchanged=lambda: (
                before <= _training_cases(settings, manifest)
                and withdrawn_by_now(settings) == withdrawn  # or the next look takes it away
            ),
            changed=CaseRefused(
                "A patient was withdrawn while the layers were judged.",
                meaning="The layers that were trained on that patient are gone.",
                action="Take part in another round or campaign, then run the command again.",
                code="cases-changed",
            ),
        )
    return outcome(settings, manifest, own, judgement, what="layers")


def _layers(
    settings: SiteSettings, manifest: ReleaseManifest, tensors: Tensors, withdrawn: int
) -> Floats:
    recipe = manifest.recipe
    kept = LocalLayerStore(settings).find(manifest.lineage.campaign)
    model = build_model(recipe, pretrained=False)
    staying = local_names(model, recipe.federation.local_layers)
    usable = (
        kept is not None
        and kept.architecture == recipe.model.architecture
        and kept.withdrawn >= withdrawn
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
    return judge_on_holdout(images, scores[0], scores[1], manifest)


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
