"""What two histograms of one report tell together: never of fewer cases than the smallest cell."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from common.evaluation import CaseGroups, SiteEvaluation, evaluate_predictions
from common.evaluation_counts import Statistic
from common.score_histogram import BINS, LOG_ODDS_LIMIT, ScoreHistogram, area_under_curve
from tests.common.test_evaluation import predictions

EVERYTHING: tuple[Statistic, ...] = ("decision", "calibration", "subgroups")
SEEDS = st.integers(0, 2**32 - 1)


def ends(histogram: ScoreHistogram) -> set[int]:
    """Return after how many cases, from the lowest score on, a run of a histogram ends."""
    columns = (histogram.starts, histogram.widths, histogram.counts)
    runs = sorted((start + width / 2, cases) for start, width, cases in zip(*columns, strict=True))
    return {0, *np.cumsum([cases for _, cases in runs]).tolist()}


def apart(*histograms: ScoreHistogram) -> list[int]:
    """Return how many cases lie between neighbouring ends of histograms of the same cases."""
    return [b - a for a, b in pairwise(sorted(set().union(*map(ends, histograms))))]


def two_classes(seed: int, cases: int, minimum: int, signal: float) -> SiteEvaluation:
    scores, labels = predictions(seed, cases, 2, signal, 1.0, skew=0.5)
    return evaluate_predictions(
        scores, labels, ("a", "b"), minimum_cell=minimum,
        positive_classes=("b",), statistics=EVERYTHING[:2],
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(0, 400), st.integers(2, 20), st.floats(-1, 5))
def test_of_two_classes_every_histogram_has_the_same_runs(
    seed: int, cases: int, minimum: int, signal: float
) -> None:
    found = two_classes(seed, cases, minimum, signal)
    decision, calibration = found.decision, found.calibration
    assert decision is not None
    assert calibration is not None
    for k, of_decision in enumerate((decision.negatives.mirrored(), decision.positives)):
        mine, others = found.positives[k], found.negatives[1 - k]
        gaps = apart(mine, others.mirrored(), of_decision)
        assert all(gap >= minimum for gap in gaps)
        assert others == mine.mirrored()
    runs = ScoreHistogram.merge([calibration.right, calibration.wrong.mirrored()])
    assert runs == ScoreHistogram.merge(list(found.positives))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(30, 300), st.integers(2, 20), st.floats(0, 5))
def test_where_right_answers_end_a_run_ends(
    seed: int, cases: int, minimum: int, signal: float
) -> None:
    """Else the confusion matrix would split a run, and calibration tell the mean of a part."""
    found = two_classes(seed, cases, minimum, signal)
    for k, mine in enumerate(found.positives):
        assert mine.total - found.confusion[k][k] in ends(mine)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(50, 300), st.integers(2, 20))
def test_where_all_classes_but_one_are_positive_its_runs_are_the_decisions(
    seed: int, cases: int, minimum: int
) -> None:
    scores, labels = predictions(seed, cases, 3, 1.0, 1.0)
    found = evaluate_predictions(
        scores, labels, ("a", "b", "c"), minimum_cell=minimum,
        positive_classes=("b", "c"), statistics=EVERYTHING,
    ).decision  # fmt: skip
    whole = evaluate_predictions(scores, labels, ("a", "b", "c"), minimum_cell=minimum)
    assert found is not None
    assert found.positives == whole.negatives[0].mirrored()
    assert found.negatives == whole.positives[0].mirrored()


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(50, 300), st.integers(2, 20))
def test_two_classes_beside_one_that_never_comes_are_as_two(
    seed: int, cases: int, minimum: int
) -> None:
    """The third class has no case, and hardly any probability."""
    two, labels = predictions(seed, cases, 2, 1.0, 1.0)
    scores = np.column_stack([two * (1 - 1e-9), np.full(cases, 1e-9)])
    found = evaluate_predictions(scores, labels, ("a", "b", "c"), minimum_cell=minimum)
    for k in (0, 1):
        gaps = apart(found.positives[k], found.negatives[1 - k].mirrored())
        assert all(gap >= minimum for gap in gaps)


def test_a_subgroup_of_all_cases_has_the_runs_of_the_whole() -> None:
    """Women alone are seen at a breast centre: 1,000 of them, in coarser runs, would tell more."""
    cases = 1000
    scores, labels = predictions(5, cases, 2, 1.0, 1.0)
    women = CaseGroups(age=np.arange(cases) % 4, sex=np.zeros(cases, dtype=int))
    found = evaluate_predictions(
        scores, labels, ("a", "b"), minimum_cell=10,
        positive_classes=("b",), statistics=EVERYTHING, groups=women,
    )  # fmt: skip
    (sex,) = [part.counts for part in found.subgroups if part.axis == "sex"]
    assert (sex.positives, sex.negatives) == (found.positives, found.negatives)
    assert sex.decision == found.decision
    (age, *_) = [part.counts for part in found.subgroups if part.axis == "age"]
    assert 0 < len(age.positives[0].counts) <= 64


def test_an_even_answer_is_a_tie_for_both_classes() -> None:
    even = evaluate_predictions(
        np.full((40, 2), 0.5), np.arange(40) % 2, ("a", "b"), minimum_cell=5
    )
    assert even.positives == even.negatives
    assert [histogram.starts for histogram in even.positives] == [(BINS // 2 - 1,), (BINS // 2,)]


def test_a_bin_that_is_a_run_by_itself_is_told_by_itself() -> None:
    """The few cases before it go to the run before them."""
    bins = np.repeat([200, 300, 400, BINS - 1], [3, 3, 3, 600])
    told = ScoreHistogram.count(bins, 5)
    runs = dict(zip(zip(told.starts, told.widths, strict=True), told.counts, strict=True))
    assert runs.pop((BINS - 1, 1)) == 600
    assert list(runs.values()) == [9]


@pytest.mark.parametrize("minimum", [5, 10])
@pytest.mark.parametrize("seed", range(8))
def test_a_sure_model_has_its_area(seed: int, minimum: int) -> None:
    """Most of its scores lie at the grid's ends; ties with them are half a pair each."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(1_000) < 100).astype(np.int64)
    odds = 6 * (np.where(labels == 1, 0.6, -0.6) + generator.normal(size=1_000) - 1.8)
    odds = np.clip(odds, -LOG_ODDS_LIMIT, LOG_ODDS_LIMIT)
    sick = 1 / (1 + np.exp(-odds))
    report = evaluate_predictions(
        np.stack([1 - sick, sick], axis=1), labels, ("a", "b"), minimum_cell=minimum
    )
    for positive, negative in zip(report.positives, report.negatives, strict=True):
        area = area_under_curve(positive, negative)
        assert area == pytest.approx(roc_auc_score(labels, odds), abs=0.01)
