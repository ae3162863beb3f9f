"""Whether two samples look alike: stability index, Kolmogorov-Smirnov, kernel discrepancy.

Each with how far chance alone could go: an interval, a p-value, or both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Sample = NDArray[np.float64]
Counts = NDArray[np.int64]

DRAWS = 400
PERMUTATIONS = 2000
TOGETHER = 250
"""Permutations that are computed at once: a bound on memory."""

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
FEWEST_EXPECTED = 5


@dataclass(frozen=True)
class Interval:
    """An estimate between its bounds of 95 % confidence."""

    low: float
    estimate: float
    high: float


@dataclass(frozen=True)
class Discrepancy:
    """A kernel discrepancy with its interval, and its p-value by permutation."""

    squared: Interval
    p_value: float


def bin_edges(old: Sample, bins: int) -> Sample:
    """Return the inner edges that cut a sample, float64 (N,), into bins of like size.

    A value that many share gets a bin of its own, so that new values on either side of it show.
    """
    cuts = np.quantile(old, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf")
    values, repeats = np.unique(cuts, return_counts=True)
    shared = values[repeats > 1]
    if len(np.unique(old)) <= bins:  # few values: one bin each, and those between and beyond
        values = shared = np.unique(old)
    return np.unique(np.concatenate([values, np.nextafter(shared, np.inf)]))


def binned(values: Sample, edges: Sample) -> Counts:
    """Return how many values lie in each of ``len(edges) + 1`` bins."""
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)


def stability(old: Counts, new: Counts, generator: np.random.Generator) -> Interval:
    """Return the population stability index of counts by bin, with a bootstrap interval.

    ``PSI = sum over bins of (q - p) * ln(q / p)``, half a case added to each bin. Of N and M cases
    that are alike it is about ``(bins - 1) * (1/N + 1/M)`` by chance (Yurdakul and Naranjo 2020,
    doi:10.21314/JRMV.2020.227): that is taken off, and so is what resampling adds once more.

    Parameters
    ----------
    old, new : ndarray of int64 (bins,)
        At least one case each.
    generator : numpy.random.Generator
        Of the bootstrap.
    """
    old, new = old[(old + new) > 0], new[(old + new) > 0]
    cases, others = int(old.sum()), int(new.sum())
    by_chance = (len(old) - 1) * (1 / cases + 1 / others)
    estimate = max(0.0, float(_index(old, new)) - by_chance)
    drawn = _index(
        generator.multinomial(cases, old / cases, size=DRAWS),
        generator.multinomial(others, new / others, size=DRAWS),
    )
    apart = np.quantile(drawn, (TAIL, 1 - TAIL)) - drawn.mean()
    return Interval(
        max(0.0, estimate + float(apart[0])), estimate, max(0.0, estimate + float(apart[1]))
    )


def population_stability(old: Counts, new: Counts) -> float:
    """Return the population stability index itself, as it is without any correction."""
    some = (old + new) > 0
    return float(_index(old[some], new[some]))


def mix_p_value(old: Counts, new: Counts) -> float:
    """Return how likely two counts by class differ so much by chance: a chi-squared test.

    Classes of which fewer than `FEWEST_EXPECTED` cases are expected on one side are taken together.
    """
    both = old + new
    shares = np.array([old.sum(), new.sum()]) / both.sum()
    rare = both * shares.min() < FEWEST_EXPECTED
    table = np.array([[*side[~rare], side[rare].sum()] for side in (old, new)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def kolmogorov_smirnov(old: Sample, new: Sample) -> tuple[float, float]:
    """Return the largest distance of two samples' distributions, and its p-value.

    The p-value is the asymptotic one, which is too large where values are shared: never a false
    alarm for that.
    """
    found = stats.ks_2samp(old, new, method="asymp")
    return float(found.statistic), float(min(1.0, found.pvalue))


def kernel_discrepancy(old: Sample, new: Sample, generator: np.random.Generator) -> Discrepancy:
    """Return the squared maximum mean discrepancy of two samples (Gretton et al. 2012, JMLR 13).

    The kernel is Gaussian, its width the median distance of all pairs. The estimate is the
    unbiased one (equation 3), the p-value is by `PERMUTATIONS` permutations. The interval is the
    normal one of a U-statistic; around 0, where its law is another, it is only about right.

    Parameters
    ----------
    old, new : ndarray of float64 (N, P), (M, P)
        N and M at least 2.
    generator : numpy.random.Generator
        Of the permutations.
    """
    kernel = _kernel(np.vstack([old, new]))
    size, others = len(old), len(new)
    within, beyond = kernel[:size, :size], kernel[size:, size:]
    across = kernel[:size, size:].astype(np.float64)
    of_old = (within.sum(axis=1, dtype=np.float64) - 1.0) / (size - 1) - across.mean(axis=1)
    of_new = (beyond.sum(axis=1, dtype=np.float64) - 1.0) / (others - 1) - across.mean(axis=0)
    estimate = float(of_old.mean() + of_new.mean())
    spread = 2.0 * np.sqrt(of_old.var(ddof=1) / size + of_new.var(ddof=1) / others)
    reach = float(stats.norm.ppf(1 - TAIL) * spread)
    interval = Interval(max(0.0, estimate - reach), max(0.0, estimate), max(0.0, estimate + reach))
    return Discrepancy(interval, _permuted(kernel, size, generator))


def adjusted(p_values: list[float]) -> list[float]:
    """Return Benjamini and Hochberg's adjusted p-values (1995), in the same order."""
    if not p_values:
        return []
    return [float(p) for p in stats.false_discovery_control(p_values, method="bh")]


def _index(old: NDArray[np.int64], new: NDArray[np.int64]) -> NDArray[np.float64]:
    p = (old + 0.5) / (old + 0.5).sum(axis=-1, keepdims=True)
    q = (new + 0.5) / (new + 0.5).sum(axis=-1, keepdims=True)
    index: NDArray[np.float64] = ((q - p) * np.log(q / p)).sum(axis=-1)
    return index


def _kernel(rows: Sample) -> NDArray[np.float32]:
    squares = np.square(rows).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2.0 * rows @ rows.T, 0.0)
    pairs = distances[np.triu_indices(len(rows), 1)]
    width = float(np.median(pairs)) or float(pairs.mean()) or 1.0
    kernel: NDArray[np.float32] = np.exp(-distances / width).astype(np.float32)
    np.fill_diagonal(kernel, 1.0)
    return kernel


def _permuted(kernel: NDArray[np.float32], size: int, generator: np.random.Generator) -> float:
    """Return the share of permutations whose biased statistic is as large as the one seen."""
    rows = len(kernel)
    weights = np.full(rows, -1.0 / (rows - size), np.float32)
    weights[:size] = 1.0 / size
    seen = float(weights @ kernel @ weights) * (1 - 1e-6)
    as_large = 0
    for _ in range(PERMUTATIONS // TOGETHER):
        mixed = generator.permuted(np.tile(weights, (TOGETHER, 1)), axis=1)
        as_large += int((((mixed @ kernel) * mixed).sum(axis=1) >= seen).sum())
    return (1 + as_large) / (1 + PERMUTATIONS)
