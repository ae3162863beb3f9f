"""Figures over confirmed cases are right, uncertain as they should be, and cry when they may."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from client.monitoring import resampling as module
from client.monitoring.comparison import Interval
from client.monitoring.outcomes import Outcome
from client.monitoring.performance import Figure, Performance, broken, by_month, performance
from client.monitoring.promise import FigureName, Promise
from client.monitoring.rates import wilson
from tests.client.monitoring.outcomes import BEGUN, drawn, outcome


def of(found: Performance, name: FigureName) -> Interval:
    interval = next(figure.interval for figure in found.figures if figure.name == name)
    assert interval is not None
    return interval


def since_release(outcomes: list[Outcome], minimum: int = 10) -> Performance:
    return performance(outcomes, version=1, month=None, minimum=minimum)


def test_the_figures_are_what_counting_gives() -> None:
    outcomes = drawn(400, 0.9, 0.8)
    found = since_release(outcomes)
    caught = [one.positive for one in outcomes if one.harmful]
    assert of(found, "sensitivity").estimate == pytest.approx(np.mean(caught))
    labels = [one.harmful for one in outcomes]
    scores = [one.probabilities[1] for one in outcomes]
    assert of(found, "auroc").estimate == pytest.approx(roc_auc_score(labels, scores))
    assert (found.positives, found.negatives) == (200, 200)
    for figure in found.figures:
        assert figure.interval is not None
        assert 0 <= figure.interval.low <= figure.interval.estimate <= figure.interval.high <= 1


def test_ties_of_the_score_count_one_half() -> None:
    rows = [(True, 0.5), (True, 0.7), (False, 0.5), (False, 0.3), (False, 0.7)] * 8
    found = since_release([outcome(harmful=h, called=s >= 0.5, score=s) for h, s in rows])
    wanted = roc_auc_score([h for h, _ in rows], [s for _, s in rows])
    assert of(found, "auroc").estimate == pytest.approx(wanted)


def test_wilson_is_sure_of_nothing_after_a_few_right_answers() -> None:
    assert wilson(10, 10).low == pytest.approx(0.601, abs=1e-3)  # 10 / (10 + 2.576 ** 2)
    assert wilson(10, 10).high == 1.0
    perfect = [outcome(harmful=n < 12, called=n < 12, score=n < 12 or 0.1) for n in range(24)]
    assert of(since_release(perfect), "auroc").low == pytest.approx(wilson(12, 12).low)


def test_of_fewer_cases_than_the_smallest_cell_nothing_is_told() -> None:
    outcomes = drawn(60, 0.9, 0.9)[::2][:9] + drawn(60, 0.9, 0.9)[1::2]
    found = since_release(outcomes)
    told = {figure.name: figure.interval for figure in found.figures}
    assert found.positives is None
    assert told["sensitivity"] is None
    assert told["auroc"] is None
    assert found.negatives == 30
    assert told["specificity"] is not None
    assert all(figure.interval is None for figure in since_release([]).figures)


def test_a_calibrated_model_has_next_to_no_error_and_a_bold_one_has() -> None:
    generator = np.random.default_rng(0)

    def answers(bold: float) -> list[Outcome]:
        rows = []
        for _ in range(600):
            true = generator.uniform(0.05, 0.95)
            said = float(1 / (1 + (1 / true - 1) ** bold))
            harmful = bool(generator.random() < true)
            rows.append(outcome(harmful=harmful, called=said >= 0.5, score=said))
        return rows

    calibrated = [of(since_release(answers(1.0)), "calibration-error") for _ in range(12)]
    assert np.mean([one.estimate for one in calibrated]) < 0.025  # uncorrected it is 0.04
    assert sum(one.low > 0 for one in calibrated) <= 1
    assert of(since_release(answers(4.0)), "calibration-error").low > 0.08


def test_a_promise_is_broken_only_where_the_whole_interval_is_below_it() -> None:
    promise = Promise(sensitivity=0.95, specificity=0.6, auroc=0.9, calibration_error=0.05)
    few = [outcome(harmful=True, called=n < 8) for n in range(10)]
    assert broken(since_release(few), promise) == ()  # 8 of 10: nothing is shown by so few
    found = since_release(drawn(400, 0.8, 0.9))
    assert broken(found, promise) == ("sensitivity", "auroc", "calibration-error")
    assert Figure("sensitivity", Interval(0.9, 0.93, 0.97)).standing(0.95) == "open"
    assert Figure("sensitivity", Interval(0.96, 0.97, 0.98)).standing(0.95) == "held"
    assert Figure("calibration-error", Interval(0.01, 0.02, 0.04)).standing(0.05) == "held"
    assert Figure("calibration-error", Interval(0.06, 0.08, 0.1)).standing(0.05) == "broken"
    assert Figure("sensitivity", None).standing(0.95) is None
    assert Figure("sensitivity", Interval(0, 0, 0)).standing(None) is None


def test_a_kept_promise_seldom_raises_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAWS", 2)  # they are not of the rates
    promise = Promise(sensitivity=0.9, specificity=0.8)
    raised = [broken(since_release(drawn(200, 0.9, 0.8, seed=n)), promise) for n in range(150)]
    assert sum(bool(names) for names in raised) <= 6  # 1.5 expected: 0.5 % for either figure


def test_months_and_releases_are_told_apart() -> None:
    later = BEGUN + timedelta(days=31)
    rows: list[tuple[int, datetime]] = [(1, BEGUN), (1, later), (2, later)]
    outcomes = [
        outcome(harmful=n % 2 == 0, called=True, version=version, at=moment)
        for version, moment in rows
        for n in range(30)
    ]
    months = by_month(outcomes, minimum=10, known={})
    found = [month.found for month in months.values()]
    assert [(one.month, one.version) for one in found] == [
        ("2026-03", 1), ("2026-04", 1), ("2026-04", 2),
    ]  # fmt: skip
    assert all(one.positives == 15 for one in found)
    extra = outcome(harmful=True, called=True, version=2, at=later)
    again = by_month([*outcomes, extra], minimum=10, known=months)
    kept = [again[key] is months[key] for key in months]
    assert kept == [True, True, False]
    assert again["2026-04", 2].found.positives == 16
    stricter = by_month(outcomes, minimum=16, known=months)
    assert all(month.found.positives is None for month in stricter.values())
