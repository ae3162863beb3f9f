"""The interval of the calibration error holds the truth as often as it says, near 0 too."""

import numpy as np
import pytest

from common.evaluation import evaluate_predictions
from common.evaluation_counts import CalibrationCounts
from common.evaluation_figures import calibration_bins, calibration_error
from server.calibration_interval import calibration_estimate

SAMPLES = 60


def answers(sureness: float, cases: int, generator: np.random.Generator) -> CalibrationCounts:
    """Answers whose log-odds are ``sureness`` times what they should be."""
    log_odds = generator.normal(0.0, 1.5, size=cases)
    labels = (generator.random(cases) < 1 / (1 + np.exp(-log_odds))).astype(int)
    said = 1 / (1 + np.exp(-sureness * log_odds))
    told = evaluate_predictions(
        np.stack([1 - said, said], axis=1), labels, ("benign", "malignant"), minimum_cell=1,
        statistics=("calibration",),
    )  # fmt: skip
    assert told.calibration is not None
    return told.calibration


@pytest.mark.parametrize(("sureness", "cases"), [(1.0, 300), (0.7, 300), (1.5, 150), (2.5, 300)])
def test_95_percent_intervals_hold_the_true_calibration_error(sureness: float, cases: int) -> None:
    generator = np.random.default_rng(11)
    truth = calibration_error(calibration_bins(answers(sureness, 100_000, generator)))
    assert truth is not None
    held = 0
    for _ in range(SAMPLES):
        found = calibration_estimate(answers(sureness, cases, generator), generator)
        assert found is not None
        assert found.lower <= found.value <= found.upper
        held += found.lower <= truth + 0.001 and truth <= found.upper
    # With a coverage of 0.95, 60 samples give fewer than 0.87 once in a hundred times.
    assert held / SAMPLES >= 0.87, held / SAMPLES


def test_a_calibrated_model_may_be_perfect_and_a_sure_one_is_not() -> None:
    generator = np.random.default_rng(2)
    good = calibration_estimate(answers(1.0, 2000, generator), generator)
    bad = calibration_estimate(answers(3.0, 2000, generator), generator)
    assert good is not None
    assert bad is not None
    assert good.value > 0
    assert good.lower < 0.005
    assert bad.lower > 0.1


def test_one_case_is_no_certainty() -> None:
    one = calibration_estimate(answers(1.0, 1, np.random.default_rng(0)), np.random.default_rng(0))
    assert one is not None
    assert one.lower == 0.0
    assert calibration_estimate(CalibrationCounts(), np.random.default_rng(0)) is None
