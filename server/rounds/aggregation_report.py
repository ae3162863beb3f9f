"""How far each site's update lies from the others': figures for whoever runs the federation.

They decide nothing. A hospital with other patients lies apart, too; what a liar cannot do is to
lie apart in every round and be seen by nobody.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from server.registry.records import Deviation


class Deviations:
    """Sums over blocks of coordinates, out of which the figures come.

    Parameters
    ----------
    count : int
        Updates.
    """

    def __init__(self, count: int) -> None:
        self._products = np.zeros(count)
        self._lengths = np.zeros(count)
        self._distances = np.zeros(count)
        self._aggregate = 0.0

    def add(
        self,
        rows: NDArray[np.float64],
        median: NDArray[np.float64],
        aggregate: NDArray[np.float64],
    ) -> None:
        """Take in a block: rows of shape (updates, block), the others of shape (block,)."""
        self._products += rows @ aggregate
        self._lengths += np.einsum("ij,ij->i", rows, rows)
        self._aggregate += float(aggregate @ aggregate)
        for index, row in enumerate(rows):  # a row at a time: no second block
            apart = row - median
            self._distances[index] += float(apart @ apart)

    def result(self) -> tuple[Deviation, ...]:
        """Return the figures, in the order of the rows."""
        lengths = np.sqrt(self._lengths) * math.sqrt(self._aggregate)
        distances = np.sqrt(self._distances)
        typical = float(np.median(distances))
        return tuple(
            Deviation(_ratio(product, length), _ratio(distance, typical))
            for product, length, distance in zip(self._products, lengths, distances, strict=True)
        )


def _ratio(part: float, whole: float) -> float | None:
    if not whole > 0:
        return None
    ratio = float(part) / float(whole)
    return ratio if math.isfinite(ratio) else None
