"""How sure an expected calibration error (ECE) is.

The ECE of a sample is too large: chance alone parts confidence and accuracy in every bin (Kumar,
Liang and Ma 2019, arXiv:1909.10155, section 4; Roelofs et al. 2022, arXiv:2012.08668). A bootstrap
adds chance to chance, and its intervals, plain, turned round or debiased, held the truth in 54 to
92 % of samples of 100 to 1200 cases. So each end is found by itself:

- *Upper end*: the sample's ECE plus 1.96 standard errors by bootstrap. Since the sample's is too
  large, this is on the safe side.
- *Lower end*, by inverting a test: the smallest ECE from which samples as large as this one still
  come in more than 2.5 % of cases. It is asked of gaps shaped like the sample's own, each shrunk
  by what chance adds to it (positive-part James and Stein 1961), and scaled. For a model that is
  calibrated this reaches 0.

``tests/bench/evaluation.py`` measures how often the interval holds the truth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.evaluation_counts import CalibrationCounts
from common.evaluation_figures import calibration_bins, calibration_error
from server.evaluation_intervals import DRAWS, NORMAL_975, Estimate, Floats

HALVINGS = 7
"""Of the stretch from 0 to the sample's ECE, in which the lower end is looked for."""


def calibration_estimate(
    counts: CalibrationCounts, generator: np.random.Generator
) -> Estimate | None:
    """Return the expected calibration error of the top class, 15 bins; None without a case."""
    bins = calibration_bins(counts)
    value = calibration_error(bins)
    if value is None:
        return None
    said = np.array([b.confidence for b in bins])
    cases = np.array([b.cases for b in bins])
    right = np.minimum(cases * np.array([b.accuracy for b in bins]), cases)
    total = counts.cases
    spread = _errors_of_draws(said, right, cases, total, generator).std()
    lower = _lower_end(value, said, right, cases, generator)
    return Estimate(value, lower, min(1.0, value + NORMAL_975 * float(spread)))


def _errors_of_draws(
    said: Floats, right: Floats, cases: Floats, total: int, generator: np.random.Generator
) -> Floats:
    cells = np.concatenate([right, cases - right])
    drawn = generator.multinomial(total, cells / cells.sum(), size=DRAWS)
    hits, misses = drawn[:, : len(said)], drawn[:, len(said) :]
    return _errors(hits + misses, said, hits)


def _lower_end(
    value: float, said: Floats, right: Floats, cases: Floats, generator: np.random.Generator
) -> float:
    total = round(float(cases.sum()))
    share = cases / cases.sum()
    shape = _shape(said, right, cases)
    held = generator.multinomial(total, share, size=DRAWS)
    noise = generator.normal(size=held.shape)  # the same for every step, so that they compare

    def allows(error: float) -> bool:
        accuracy = np.clip(said - error * shape, 0.0, 1.0)
        hits = held * accuracy + noise * np.sqrt(held * accuracy * (1 - accuracy))
        return bool(np.quantile(_errors(held, said, np.clip(hits, 0, held)), 0.975) >= value)

    if allows(0.0):
        return 0.0
    low, high = 0.0, value
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if allows(middle) else (middle, high)
    return low


def _shape(said: Floats, right: Floats, cases: Floats) -> Floats:
    """Return gaps of confidence over accuracy by bin, in the shape of the sample's, of ECE 1."""
    share = cases / cases.sum()
    gap = said - right / cases
    likely = (right + 0.5) / (cases + 1)
    variance = likely * (1 - likely) / cases
    shrunk = gap * np.maximum(0.0, 1 - variance / np.maximum(gap**2, 1e-12))
    for found in (shrunk, gap):
        size = float((share * np.abs(found)).sum())
        if size > 1e-9:
            return np.asarray(found / size, dtype=np.float64)
    return np.ones_like(gap)


def _errors(held: NDArray[np.number], said: Floats, hits: NDArray[np.number]) -> Floats:
    """Return the ECE of each row of bins."""
    cases, right = held.astype(np.float64), hits.astype(np.float64)
    return np.asarray(np.abs(cases * said - right).sum(axis=1) / cases.sum(axis=1))
