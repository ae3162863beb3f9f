"""One temperature for a site: how much surer, or less sure, the model is than it is right there.

Guo et al. 2017 (arXiv:1706.04599). It changes no order of classes; thresholds are held against
the uncalibrated probability (`client.reading.operating_point`), so it changes no verdict either.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar

from client.inference.outputs import Logits, Probabilities, probabilities_of
from client.reading.parts import NotEnough
from client.reading.patients import Groups, Numbers, count, folds, weights

FEWEST_PATIENTS = 40
FEWEST_WRONG = 5
"""Patients with a wrong answer: without errors, sureness cannot be compared with being right."""
COLDEST, HOTTEST = 0.2, 10.0
_FOLDS = 5
_NEAR = 1.001


def fit_temperature(logits: Logits, labels: Groups, patients: Groups) -> float:
    """Return the temperature that makes the right classes likeliest, patient by patient.

    It is kept only if it also does so for patients that it was not fitted on (five folds).

    Parameters
    ----------
    logits : ndarray of float64, (N, K)
    labels, patients : ndarray of int64, (N,)

    Raises
    ------
    NotEnough
        With too few patients or errors, no gain on unseen patients, or a fit at its bounds.
    """
    number = count(patients)
    if number < FEWEST_PATIENTS:
        raise NotEnough(f"{number} holdout patients; {FEWEST_PATIENTS} are needed")
    wrong = count(patients[logits.argmax(axis=1) != labels])
    if wrong < FEWEST_WRONG:
        raise NotEnough(f"{wrong} patients with a wrong likeliest class; {FEWEST_WRONG} are needed")
    fitted = _fit(logits, labels, patients)
    if not COLDEST * _NEAR < fitted < HOTTEST / _NEAR:
        raise NotEnough(f"no temperature from {COLDEST:g} to {HOTTEST:g} fits")
    parts, unseen = folds(patients, _FOLDS), np.zeros(len(labels))
    for fold in range(_FOLDS):
        out = parts == fold
        theirs = _fit(logits[~out], labels[~out], patients[~out])
        unseen[out] = _losses(logits[out], labels[out], theirs)
    gain = weights(patients) @ (_losses(logits, labels, 1.0) - unseen)
    if gain <= 0:
        raise NotEnough("no temperature describes unseen patients better than the release does")
    return fitted


def calibrated(logits: Logits, temperature: float | None) -> Probabilities:
    """Return the probabilities at a temperature; None is the release's own."""
    return probabilities_of(logits if temperature is None else logits / temperature)


def log_probabilities(probabilities: Probabilities) -> Logits:
    """Return logits of given probabilities: a temperature then applies to models together."""
    result: Logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return result


def _fit(logits: Logits, labels: Groups, patients: Groups) -> float:
    share = weights(patients)

    def loss(log_temperature: float) -> float:
        return float(share @ _losses(logits, labels, math.exp(log_temperature)))

    bounds = (math.log(COLDEST), math.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return math.exp(float(found.x))


def _losses(logits: Logits, labels: Groups, temperature: float) -> Numbers:
    scaled = logits / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    result: Numbers = np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(labels)), labels]
    return result
