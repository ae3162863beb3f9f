import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from common.errors import InputRefused, ModelError
from common.evaluation import SiteEvaluation, evaluate_predictions, merge, metrics
from common.score_histogram import BINS, LOG_ODDS_LIMIT, ScoreHistogram

CLASSES = ("a", "b", "c")


def predictions(
    seed: int, cases: int, classes: int, signal: float, spread: float, skew: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    shares = np.array([skew**k for k in range(classes)])
    labels = generator.choice(classes, size=cases, p=shares / shares.sum())
    logits = spread * generator.normal(size=(cases, classes))
    logits[np.arange(cases), labels] += signal
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True), labels


def tied_beyond(truth: np.ndarray, scores: np.ndarray) -> int:
    """Count the pairs of a case and a control that both lie beyond the same end of the grid."""
    with np.errstate(divide="ignore"):
        odds = np.log(scores) - np.log1p(-scores)
    ends = (odds < -LOG_ODDS_LIMIT, odds > LOG_ODDS_LIMIT)
    return sum(int((truth & end).sum() * (~truth & end).sum()) for end in ends)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cases=st.integers(30, 800),
    classes=st.integers(2, 8),
    signal=st.floats(-1, 5),
    spread=st.floats(0.3, 4),
)
def test_unsuppressed_metrics_agree_with_scikit_learn(
    seed: int, cases: int, classes: int, signal: float, spread: float
) -> None:
    scores, labels = predictions(seed, cases, classes, signal, spread)
    names = tuple(f"class-{k}" for k in range(classes))
    found = metrics(evaluate_predictions(scores, labels, names, minimum_cell=1))
    for k in range(classes):
        truth = labels == k
        if truth.any() and not truth.all():
            pairs = int(truth.sum() * (~truth).sum())
            exact = roc_auc_score(truth, scores[:, k])
            # A tied pair is worth a half. All beyond the grid's ends are tied there; among the
            # others a few ties may already weigh more than 0.005.
            ends = (tied_beyond(truth, scores[:, k]) + 3) * 0.5 / pairs
            assert found.auroc[k] == pytest.approx(exact, abs=max(0.005, ends))
        else:
            assert found.auroc[k] is None
    answers = scores.argmax(axis=1)
    assert found.count == cases
    assert found.accuracy == pytest.approx((answers == labels).mean())
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, answers))
    assert found.majority_baseline == pytest.approx(np.bincount(labels).max() / cases)


def test_certain_and_impossible_scores_and_ties_are_counted() -> None:
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
    found = metrics(
        evaluate_predictions(scores, np.array([0, 1, 0, 1]), ("a", "b"), minimum_cell=1)
    )
    assert found.auroc == (0.875, 0.875)


def test_scores_near_one_keep_their_order() -> None:
    """A grid of probabilities would put all of these into one bin."""
    positive = np.array([0.9990, 0.9995, 0.9998, 0.9999])
    scores = np.stack([1 - positive, positive], axis=1)
    found = metrics(
        evaluate_predictions(scores, np.array([0, 0, 1, 1]), ("a", "b"), minimum_cell=1)
    )
    assert found.auroc == (1.0, 1.0)


def cells(evaluation: SiteEvaluation) -> list[int]:
    counts = [count for row in evaluation.confusion for count in row] + list(evaluation.unresolved)
    for histogram in (*evaluation.positives, *evaluation.negatives):
        counts += histogram.counts
    return counts


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cases=st.integers(0, 300),
    classes=st.integers(2, 6),
    minimum=st.integers(2, 20),
    signal=st.floats(-1, 6),
)
def test_no_small_cell_leaves_nor_follows_from_totals(
    seed: int, cases: int, classes: int, minimum: int, signal: float
) -> None:
    scores, labels = predictions(seed, cases, classes, signal, 1.0, skew=0.4)
    names = tuple(f"class-{k}" for k in range(classes))
    evaluation = evaluate_predictions(scores, labels, names, minimum_cell=minimum)
    assert all(count == 0 or count >= minimum for count in cells(evaluation))
    exact = np.bincount(labels, minlength=classes)
    reported = [histogram.total for histogram in evaluation.positives]
    assert reported == [int(n) if n >= minimum else 0 for n in exact]
    for k, negative in enumerate(evaluation.negatives):
        # Left-out classes are nowhere: their number does not follow from the others' negatives.
        assert negative.total == sum(reported) - reported[k]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), minimum=st.integers(2, 20), signal=st.floats(0, 6))
def test_suppression_never_flatters_accuracy(seed: int, minimum: int, signal: float) -> None:
    scores, labels = predictions(seed, 150, 3, signal, 1.0)
    exact = metrics(evaluate_predictions(scores, labels, CLASSES, minimum_cell=1))
    found = metrics(evaluate_predictions(scores, labels, CLASSES, minimum_cell=minimum))
    for hidden, true in zip(found.sensitivity, exact.sensitivity, strict=True):
        assert hidden is None or (true is not None and hidden <= true + 1e-12)


def test_suppressed_auroc_of_a_usual_site_stays_near() -> None:
    scores, labels = predictions(1, 400, 3, 1.0, 1.0)
    exact = metrics(evaluate_predictions(scores, labels, CLASSES, minimum_cell=1)).macro_auroc
    found = metrics(evaluate_predictions(scores, labels, CLASSES, minimum_cell=5)).macro_auroc
    assert found == pytest.approx(exact, abs=0.01)


def test_one_error_cannot_be_told_from_a_few() -> None:
    labels = np.array([0] * 40 + [1] * 40)
    reports = []
    for wrong in (1, 2, 4):
        positive = np.where(labels == 1, 0.9, 0.1)
        positive[:wrong] = 0.9
        scores = np.stack([1 - positive, positive], axis=1)
        reports.append(evaluate_predictions(scores, labels, ("a", "b"), minimum_cell=5))
    assert reports[0].confusion == reports[1].confusion == reports[2].confusion
    assert reports[0].unresolved == (5, 0)


def test_a_row_with_few_of_everything_is_all_unresolved() -> None:
    scores = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    labels = np.zeros(6, dtype=int)
    evaluation = evaluate_predictions(scores, labels, CLASSES, minimum_cell=5)
    assert evaluation.confusion[0] == (0, 0, 0)
    assert evaluation.unresolved == (6, 0, 0)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 200), max_size=4),
)
def test_merge_of_parts_is_the_whole(seed: int, cuts: list[int]) -> None:
    scores, labels = predictions(seed, 200, 3, 1.0, 1.0)
    whole = evaluate_predictions(scores, labels, CLASSES, minimum_cell=1)
    edges = [0, *sorted(cuts), 200]
    parts = [
        evaluate_predictions(scores[a:b], labels[a:b], CLASSES, minimum_cell=1)
        for a, b in pairwise(edges)
    ]
    assert merge(parts) == whole
    assert merge(parts[::-1]) == whole


def test_suppressed_reports_merge_whatever_their_ranges() -> None:
    reports = []
    for seed in range(4):
        scores, labels = predictions(seed, 100, 3, 1.0, 1.0)
        reports.append(evaluate_predictions(scores, labels, CLASSES, minimum_cell=5))
    total = merge(reports)
    assert total.cases == 400
    assert merge([merge(reports[:2]), merge(reports[2:])]) == total
    assert metrics(total).macro_auroc == pytest.approx(
        np.mean([metrics(r).macro_auroc or 0 for r in reports]), abs=0.06
    )


def test_different_classes_do_not_merge() -> None:
    one = evaluate_predictions(np.zeros((0, 2)), np.zeros(0, int), ("a", "b"), minimum_cell=1)
    other = evaluate_predictions(np.zeros((0, 2)), np.zeros(0, int), ("b", "a"), minimum_cell=1)
    with pytest.raises(InputRefused):
        merge([one, other])
    with pytest.raises(InputRefused):
        merge([])


def test_no_case_is_no_metric() -> None:
    found = metrics(
        evaluate_predictions(np.zeros((0, 3)), np.zeros(0, int), CLASSES, minimum_cell=5)
    )
    assert (found.count, found.macro_auroc, found.accuracy, found.majority_baseline) == (
        0, None, None, None,
    )  # fmt: skip


def test_one_class_only_has_an_accuracy_but_no_auroc() -> None:
    scores = np.tile([0.7, 0.3], (20, 1))
    found = metrics(evaluate_predictions(scores, np.zeros(20, int), ("a", "b"), minimum_cell=5))
    assert (found.accuracy, found.macro_auroc, found.majority_baseline) == (1.0, None, 1.0)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (np.zeros((2, 3)), np.zeros(3, int)),
        (np.zeros((2, 2)), np.zeros(2, int)),
        (np.zeros((2, 3)), np.array([0, 3])),
        (np.zeros((2, 3)), np.array([0, -1])),
        (np.zeros(3), np.zeros(3, int)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(scores: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(InputRefused, match=r"shape|classes"):
        evaluate_predictions(scores, labels, CLASSES, minimum_cell=1)


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_what_is_no_probability_is_refused(value: float) -> None:
    scores = np.full((4, 3), value)
    with pytest.raises(ModelError) as caught:
        evaluate_predictions(scores, np.zeros(4, int), CLASSES, minimum_cell=1)
    assert caught.value.code == "evaluation-not-finite"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_no_number_counts_as_every_class_alike(
    value: float, caplog: pytest.LogCaptureFixture
) -> None:
    scores, labels = predictions(0, 120, 3, 1.0, 1.0)
    lost, even = scores.copy(), scores.copy()
    lost[7, 1], even[7] = value, 1 / 3
    found = evaluate_predictions(lost, labels, CLASSES, minimum_cell=5)
    assert found == evaluate_predictions(even, labels, CLASSES, minimum_cell=5)
    assert [r.getMessage() for r in caplog.records] == ["predictions-not-finite"]
    assert np.isnan(lost[7, 1]) == np.isnan(value)  # the caller's own are left alone


def document() -> dict[str, object]:
    scores, labels = predictions(0, 120, 3, 1.0, 1.0)
    report = evaluate_predictions(scores, labels, CLASSES, minimum_cell=5)
    loaded: dict[str, object] = json.loads(report.model_dump_json())
    return loaded


def test_a_report_survives_json() -> None:
    text = json.dumps(document())
    assert SiteEvaluation.model_validate_json(text).model_dump_json() == text.replace(" ", "")


def _spoil(path: tuple[object, ...], value: object) -> dict[str, object]:
    report = document()
    target: object = report
    for step in path[:-1]:
        target = target[step]  # type: ignore[index]
    target[path[-1]] = value  # type: ignore[index]
    return report


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("confusion", 0, 0), -5),
        (("confusion", 0, 0), 10**12),
        (("confusion", 0, 0), 3),
        (("confusion", 0, 0), 999),
        (("confusion", 0), [50]),
        (("unresolved",), [0]),
        (("unresolved", 1), 3),
        (("classes",), ["a", "b"]),
        (("classes",), ["a", "a", "b"]),
        (("minimum_cell",), 0),
        (("minimum_cell",), 50),
        (("positives", 0, "counts", 0), 0),
        (("positives", 0, "counts", 0), 1000),
        (("positives", 0, "starts", 0), BINS),
        (("positives", 0, "starts", 0), -1),
        (("positives", 0, "widths", 0), 0),
        (("positives", 0, "widths", 0), BINS + 1),
        (("positives", 0, "starts"), [1]),
        (("positives",), []),
        (("negatives", 0), {"starts": [], "widths": [], "counts": []}),
        (("extra",), 1),
    ],
)
def test_a_false_report_is_refused(path: tuple[object, ...], value: object) -> None:
    with pytest.raises(ValidationError):
        SiteEvaluation.model_validate(_spoil(path, value))


def test_histogram_ranges_are_in_order() -> None:
    with pytest.raises(ValidationError, match="increasing"):
        ScoreHistogram(starts=(5, 2), widths=(1, 1), counts=(1, 1))
    with pytest.raises(ValidationError, match="outside"):
        ScoreHistogram(starts=(BINS - 1,), widths=(2,), counts=(1,))


def test_density_spreads_a_range_and_keeps_the_total() -> None:
    histogram = ScoreHistogram(starts=(0, 2, 4), widths=(4, 1, 2), counts=(8, 3, 5))
    density = histogram.density()
    assert density[:6] == pytest.approx([2, 2, 5, 2, 2.5, 2.5])
    assert density.sum() == pytest.approx(16)
