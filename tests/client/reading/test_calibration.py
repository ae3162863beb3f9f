import numpy as np
import pytest

from client.reading.calibration import calibrated, fit_temperature, log_probabilities
from client.reading.parts import NotEnough
from tests.client.reading.holdouts import K, holdout, softmax


@pytest.mark.parametrize("heat", [0.5, 3.0])
def test_the_temperature_of_an_over_or_unsure_network_is_found(heat: float) -> None:
    scores = holdout(400, heat=heat)
    found = fit_temperature(scores.logits, scores.labels, scores.patients)
    assert found == pytest.approx(heat, rel=0.2)


def test_calibrated_probabilities_say_how_often_they_are_right() -> None:
    scores, new = holdout(400, heat=3.0), holdout(2000, heat=3.0, seed=1)
    heat = fit_temperature(scores.logits, scores.labels, scores.patients)

    def gap(temperature: float | None) -> float:
        rows = calibrated(new.logits, temperature)
        return float(abs(rows.max(axis=1).mean() - (rows.argmax(axis=1) == new.labels).mean()))

    assert gap(heat) < 0.03 < 0.2 < gap(None)


@pytest.mark.parametrize(("patients", "heat"), [(39, 3.0), (200, 0.001), (100, 1000.0)])
def test_nothing_is_fitted_that_the_holdout_cannot_tell(patients: int, heat: float) -> None:
    """Too few patients; no wrong answer to learn from; labels that have nothing to do with it."""
    scores = holdout(patients, heat=heat)
    with pytest.raises(NotEnough):
        fit_temperature(scores.logits, scores.labels, scores.patients)


def test_one_patient_with_many_images_does_not_decide() -> None:
    scores = holdout(100, heat=1.0)
    flood = holdout(1, images=3000, heat=1000.0, seed=3)
    logits = np.concatenate([scores.logits, flood.logits])
    labels = np.concatenate([scores.labels, flood.labels])
    patients = np.concatenate([scores.patients, flood.patients + 100])
    try:
        found = fit_temperature(logits, labels, patients)
    except NotEnough:
        return  # no gain: as it should be without the flood
    assert found == pytest.approx(1.0, abs=0.25)


def test_a_temperature_reaches_models_together_as_it_does_one() -> None:
    logits = np.random.default_rng(0).normal(size=(5, K))
    again = log_probabilities(softmax(logits))
    np.testing.assert_allclose(calibrated(again, 2.5), calibrated(logits, 2.5), atol=1e-12)
    assert np.isfinite(calibrated(log_probabilities(np.eye(3)), 0.2)).all()
