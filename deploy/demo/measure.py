"""What the demo measures: each site's own holdout score, and its spend from the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from client.cases.store import CaseStore
from client.policy import SitePolicy
from client.privacy.ledger import PrivacyLedger
from client.settings import SiteSettings
from client.training.dataset import PatientImages, patient_images
from client.training.device import choose_device
from client.training.evaluation import predict
from client.training.pixel_cache import PixelCache
from common.evaluation import evaluate_predictions, metrics
from common.model import build_model, load_tensors
from common.recipe import Recipe
from deploy.demo.report import PooledMetrics
from server.model_store import ModelStore
from server.registry.records import Candidate
from server.settings import CoordinatorSettings


@dataclass(frozen=True)
class SiteMeasurement:
    """Macro AUROC of each candidate on the site's holdout, and epsilon by two accountants."""

    auroc: tuple[float | None, ...]
    epsilon_rdp: float
    epsilon_prv: float


def measure_site(
    settings: SiteSettings,
    recipe: Recipe,
    coordinator: CoordinatorSettings,
    candidates: Sequence[Candidate],
) -> SiteMeasurement:
    """Measure candidates at a site, on this machine, with nothing suppressed."""
    policy = SitePolicy.read(settings.folder / "policy.toml")
    with PrivacyLedger.open(settings) as ledger:
        ledger.verify_chain()
        spent_rdp = ledger.spent(policy.delta).life
        spent_prv = ledger.spent(policy.delta, kind="prv").life
    holdout = _holdout(settings, recipe)
    models = ModelStore(coordinator.models)
    scores = tuple(_auroc(settings, recipe, models, c, holdout) for c in candidates)
    return SiteMeasurement(scores, spent_rdp, spent_prv)


def training_counts(sites: Iterable[SiteSettings], recipe: Recipe) -> tuple[int, int]:
    """Return how many training patients several sites have, and how many images of them."""
    patients = images = 0
    for settings in sites:
        with closing(CaseStore.open(settings)) as store:
            counts = store.counts(recipe.name)
        patients += counts.train_patients
        images += sum(line.train for line in counts.classes)
    return patients, images


def pooled_metrics(candidate: Candidate) -> PooledMetrics:
    """Return a candidate's figures over all sites, as the coordinator computed them from counts."""
    measured = candidate.draft.metrics.candidate
    return PooledMetrics(
        macro_auroc=measured.macro_auroc,
        balanced_accuracy=measured.balanced_accuracy,
        accuracy=measured.accuracy,
        majority_baseline=measured.majority_baseline,
    )


def failed_checks(candidate: Candidate) -> tuple[str, ...]:
    """Return the names of the gate's checks that a candidate did not pass."""
    return tuple(check.name for check in candidate.draft.gate if not check.passed)


def _holdout(settings: SiteSettings, recipe: Recipe) -> PatientImages:
    store = CaseStore.open(settings)
    try:
        cases = [*store.training_cases(recipe.name), *store.holdout_cases(recipe.name)]
        cached = PixelCache(settings.cache, recipe.name, recipe.image).load(
            cases, store.image_bytes
        )
        return patient_images(store.holdout_cases(recipe.name), cached, recipe.classes)
    finally:
        store.close()


def _auroc(
    settings: SiteSettings,
    recipe: Recipe,
    models: ModelStore,
    candidate: Candidate,
    holdout: PatientImages,
) -> float | None:
    if not len(holdout):
        return None
    model = build_model(recipe, pretrained=False)
    load_tensors(model, models.load(candidate.model_digest))
    probabilities = predict(
        model,
        holdout,
        recipe.image,
        device=choose_device(settings.device),
        memory_megabytes=settings.memory_megabytes,
    )
    counts = evaluate_predictions(probabilities, holdout.labels, recipe.classes, minimum_cell=1)
    return metrics(counts).macro_auroc
