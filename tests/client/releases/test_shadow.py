"""A newer release beside the one that answers, on a holdout whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from client.cases.case import Case
from client.inference.holdout_scores import HoldoutScores
from client.releases.policy import ReleasePolicy
from client.releases.shadow import shadow_figures
from common.recipe import load_recipe
from common.release import ReleaseManifest
from tests.client.serving import release

RECIPE = load_recipe("mammography").with_changes(model="test_resnet", image_size=32)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = ReleasePolicy()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> ReleaseManifest:
    return release(tmp_path_factory.mktemp("releases"), 1, recipe=RECIPE).manifest


def scores(
    patients: int, separation: float, *, seed: int = 0, images: int = 1, shift: float = 0.0
) -> HoldoutScores:
    """Return scores of a model that tells half of the patients from the others this well."""
    dice = np.random.default_rng(seed)
    labels = np.repeat(np.arange(patients) % 2, images).astype(np.int64)
    common = np.random.default_rng(1).normal(size=len(labels))  # both see the same images
    value = common + 0.3 * dice.normal(size=len(labels)) + separation * labels + shift
    cases = tuple(
        Case(
            *(f"{n:032d}", RECIPE.name, f"p{n // images}", f"{n:064d}"),
            *(RECIPE.classes[label], "confirmed", "holdout", None, None, NOW, NOW),
        )
        for n, label in enumerate(labels)
    )
    nothing = np.zeros((len(labels), 0))
    return HoldoutScores(cases, _logits(value), nothing.astype(np.float32), labels, nothing, "")


def _logits(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([-value / 2, value / 2], axis=1)


def test_the_same_model_is_not_worse(manifest: ReleaseManifest) -> None:
    one = scores(100, 2.0)
    figures = shadow_figures((manifest, one), (manifest, one))
    assert figures is not None
    assert (figures.auroc_lower, figures.auroc_upper) == (0.0, 0.0)
    assert (figures.patients, figures.finding(POLICY)) == (100, "not-worse")


def test_a_model_that_ranks_worse_is_worse(manifest: ReleaseManifest) -> None:
    figures = shadow_figures((manifest, scores(200, 0.3)), (manifest, scores(200, 2.5, seed=2)))
    assert figures is not None
    assert figures.auroc < figures.auroc_beside - 0.1
    assert figures.auroc_upper < 0
    assert figures.finding(POLICY) == "worse"
    assert figures.finding(ReleasePolicy(margin=0.9, sensitivity_margin=0.99)) == "not-worse"


def test_a_model_that_ranks_as_well_and_misses_cancers_is_worse(manifest: ReleaseManifest) -> None:
    base = scores(200, 2.0)
    cautious = replace(base, logits=base.logits + np.array([4.0, 0.0]))
    figures = shadow_figures((manifest, cautious), (manifest, base))
    assert figures is not None
    assert figures.auroc == pytest.approx(figures.auroc_beside)
    assert figures.sensitivity < figures.sensitivity_beside - 0.05
    assert figures.finding(POLICY) == "worse"


def test_a_few_patients_leave_it_open(manifest: ReleaseManifest) -> None:
    figures = shadow_figures((manifest, scores(24, 0.9)), (manifest, scores(24, 1.0, seed=5)))
    assert figures is not None
    assert figures.finding(POLICY) == "unclear"
    assert shadow_figures((manifest, scores(18, 1.0)), (manifest, scores(18, 1.0))) is None


def test_images_of_a_patient_are_one_case_and_each_resample_draws_patients(
    manifest: ReleaseManifest,
) -> None:
    many = shadow_figures(
        (manifest, scores(60, 0.8, images=4)), (manifest, scores(60, 1.0, seed=3, images=4))
    )
    assert many is not None
    assert (many.patients, many.positives) == (60, 30)


def test_cases_that_only_one_saw_do_not_count(manifest: ReleaseManifest) -> None:
    one, other = scores(60, 1.0), scores(80, 1.0)
    figures = shadow_figures((manifest, one), (manifest, other))
    assert figures is not None
    assert figures.patients == 60


def test_each_at_its_own_threshold(manifest: ReleaseManifest) -> None:
    one = scores(100, 2.0)
    strict = manifest.model_copy(update={"threshold": 0.95})
    figures = shadow_figures((strict, one), (manifest, one))
    assert figures is not None
    assert figures.sensitivity < figures.sensitivity_beside


def test_it_may_be_interrupted(manifest: ReleaseManifest) -> None:
    def between() -> None:
        raise InterruptedError

    one = scores(100, 1.0)
    with pytest.raises(InterruptedError):
        shadow_figures((manifest, one), (manifest, one), between=between)
