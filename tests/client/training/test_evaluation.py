"""From a holdout's predictions to what the policy lets a site count."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from torch import nn

from client.cases.case import age_band
from client.policy import SitePolicy
from client.training.dataset import PatientImages
from client.training.evaluation import age_group, count_holdout, predict
from common.evaluation import merge, metrics
from common.evaluation_figures import average_precision
from common.imaging import decode, prepare
from common.model import build_model
from common.recipe import Recipe, load_recipe
from simulations.phantoms import phantom_hospital
from simulations.scanners import scanner_for_site
from tests.client.training_toys import CPU, toy_images, toy_recipe

OPEN = SitePolicy(
    release_evaluation=True,
    minimum_cell=1,
    release_statistics=("decision", "calibration", "subgroups"),
)


def told(images: PatientImages) -> PatientImages:
    count = len(images)
    bands = tuple(("30-39", "50-59", None)[i % 3] for i in range(count))
    return replace(images, age_bands=bands, sexes=("female",) * count)


def test_a_patient_of_many_images_counts_once() -> None:
    images = told(toy_images([1, 9, 2, 2]))
    probabilities = np.full((14, 2), 0.5, dtype=np.float32)
    # Patient 1 (bright): one image of nine is seen as dark with certainty.
    probabilities[images.patients[1]] = (0.1, 0.9)
    probabilities[images.patients[1][0]] = (1.0, 0.0)
    found = count_holdout(probabilities, images, toy_recipe(), OPEN)
    assert found.cases == 4
    assert found.totals() == (2, 2)
    assert found.confusion[1][1] == 1  # 0.8 on average
    assert found.decision is not None
    assert found.calibration is not None


def test_an_image_without_a_finite_answer_weighs_as_one_image() -> None:
    images = toy_images([1, 2])
    probabilities = np.array([[0.9, 0.1], [np.nan, np.nan], [0.3, 0.7]], dtype=np.float32)
    found = count_holdout(probabilities, images, toy_recipe(), OPEN)
    assert found.cases == 2
    assert found.confusion == ((1, 0), (0, 1))  # of 1/2 and 0.7 the mean is 0.6


def test_two_labels_of_one_patient_are_two_cases() -> None:
    images = toy_images([4])
    mixed = replace(images, labels=np.array([0, 0, 1, 1]))
    found = count_holdout(np.full((4, 2), 0.5, np.float32), mixed, toy_recipe(), OPEN)
    assert found.totals() == (1, 1)


@pytest.mark.parametrize("statistics", [(), ("decision",), ("calibration",), ("subgroups",)])
def test_only_what_the_policy_lists_is_counted(statistics: tuple[str, ...]) -> None:
    policy = SitePolicy.model_validate({**OPEN.model_dump(), "release_statistics": statistics})
    images = told(toy_images([1] * 30))
    found = count_holdout(np.full((30, 2), 0.5, np.float32), images, toy_recipe(), policy)
    assert (found.decision is not None) == ("decision" in statistics)
    assert (found.calibration is not None) == ("calibration" in statistics)
    assert bool(found.subgroups) == ("subgroups" in statistics)


def test_images_whose_patients_tell_nothing_have_no_subgroups() -> None:
    images = toy_images([1] * 30)
    found = count_holdout(np.full((30, 2), 0.5, np.float32), images, toy_recipe(), OPEN)
    assert found.subgroups == ()


@pytest.mark.parametrize(
    ("age", "group"),
    [
        (0, "<40"),
        (39, "<40"),
        (40, "40-59"),
        (59, "40-59"),
        (60, "60-79"),
        (80, "80+"),
        (99, "80+"),
    ],
)
def test_age_bands_fall_into_the_four_groups(age: int, group: str) -> None:
    assert age_group(age_band(age)) == group
    assert age_group(age_band(None)) is None


def phantoms(recipe: Recipe, seed: int, patients: int) -> PatientImages:
    generator = np.random.default_rng(seed)
    scanner = scanner_for_site(seed)
    cases = list(phantom_hospital(recipe, scanner, patients, generator, size=48))
    pixels = np.stack([prepare(decode(case.image), recipe.image) for case in cases])
    owners = [case.patient_id for case in cases]
    return PatientImages(
        pixels=pixels,
        rows=np.arange(len(cases)),
        labels=np.array([recipe.classes.index(case.label) for case in cases]),
        patients=tuple(np.flatnonzero(np.array(owners) == o) for o in dict.fromkeys(owners)),
    )


def test_a_real_models_pooled_auroc_is_scikit_learns() -> None:
    recipe = load_recipe("dermoscopy").with_changes(model="test_resnet", image_size=48)
    model: nn.Module = build_model(recipe, pretrained=False, seed=1)
    reports, scores, labels = [], [], []
    for seed in range(2):
        images = phantoms(recipe, seed, 90)
        found = predict(model, images, recipe.image, device=CPU, memory_megabytes=500)
        reports.append(count_holdout(found, images, recipe, OPEN))
        for patient in images.patients:
            scores.append(found[patient].mean(axis=0))
            labels.append(images.labels[patient[0]])
    pooled, answers, truth = merge(reports), np.stack(scores), np.array(labels)
    assert pooled.cases == len(truth) == 180
    areas = metrics(pooled).auroc
    for k in range(len(recipe.classes)):
        exact = roc_auc_score(truth == k, answers[:, k])
        assert areas[k] == pytest.approx(exact, abs=0.005)
        assert average_precision(pooled.positives[k], pooled.negatives[k]) is not None
