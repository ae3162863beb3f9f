"""Whether newly confirmed cases look as those before did: population stability indices.

For each figure of an image (brightness, contrast, colour) and for the mix of labels, the patients
since the site last trained are held against the ones before::

    PSI = sum over bins of (p_new - p_old) * ln(p_new / p_old)

Bins of a figure are the fifths of the old patients. Above 0.1 a shift is worth a look, above 0.25
it is large (Siddiqi 2006, Credit Risk Scorecards, chapter 9). Of few patients the index is large by
chance alone: times n m / (n + m) it is about chi-squared distributed with bins - 1 degrees of
freedom if nothing has changed (Yurdakul and Naranjo 2020, doi:10.21314/JRMV.2020.227). What that
would exceed once in a thousand times counts as no drift.

This is about inputs and labels that the store holds. It says nothing of what a model answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from client.cases.case import Case
from common.errors import WardroundError
from common.imaging import decode

FEWEST, MOST = 50, 200
"""Patients on either side: with fewer nothing is told, of more the newest are looked at."""

FIFTHS = 5
SOME, MUCH = 0.1, 0.25
CHANCE = 0.001
SIDE = 64


def drift_level(
    cases: Sequence[Case], read: Callable[[Case], bytes], *, since: datetime
) -> int | None:
    """Return 0 (none that chance does not explain), 1 (some) or 2 (much); None where it is open.

    Parameters
    ----------
    cases : sequence of Case
        All confirmed cases of a task.
    read : callable
        Returns a case's file bytes.
    since : datetime
        Patients whose first case was confirmed after it are the new ones.
    """
    first: dict[str, Case] = {}
    for case in sorted(cases, key=lambda one: (one.confirmed_at or one.created_at, one.digest)):
        first.setdefault(case.patient, case)
    known = [case for case in first.values() if (case.confirmed_at or case.created_at) <= since]
    fresh = [case for case in first.values() if (case.confirmed_at or case.created_at) > since]
    if min(len(known), len(fresh)) < FEWEST:
        return None
    old, new = known[-MOST:], fresh[-MOST:]
    names = sorted({str(case.label) for case in (*old, *new)})
    before, after = (
        np.array([names.index(str(case.label)) for case in side], dtype=np.int64)
        for side in (old, new)
    )
    levels = [psi_level(_share(before, len(names)), _share(after, len(names)))]
    seen, now = _figures(old, read), _figures(new, read)
    if min(len(seen), len(now)) < FEWEST:
        return None  # too many images cannot be read
    for column in range(seen.shape[1]):
        edges = np.quantile(seen[:, column], np.linspace(0, 1, FIFTHS + 1)[1:-1])
        sides = (np.searchsorted(edges, side[:, column], side="right") for side in (seen, now))
        levels.append(psi_level(*(_share(side, FIFTHS) for side in sides)))
    return max(levels)


def psi_level(old: NDArray[np.int64], new: NDArray[np.int64]) -> int:
    """Return the level of drift between counts by bin, int64 (bins,)."""
    index = population_stability(old, new)
    n, m = int(old.sum()), int(new.sum())
    bins = int(((old + new) > 0).sum())
    if bins < 2 or index * n * m / (n + m) < float(chdtri(bins - 1, CHANCE)):
        return 0
    return 2 if index > MUCH else int(index > SOME)


def population_stability(old: NDArray[np.int64], new: NDArray[np.int64]) -> float:
    """Return the population stability index of counts by bin; half a case is added to each."""
    some = (old + new) > 0
    p = (old[some] + 0.5) / (old[some] + 0.5).sum()
    q = (new[some] + 0.5) / (new[some] + 0.5).sum()
    return float(((q - p) * np.log(q / p)).sum())


def _share(bins: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return np.bincount(bins, minlength=size)


def _figures(cases: Sequence[Case], read: Callable[[Case], bytes]) -> NDArray[np.float64]:
    """Return brightness, contrast and colour (red less blue) of each readable image, (N, 3)."""
    found = []
    for case in cases:
        try:
            pixels = decode(read(case))
        except WardroundError:
            continue
        step = max(1, min(pixels.shape[:2]) // SIDE)
        small = pixels[::step, ::step].astype(np.float64)
        colour = small[..., 0].mean() - small[..., 2].mean()
        found.append((small.mean(), small.mean(axis=2).std(), colour))
    return np.array(found, dtype=np.float64).reshape(-1, 3)
