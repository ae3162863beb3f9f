"""A round's updates become one: a weighted mean, or one that bears some sites' lies.

What Flower has serves where it takes plain arrays: `trim_mean`. Its median is a line of numpy
inside a strategy, and its Krum stacks all updates in memory, in float32 and as the difference of
large numbers; ours add up over blocks of coordinates instead, so that memory does not grow with
the number of sites.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from numpy.typing import NDArray

from common.errors import RoundFailed
from common.recipe import AggregationSpec
from server.registry.records import Deviation
from server.rounds.aggregation_report import Deviations
from server.rounds.aggregation_spool import UpdateSpool

logger = logging.getLogger(__name__)

Combine = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Rows of shape (updates, block) in, the aggregate of shape (block,) out."""

MAJORITY_FROM = 3
"""Updates from which on there can be a majority against one: of two, none outvotes the other."""

GROSSLY = 3.0
"""Times the norm bound. An honest update may pass the bound: that of a hospital with many patients,
or one with few and much noise. So much longer, it is nothing that training has made."""


@dataclass(frozen=True)
class Aggregate:
    """What a round's updates became, and how far each site's lay from the others."""

    delta: dict[str, NDArray[np.float32]]
    deviations: dict[str, Deviation]


def aggregate(
    spool: UpdateSpool,
    spec: AggregationSpec,
    *,
    refused: int = 0,
    climbing: NDArray[np.float64] | None = None,
) -> Aggregate:
    """Aggregate a round's updates.

    Parameters
    ----------
    spool : UpdateSpool
        All that were accepted.
    spec : AggregationSpec
        How; see there for what each name means.
    refused : int, default 0
        Updates of the round that the checks refused. Their sites count among the malicious
        that are borne, so that honest ones are not cut in their place.
    climbing : ndarray, float64, shape (updates,), optional
        For ``descent``: what `server.rounds.descent_memory` knows of the sites, in the order of
        ``spool.updates``. Without it nothing is known of any.

    Raises
    ------
    RoundFailed
        With code ``no-updates``, if there is none.
    StoreError
        If the disk failed.
    """
    updates = spool.updates
    if not updates:
        raise RoundFailed("There is no update to average.", code="no-updates")
    factors = norm_factors([u.norm for u in updates], spec.norm_multiple)
    unknown = np.full(len(updates), np.nan)
    scores = unknown if climbing is None else climbing
    malicious = max(0, spec.malicious - refused)
    combine = _choose(spool, spec, factors, malicious=malicious, climbing=scores)
    deviations = Deviations(len(updates))
    flat = np.empty(spool.size, dtype=np.float32)
    for where, rows in spool.blocks():
        median = np.median(rows, axis=0)
        found = combine(rows * factors[:, None])
        deviations.add(rows, median, found)
        flat[where] = found
    sites = [u.site for u in updates]
    return Aggregate(spool.tensors(flat), dict(zip(sites, deviations.result(), strict=True)))


def norm_factors(norms: Sequence[float], multiple: float) -> NDArray[np.float64]:
    """Return what each update is multiplied with, so that none is too long; shape (updates,).

    The bound is ``multiple`` times the median norm of this round's own updates (Sun et al. 2019,
    arXiv:1911.07963, section 4, with their threshold made relative), so that it holds from the
    first round on and needs no history. Of an even number the lower median is taken: of two
    updates, a liar's must not raise the bound for itself. A multiple of 0 is no bound. Nor
    is one of two updates that is zero: there is no majority to compare with.
    """
    lengths = np.asarray(norms, dtype=np.float64)
    bound = multiple * float(np.sort(lengths)[(len(lengths) - 1) // 2])
    if multiple == 0 or (bound == 0 and len(lengths) < MAJORITY_FROM):
        return np.ones(len(lengths))
    over = lengths > bound
    return np.where(over, bound / np.where(over, lengths, 1.0), 1.0)


def capped_shares(weights: Sequence[float], largest: float) -> NDArray[np.float64]:
    """Return each site's share of the mean, summing to 1 and none above ``largest``.

    A site declares its own number of patients, so its claim must not make it the mean. What is
    cut off is given to the others in proportion; where ``largest`` is below an equal share, all
    are equal.
    """
    given = np.asarray(weights, dtype=np.float64)
    count = len(given)
    limit = max(largest, 1 / count)
    capped = np.zeros(count, dtype=bool)
    while True:
        shares = np.full(count, limit)
        left = 1 - limit * int(capped.sum())
        if not capped.all():
            shares[~capped] = given[~capped] / given[~capped].sum() * left
        over = ~capped & (shares > limit * (1 + 1e-9))
        if not over.any():
            return shares
        capped |= over


def trimmed(count: int, fraction: float) -> int:
    """Return how many of ``count`` updates are cut off at each end.

    The fraction rounded down, but one at the least where there are three or more: rounding must
    not switch the defence off without a word.
    """
    wished = max(1, int(fraction * count + 1e-9)) if fraction > 0 else 0
    return min(wished, (count - 1) // 2)


def krum_selection(distances: NDArray[np.float64], malicious: int) -> NDArray[np.intp]:
    """Return which updates Multi-Krum keeps, out of squared distances of shape (n, n).

    Each is scored by the sum over its n - f - 2 nearest others (Blanchard et al. 2017,
    arXiv:1703.02757, section 4); the n - f with the lowest scores stay. The paper's proof needs
    n >= 2 f + 3; below that the score has one neighbour at the least, as in Flower's.
    """
    count = len(distances)
    nearest = max(1, count - malicious - 2)
    apart = distances + np.diag(np.full(count, np.inf))
    scores = np.sort(apart, axis=1)[:, :nearest].sum(axis=1)
    kept = np.argsort(scores, kind="stable")[: max(1, count - malicious)]
    return np.sort(kept)


def nearest(distances: NDArray[np.float64], malicious: int) -> NDArray[np.intp]:
    """Return all but the ``malicious`` updates with the greatest distances, but a majority."""
    count = len(distances)
    kept = max(count - malicious, count // 2 + 1)
    return np.sort(np.argsort(distances, kind="stable")[:kept])


def grossly_long(factors: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which updates, of `norm_factors`, are more than `GROSSLY` times as long as the bound."""
    return factors * GROSSLY < 1


def descending(
    climbing: NDArray[np.float64],
    distances: NDArray[np.float64],
    factors: NDArray[np.float64],
    malicious: int,
) -> NDArray[np.intp]:
    """Return all but at most ``malicious`` suspicious updates, but a majority.

    Suspicious are, the worst first: an update that was `GROSSLY` longer than the norm bound;
    one of a site whose updates climb (``climbing`` above 0, the highest first); and, among the
    ``malicious`` farthest from the median, one of a site of which nothing is known yet (NaN).
    Where none is suspicious, all are kept.
    """
    count = len(climbing)
    known = np.nan_to_num(climbing, nan=-np.inf)
    farthest = np.zeros(count, dtype=bool)
    farthest[np.argsort(-distances, kind="stable")[:malicious]] = True
    rank = np.where(farthest & np.isnan(climbing), 0, -1)
    rank[known > 0] = 1
    rank[grossly_long(factors)] = 2
    worst = np.lexsort((-distances, -known, -rank))  # the last key is the first to sort by
    cut = min(malicious, (count - 1) // 2, int((rank >= 0).sum()))
    return np.sort(worst[cut:])


def _choose(
    spool: UpdateSpool,
    spec: AggregationSpec,
    factors: NDArray[np.float64],
    *,
    malicious: int,
    climbing: NDArray[np.float64],
) -> Combine:
    count = len(factors)
    weights = [u.weight for u in spool.updates]
    if spec.name == "median":
        return lambda rows: np.asarray(np.median(rows, axis=0))
    if spec.name == "trimmed-mean":
        cut = trimmed(count, spec.trim_fraction)
        # A quarter more: `trim_mean` rounds a fraction of the count down.
        return lambda rows: np.asarray(trim_mean(rows, (cut + 0.25) / count))
    if spec.name == "krum":
        if count < 2 * malicious + 3:
            logger.warning("krum-few-updates updates=%d malicious=%d", count, malicious)
        chosen = krum_selection(_squared_distances(spool, factors), malicious)
        return lambda rows: np.asarray(rows[chosen].mean(axis=0))
    if spec.name == "near-median" or spec.name == "descent":  # noqa: PLR1714 (mypy narrows this)
        distances = _median_distances(spool, factors)
        if spec.name == "near-median":
            near = nearest(distances, malicious)
        else:
            near = descending(climbing, distances, factors, malicious)
        some = capped_shares([weights[row] for row in near], spec.largest_share)
        return lambda rows: np.asarray(some @ rows[near])
    if spec.name == "mean":
        # Of two sites one always has half or more.
        shares = capped_shares(weights, spec.largest_share if count >= MAJORITY_FROM else 1.0)
        return lambda rows: np.asarray(shares @ rows)
    assert_never(spec.name)


def _median_distances(spool: UpdateSpool, factors: NDArray[np.float64]) -> NDArray[np.float64]:
    distances = np.zeros(len(factors))
    for _, rows in spool.blocks():
        bounded = rows * factors[:, None]
        median = np.median(bounded, axis=0)
        for index, row in enumerate(bounded):
            apart = row - median
            distances[index] += float(apart @ apart)
    return distances


def _squared_distances(spool: UpdateSpool, factors: NDArray[np.float64]) -> NDArray[np.float64]:
    count = len(factors)
    distances = np.zeros((count, count))
    for _, rows in spool.blocks():
        bounded = rows * factors[:, None]
        for index, row in enumerate(bounded):
            apart = bounded[index + 1 :] - row
            distances[index, index + 1 :] += np.einsum("ij,ij->i", apart, apart)
    return distances + distances.T
