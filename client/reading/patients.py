"""Figures over patients who have several images each.

Images of one patient are alike, so they are no independent sample: every patient weighs the same,
and the finite-sample quantile below counts patients.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from client.reading.parts import Interval

Numbers = NDArray[np.float64]
Groups = NDArray[np.int64]

_Z95 = 1.959963984540054
_ROUNDING = 1e-9


def weights(patients: Groups) -> Numbers:
    """Return each image's weight, so that every patient's images weigh 1 together."""
    _, places, counts = np.unique(patients, return_inverse=True, return_counts=True)
    result: Numbers = 1.0 / counts[places]
    return result


def count(patients: Groups) -> int:
    """Return how many patients there are."""
    return len(np.unique(patients))


def upper_limit(values: Numbers, patients: Groups, *, share: float) -> float | None:
    """Return a limit that a new patient's image is above with probability at most ``share``.

    The quantile of Lee, Barber and Willett 2023 (arXiv:2306.06342, hierarchical conformal
    prediction): each of P patients has mass 1 / (P + 1), shared evenly by their images, and so
    has infinity. It holds for any distribution, whatever images of one patient have in common, if
    the new patient could have been one of these. With one image each it is the split conformal
    quantile, the ceil((P + 1)(1 - share))-th smallest value.

    Parameters
    ----------
    values : ndarray of float64, (N,)
    patients : ndarray of int64, (N,)
        Whose.
    share : float
        In (0, 1).

    Returns
    -------
    float or None
        None where P is below ``1 / share - 1``: no finite limit can promise that.
    """
    if not len(values):
        return None
    order = np.argsort(values, kind="stable")
    mass = np.cumsum(weights(patients)[order]) / (count(patients) + 1)
    place = int(np.searchsorted(mass, 1.0 - share - _ROUNDING))
    return float(values[order[place]]) if place < len(order) else None


def attainable_share(share: float, patients: Groups) -> float:
    """Return ``share``, or the least share above it that so few patients can promise."""
    return max(share, 1.0 / (count(patients) + 1))


def interval(hits: NDArray[np.bool_], patients: Groups) -> Interval:
    """Return the mean over patients of their share of hits, with its 95 % interval.

    Wilson's (1927, doi:10.1080/01621459.1927.10502953) for as many trials as patients. A share
    varies less than a yes or no does, so the interval is rather too wide than too narrow.
    """
    number = count(patients)
    rate = float(weights(patients) @ hits) / number
    spread = _Z95**2 / number
    centre = (rate + spread / 2) / (1 + spread)
    half = _Z95 / (1 + spread) * math.sqrt(rate * (1 - rate) / number + spread / number / 4)
    return Interval(
        value=min(1.0, rate),
        low=max(0.0, min(rate, centre - half)),
        high=min(1.0, max(rate, centre + half)),
        patients=number,
    )


def first_of_each(patients: Groups) -> NDArray[np.int64]:
    """Return the position of each patient's first image."""
    return np.sort(np.unique(patients, return_index=True)[1])


def folds(patients: Groups, number: int) -> Groups:
    """Return each image's fold, 0 to ``number`` - 1; a patient's images share one."""
    return np.unique(patients, return_inverse=True)[1].astype(np.int64) % number
