"""What training costs: epsilon of subsampled Gaussian steps, and the noise that a budget allows.

One local step samples each training patient with probability q and adds Gaussian noise of
standard deviation sigma x C to a sum in which each patient counts at most C (Abadi et al. 2016,
arXiv:1607.00133). Neighbouring data sets differ in the presence of one patient.

Renyi accounting (Mironov et al. 2019, arXiv:1908.10530) bounds the running ledger: it composes
by addition, so that many rounds are cheap. PRV accounting (Gopi et al. 2021, arXiv:2106.02848) is
tighter and slower, and independent of it: reports use it.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

from common.errors import PrivacyRefused
from common.records import MAXIMUM_NOISE_MULTIPLIER

Accountant: TypeAlias = Literal["rdp", "prv"]

ORDERS: tuple[float, ...] = tuple(float(a) for a in RDPAccountant.DEFAULT_ALPHAS)
SIGMA_GRID = 1000
"""Noise multipliers are whole thousandths, so that a campaign's rounds share one entry."""
_TOP = round(MAXIMUM_NOISE_MULTIPLIER * SIGMA_GRID)
FRACTIONAL_SIGMA = 20.0
"""Above it, fractional orders converge slowly (seconds), and whole ones stand in for them."""
PRV_ENTRIES = 16


@dataclass(frozen=True)
class Spend:
    """``steps`` noisy steps with noise multiplier sigma > 0 at sampling rate q in (0, 1]."""

    noise_multiplier: float
    sampling_rate: float
    steps: int


@dataclass(frozen=True)
class Budget:
    """What may be spent at ``delta``: epsilon for this campaign, for the site's life, a round."""

    epsilon_campaign: float
    epsilon_life: float
    delta: float
    min_noise_multiplier: float
    epsilon_round: float | None = None


def epsilon(entries: Iterable[Spend], delta: float, *, kind: Accountant = "rdp") -> float:
    """Return an upper bound of epsilon at ``delta`` over all ``entries``.

    Parameters
    ----------
    entries : iterable of Spend
        In any order; none cost 0.
    delta : float
        In (0, 1).
    kind : {"rdp", "prv"}, default "rdp"
        ``prv`` takes seconds. With more than `PRV_ENTRIES` distinct entries, it takes some at
        slightly less noise than they had: still an upper bound.

    Returns
    -------
    float
        Possibly ``inf`` when the accountant can bound nothing.
    """
    merged = _merge(entries)
    if not merged:
        return 0.0
    return _rdp_epsilon(merged, delta) if kind == "rdp" else _prv_epsilon(merged, delta)


def noise_multiplier_for(
    *,
    campaign: Sequence[Spend],
    life: Sequence[Spend],
    sampling_rate: float,
    steps: int,
    rounds_left: int,
    budget: Budget,
    guess: float | None = None,
) -> float:
    """Return the smallest noise multiplier with which the rounds that are left fit the budget.

    Parameters
    ----------
    campaign, life : sequence of Spend
        What this campaign, and all campaigns, have spent before.
    sampling_rate : float
        q of each step.
    steps : int
        Local steps of one round.
    rounds_left : int
        Rounds of the campaign still to come, this one included.
    budget : Budget
        The limits.
    guess : float, optional
        Where to look first, such as the campaign's last noise multiplier: it saves time only.

    Returns
    -------
    float
        A multiple of 1 / `SIGMA_GRID`, rounded up: both bounds hold exactly. At most
        `common.records.MAXIMUM_NOISE_MULTIPLIER`, beyond which the coordinator takes in nothing.

    Raises
    ------
    PrivacyRefused
        With code ``budget-exhausted`` when no such amount of noise fits.
    """

    def fits(thousandths: int, *, coarse: bool = False) -> bool:
        sigma = thousandths / SIGMA_GRID
        rest = Spend(sigma, sampling_rate, steps * rounds_left)

        def within(limit: float, entries: Sequence[Spend]) -> bool:
            return _rdp_epsilon(_merge(entries), budget.delta, coarse=coarse) <= limit

        one = budget.epsilon_round
        return (
            (one is None or within(one, [Spend(sigma, sampling_rate, steps)]))
            and within(budget.epsilon_campaign, [*campaign, rest])
            and within(budget.epsilon_life, [*life, rest])
        )

    low = math.ceil(round(budget.min_noise_multiplier * SIGMA_GRID, 6))
    first: int | None
    if guess is None:
        # Whole orders alone are quick, and never far off: they say where to look.
        first = _smallest(partial(fits, coarse=True), low=low, first=max(low, SIGMA_GRID))
    else:
        first = max(low, round(guess * SIGMA_GRID))
    found = _smallest(fits, low=low, first=_TOP if first is None else first, stride=1)
    if found is None:
        raise PrivacyRefused(
            "The privacy budget of this site is spent.",
            meaning="No amount of noise that a coordinator takes would keep the rest of the "
            "campaign within the policy.",
            action="See `wardround site budget`; only the policy's owner may raise the limits.",
            code="budget-exhausted",
        )
    return found / SIGMA_GRID


def public_patients(patients: int) -> int:
    """Return the number of patients as it may be told: the nearest rung of a public ladder.

    Rungs are 0, 5, 10, ... to 50, then a tenth apart, so that the exact number, and the presence
    of one patient, mostly do not show.
    """
    if patients <= 0:
        return 0
    below, rung = 5, 5
    while rung < patients:
        below, rung = rung, max(rung + 5, round(rung * 1.1))
    return below if patients - below < rung - patients else rung


def _smallest(
    fits: Callable[[int], bool], *, low: int, first: int, stride: int = SIGMA_GRID // 2
) -> int | None:
    """Return the smallest number from ``low`` on that fits, looking around ``first``.

    Whatever it returns was seen to fit; None if nothing up to `_TOP` does.
    """
    first = min(first, _TOP)
    if fits(first):
        below, high = low - 1, first
        while high > low:
            candidate = max(low, high - stride)
            if not fits(candidate):
                below = candidate
                break
            high, stride = candidate, stride * 2
    else:
        below, high = first, min(first + stride, _TOP)
        while not fits(high):
            if high == _TOP:
                return None
            stride *= 2
            below, high = high, min(high + stride, _TOP)
    while high - below > 1:  # below does not fit (or is not allowed), high does
        middle = (below + high) // 2
        if fits(middle):
            high = middle
        else:
            below = middle
    return high


def _merge(entries: Iterable[Spend]) -> Counter[tuple[float, float]]:
    merged: Counter[tuple[float, float]] = Counter()
    for entry in entries:
        if entry.steps:
            merged[entry.noise_multiplier, entry.sampling_rate] += entry.steps
    return merged


@lru_cache(maxsize=4096)
def _rdp_of_one_step(sigma: float, q: float, coarse: bool) -> NDArray[np.float64]:
    """Upper bounds of the Renyi divergence of one step at `ORDERS`.

    Where an order is left out, or fails numerically, the bound of the next larger one stands in:
    the divergence never falls with the order (van Erven and Harremoes 2014, arXiv:1206.2459,
    theorem 3).
    """
    values = np.full(len(ORDERS), math.inf)
    above = math.inf
    for index in reversed(range(len(ORDERS))):
        order = ORDERS[index]
        quick = q == 1 or order.is_integer()
        if quick or not (coarse or sigma > FRACTIONAL_SIGMA):
            above = min(above, _rdp_at(order, sigma, q))
        values[index] = above
    return values


def _rdp_at(order: float, sigma: float, q: float) -> float:
    try:
        value = float(compute_rdp(q=q, noise_multiplier=sigma, steps=1, orders=order))
    except (ValueError, OverflowError, ZeroDivisionError):
        return math.inf
    return value if value >= 0 else math.inf  # NaN, too


def _rdp_epsilon(
    merged: Counter[tuple[float, float]], delta: float, *, coarse: bool = False
) -> float:
    total = np.zeros(len(ORDERS))
    for (sigma, q), steps in merged.items():
        total += steps * _rdp_of_one_step(sigma, q, coarse)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "optimal order is the largest": a looser, valid bound
        value, _ = get_privacy_spent(orders=list(ORDERS), rdp=total, delta=delta)
    return max(0.0, float(value)) if not math.isnan(value) else math.inf


def _prv_epsilon(merged: Counter[tuple[float, float]], delta: float) -> float:
    accountant = PRVAccountant()
    accountant.history = [(s, q, n) for (s, q), n in _coarsen(merged).items()]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            value = float(accountant.get_epsilon(delta))
    except (ValueError, RuntimeError, OverflowError, ZeroDivisionError, MemoryError):
        return math.inf  # the domain of the numerical composition is too large
    return max(0.0, value) if not math.isnan(value) else math.inf


def _coarsen(merged: Counter[tuple[float, float]]) -> Counter[tuple[float, float]]:
    """Round noise multipliers down until few entries are distinct; less noise costs more."""
    digits = SIGMA_GRID
    coarse = merged
    while len(coarse) > PRV_ENTRIES and digits > 1:
        digits //= 2
        coarse = Counter()
        for (sigma, q), steps in merged.items():
            lower = math.floor(sigma * digits) / digits
            coarse[lower if lower >= sigma * 0.9 else sigma, q] += steps
    return coarse
