"""Small cells of holdout counts: which are hidden, so that they do not follow from the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def suppress_row(row: IntArray, truth: int, minimum: int) -> tuple[IntArray, int]:
    """Return a confusion row without small cells, and its pooled errors; their sum is the row's."""
    result = row.copy()
    small = (row > 0) & (row < minimum)
    result[small] = 0
    rest = int(row[small].sum())
    while 0 < rest < minimum:
        # Too few even together: take from the correct answers, else from the largest cell.
        donor = truth if result[truth] > 0 else int(result.argmax())
        taken = minimum - rest
        if result[donor] - taken < minimum:
            taken = int(result[donor])
        result[donor] -= taken
        rest += taken
    return result, rest


def told_right(right: NDArray[np.bool_], confidence: NDArray[np.float64], keep: int) -> IntArray:
    """Return the indices of the ``keep`` right answers of highest confidence.

    The others are told as wrong, as the confusion row tells them: were the two reports to differ,
    the number that was hidden would follow.
    """
    indices = np.flatnonzero(right)
    order = np.argsort(-confidence[indices], kind="stable")
    return np.sort(indices[order[:keep]])


def group_cells(
    groups: IntArray, truth: IntArray, shape: tuple[int, int], minimum: int
) -> IntArray:
    """Return which (group, class) cells of one axis may be told, bool-like int64 ``shape``.

    Neither a told cell nor what is left of a class when all told cells are taken away from its
    total (those of unknown group are there, too) is a count of 1 to ``minimum`` - 1: complementary
    suppression, the smallest cells first (Willenborg and de Waal 2001, Elements of Statistical
    Disclosure Control, chapter 4, doi:10.1007/978-1-4613-0121-9).

    Parameters
    ----------
    groups : ndarray of int64 (N,)
        Each case's group, -1 where it is unknown.
    truth : ndarray of int64 (N,)
        Each case's class.
    shape : tuple of int
        Numbers of groups and of classes.
    minimum : int
        The smallest count that may leave.
    """
    held = np.zeros(shape, dtype=np.int64)
    known = groups >= 0
    np.add.at(held, (groups[known], truth[known]), 1)
    totals = np.bincount(truth, minlength=shape[1])
    told = (held >= minimum).astype(np.int64)
    for k in range(shape[1]):
        while 0 < totals[k] - int((held[:, k] * told[:, k]).sum()) < minimum and told[:, k].any():
            candidates = np.where(told[:, k] == 1, held[:, k], np.iinfo(np.int64).max)
            told[int(candidates.argmin()), k] = 0
    return told
