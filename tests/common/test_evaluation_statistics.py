"""What travels beside the counts by class: decision, calibration, subgroups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import average_precision_score, roc_auc_score

from common.evaluation import CaseGroups, SiteEvaluation, evaluate_predictions, merge
from common.evaluation_counts import GROUPS, Counts, Statistic
from common.evaluation_figures import (
    average_precision,
    calibration_bins,
    calibration_error,
    rates_at,
    threshold_for,
)
from common.score_histogram import area_under_curve
from tests.common.test_evaluation import CLASSES, predictions

EVERYTHING: tuple[Statistic, ...] = ("decision", "calibration", "subgroups")
POSITIVE = ("b", "c")


def groups(seed: int, cases: int) -> CaseGroups:
    generator = np.random.default_rng(seed)
    return CaseGroups(
        age=generator.choice([-1, 0, 1, 2, 3], size=cases, p=[0.05, 0.05, 0.3, 0.5, 0.1]),
        sex=generator.choice([-1, 0, 1, 2], size=cases, p=[0.04, 0.48, 0.46, 0.02]),
    )


def counted(
    seed: int, cases: int, *, minimum: int = 1, signal: float = 1.0
) -> tuple[np.ndarray, np.ndarray, SiteEvaluation]:
    scores, labels = predictions(seed, cases, 3, signal, 1.0, skew=0.5)
    return scores, labels, evaluate_predictions(
        scores, labels, CLASSES, minimum_cell=minimum, positive_classes=POSITIVE,
        statistics=EVERYTHING, groups=groups(seed, cases),
    )  # fmt: skip


def exact_calibration_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """Guo et al. 2017, equation 3, over the cases themselves: 15 bins, open on the left."""
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    gaps = [abs(confidence[index == b].sum() - right[index == b].sum()) for b in np.unique(index)]
    return float(np.sum(gaps) / len(labels))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cases=st.integers(100, 900), signal=st.floats(-1, 5))
def test_unsuppressed_figures_agree_with_scikit_learn(seed: int, cases: int, signal: float) -> None:
    scores, labels, found = counted(seed, cases, signal=signal)
    assert found.calibration is not None
    error = calibration_error(calibration_bins(found.calibration))
    assert error == pytest.approx(exact_calibration_error(scores, labels), abs=0.005)
    assert found.decision is not None
    score, truth = scores[:, 1:].sum(axis=1), labels > 0
    if truth.any() and not truth.all():
        area = area_under_curve(found.decision.positives, found.decision.negatives)
        assert area == pytest.approx(roc_auc_score(truth, score), abs=0.005)
        precision = average_precision(found.decision.positives, found.decision.negatives)
        assert precision == pytest.approx(average_precision_score(truth, score), abs=0.01)
        for threshold in (0.1, 0.5, 0.9):
            rates = rates_at(found.decision, threshold)
            assert rates.sensitivity == pytest.approx((score[truth] >= threshold).mean(), abs=0.02)
            assert rates.specificity == pytest.approx((score[~truth] < threshold).mean(), abs=0.02)


@pytest.mark.parametrize("wanted", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("minimum", [1, 10])
def test_the_threshold_is_the_highest_that_catches_enough(wanted: float, minimum: int) -> None:
    scores, labels, found = counted(3, 600, minimum=minimum)
    assert found.decision is not None
    threshold = threshold_for(found.decision, wanted)
    assert threshold is not None
    caught = rates_at(found.decision, threshold).sensitivity
    assert caught is not None
    assert caught >= wanted - 1e-6
    higher = rates_at(found.decision, min(1.0, threshold + 0.02)).sensitivity
    assert higher is not None
    assert higher < wanted
    really = (scores[labels > 0][:, 1:].sum(axis=1) >= threshold).mean()
    assert really == pytest.approx(wanted, abs=0.005 if minimum == 1 else 0.03)


def test_no_positive_case_gives_no_threshold() -> None:
    scores = np.tile([0.7, 0.2, 0.1], (20, 1))
    found = evaluate_predictions(
        scores, np.zeros(20, int), CLASSES,
        minimum_cell=1, positive_classes=POSITIVE, statistics=EVERYTHING,
    )  # fmt: skip
    assert found.decision is not None
    assert threshold_for(found.decision, 0.9) is None
    assert rates_at(found.decision, 0.5).sensitivity is None


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cases=st.integers(0, 400), minimum=st.integers(2, 20))
def test_no_small_count_leaves_nor_follows(seed: int, cases: int, minimum: int) -> None:
    _, _, found = counted(seed, cases, minimum=minimum)
    for counts in (found, *(part.counts for part in found.subgroups)):
        assert all(count == 0 or count >= minimum for count in counts.cells())
    assert found.calibration is not None
    # The number of wrong answers is the confusion matrix's, not the true one behind it.
    assert found.calibration.right.total == found.correct
    assert found.calibration.cases == found.cases
    for axis in GROUPS:
        parts = [part.counts.totals() for part in found.subgroups if part.axis == axis]
        for k, whole in enumerate(found.totals()):
            rest = whole - sum(part[k] for part in parts)
            assert rest == 0 or rest >= minimum


def test_the_last_small_group_does_not_follow_from_the_others() -> None:
    """Of 60 women and 3 men nothing is told by sex: the men would be what is left."""
    scores, labels = predictions(0, 63, 2, 1.0, 1.0)
    labels = np.zeros(63, dtype=int)
    sex = np.where(np.arange(63) < 60, 0, 1)
    both = CaseGroups(age=np.full(63, 1), sex=sex)
    found = evaluate_predictions(
        scores, labels, ("a", "b"), minimum_cell=5, statistics=("subgroups",), groups=both
    )
    assert [(part.axis, part.group) for part in found.subgroups] == [("age", "40-59")]


def test_only_what_is_asked_for_is_counted() -> None:
    scores, labels = predictions(0, 90, 3, 1.0, 1.0)
    found = evaluate_predictions(scores, labels, CLASSES, minimum_cell=1, groups=groups(0, 90))
    assert (found.decision, found.calibration, found.subgroups) == (None, None, ())


def test_sums_take_in_what_each_site_releases() -> None:
    _, _, full = counted(1, 300)
    scores, labels = predictions(2, 200, 3, 1.0, 1.0)
    bare = evaluate_predictions(scores, labels, CLASSES, minimum_cell=1)
    total = merge([full, bare, full])
    assert total.cases == 800
    assert total.decision is not None
    assert total.decision.cases == 600
    assert [(p.group, p.counts.cases) for p in total.subgroups] == [
        (p.group, 2 * p.counts.cases) for p in full.subgroups
    ]
    assert merge([merge([full, bare]), full]) == total
    assert SiteEvaluation.model_validate_json(total.model_dump_json()) == total


def spoilt(**changes: object) -> dict[str, object]:
    return counted(1, 300)[2].model_dump() | changes


def test_a_false_report_is_refused() -> None:
    whole = counted(1, 300)[2].model_dump()
    part = whole["subgroups"][0]
    other = Counts.model_validate(part["counts"]).model_copy(update={"classes": ("x", "y", "z")})
    larger = counted(2, 900)[2].model_dump(exclude={"subgroups"})
    many, few = larger["negatives"][0], whole["positives"][0]
    changed: tuple[dict[str, object], ...] = (
        {"decision": {"positives": few, "negatives": many}},
        {"calibration": {"right": many, "wrong": few}},
        {"subgroups": [part, part]},
        {"subgroups": [part | {"group": "jane"}]},
        {"subgroups": [part | {"axis": "name"}]},
        {"subgroups": [part | {"counts": other.model_dump()}]},
        {"subgroups": [part | {"counts": larger}]},
    )
    for changes in changed:
        with pytest.raises(ValidationError):
            SiteEvaluation.model_validate(spoilt(**changes))
