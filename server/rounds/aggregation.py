"""The weighted mean of updates, taken in as they come and dropped at once.

Memory is one float64 sum over the trainable parameters, however many sites there are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from common.errors import RoundFailed

Delta = Mapping[str, NDArray[np.float32]]


class WeightedMean:
    """A running weighted sum, and its mean."""

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._weight = 0.0
        self.count = 0

    def add(self, delta: Delta, *, weight: float) -> None:
        """Take in one update, which `server.rounds.update_checks` has accepted.

        Parameters
        ----------
        delta : mapping of str to ndarray, float32
            The same names and shapes in every call.
        weight : float
            Above 0.
        """
        if not self._sums:
            self._sums = {name: np.zeros(array.shape) for name, array in delta.items()}
        for name, array in delta.items():
            # In place, and one tensor at a time: no second copy of the whole update.
            self._sums[name] += weight * array.astype(np.float64)
        self._weight += weight
        self.count += 1

    def mean(self) -> dict[str, NDArray[np.float32]]:
        """Return the mean as float32.

        Raises
        ------
        RoundFailed
            If nothing was taken in.
        """
        if self.count == 0:
            raise RoundFailed("There is no update to average.", code="no-updates")
        return {name: (s / self._weight).astype(np.float32) for name, s in self._sums.items()}
