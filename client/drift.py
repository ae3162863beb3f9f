"""Whether newly confirmed cases look as those before did, as a site may tell it upwards.

For each figure of an image (`client.monitoring.input_statistics`) and for the mix of labels, the
patients since the site last trained are held against the ones before. The verdict is that of
`client.monitoring.drift`: chance explains it once in a thousand times at most, all figures taken
together, and the population stability index is above 0.1 (some), or surely above 0.25 (much).

This is about inputs and labels that the store holds. What the model answers is
`client.monitoring.told`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from client.cases.case import Case
from client.monitoring.drift import MIX, compare_figures
from client.monitoring.input_statistics import IMAGE_STATISTICS, image_statistics
from common.errors import WardroundError
from common.imaging import decode, prepare
from common.recipe import ImageSpec

FEWEST, MOST = 50, 200
"""Patients on either side: with fewer nothing is told, of more the newest are looked at."""


def drift_level(
    cases: Sequence[Case],
    read: Callable[[Case], bytes],
    *,
    since: datetime,
    spec: ImageSpec,
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
    spec : ImageSpec
        How the recipe prepares images: what the network does not see counts for nothing.
    """
    first: dict[str, Case] = {}
    for case in sorted(cases, key=lambda one: (one.confirmed_at or one.created_at, one.digest)):
        first.setdefault(case.patient, case)
    known = [case for case in first.values() if (case.confirmed_at or case.created_at) <= since]
    fresh = [case for case in first.values() if (case.confirmed_at or case.created_at) > since]
    if min(len(known), len(fresh)) < FEWEST:
        return None
    old, new = known[-MOST:], fresh[-MOST:]
    seen, now = _figures(old, read, spec), _figures(new, read, spec)
    if min(len(seen), len(now)) < FEWEST:
        return None  # too many images cannot be read
    names = sorted({str(case.label) for case in (*old, *new)})
    before, after = (
        np.bincount([names.index(str(case.label)) for case in side], minlength=len(names))
        for side in (old, new)
    )
    found = compare_figures(
        seen, now, IMAGE_STATISTICS, np.random.default_rng(0), mixes=((MIX, before, after),)
    )
    return max(figure.level for figure in found)


def _figures(
    cases: Sequence[Case], read: Callable[[Case], bytes], spec: ImageSpec
) -> NDArray[np.float64]:
    """Return the figures of each readable image, float64 (N, len(IMAGE_STATISTICS))."""
    found = []
    for case in cases:
        try:
            pixels = prepare(decode(read(case)), spec)
        except WardroundError:
            continue
        found.append(image_statistics(pixels))
    return np.array(found, dtype=np.float64).reshape(-1, len(IMAGE_STATISTICS))
