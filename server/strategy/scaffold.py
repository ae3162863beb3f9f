"""SCAFFOLD: stochastic controlled averaging (Karimireddy et al. 2020, arXiv:1910.06378).

With several local steps, sites of unlike patients drift apart: each walks to its own optimum. The
correction ``c - c_i`` that a site adds to its gradients takes away what is its own about them and
gives it what is everybody's. Option II of the paper's algorithm 1 reads ``c_i`` out of the
update: the site's mean gradient over the round. The update is what the coordinator has, so it
computes all control variates itself; sites keep nothing. Under differential privacy updates are
noised, so variates and corrections are post-processing, as in DP-SCAFFOLD (Noble et al. 2022,
arXiv:2111.09278).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.correction import norm_of
from common.recipe import LocalTraining

Floats: TypeAlias = Mapping[str, NDArray[np.float32]]
Variate: TypeAlias = dict[str, NDArray[np.float32]]


def site_variate(
    delta: Floats, correction: Floats | None, training: LocalTraining, *, factor: float = 1.0
) -> Variate:
    """Return a site's next control variate: its mean gradient over the round.

    Option II: ``c_i+ = c_i - c + (x - y_i) / (K eta)``; here ``y_i - x`` is the update, and
    ``c - c_i`` the correction as the site decoded it, so that what its compression lost does
    not stay in ``c_i``.

    Parameters
    ----------
    delta : mapping of str to ndarray
        The site's update.
    correction : mapping of str to ndarray, or None
        What the site added to each gradient; None for nothing.
    training : LocalTraining
        Its rate eta and its local steps K.
    factor : float
        What the update was multiplied with before it was averaged (the round's norm bound).
    """
    scale = np.float32(-factor / (training.learning_rate * training.local_steps))
    if correction is None:
        return {name: scale * change for name, change in delta.items()}
    return {name: scale * change - correction[name] for name, change in delta.items()}


def mean_variate(parts: Iterable[tuple[float, Floats]]) -> Variate:
    """Return the mean of control variates by shares that sum to 1.

    The shares are those of the aggregation. So where all sites take part the corrections cancel
    in the mean update, and at the optimum of what is minimised every site stands still.
    """
    total: dict[str, NDArray[np.float64]] = {}
    for share, variate in parts:
        for name, array in variate.items():
            before = total.get(name, np.zeros(array.shape))
            total[name] = before + share * array.astype(np.float64)
    return {name: array.astype(np.float32) for name, array in total.items()}


def wanted_correction(mean: Floats, own: Floats, *, bound: float) -> Variate:
    """Return ``c - c_i``, shortened to the norm that a site accepts."""
    found = {name: np.asarray(mean[name] - own[name], dtype=np.float32) for name in own}
    norm = norm_of(found)
    if norm <= bound:
        return found
    return {name: np.float32(bound / norm) * array for name, array in found.items()}
