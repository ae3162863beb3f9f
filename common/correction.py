"""SCAFFOLD's correction: what a site adds to the gradient of each of its local steps.

Karimireddy et al. 2020 (arXiv:1910.06378), algorithm 1: the difference ``c - c_i`` of the mean
control variate and the site's own. The coordinator makes it out of updates that it accepted
(`server.rounds.control_variates`) and sends it with the round; the signed plan names its digest.
Both ends know the same bound, so that an honest correction is never refused for its length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.compression import Packed, Shapes, decode
from common.errors import PlanRefused, UpdateRefused
from common.recipe import LocalTraining
from common.update import Tensors, tensors_digest

Correction: TypeAlias = Mapping[str, NDArray[np.float32]]

REACH = 10.0
"""Times the model's own norm that a correction may move it by in a round."""

SLACK = 1.001
"""Of the bound where it is checked, for what float32 and compression round."""


def norm_of(tensors: Tensors) -> float:
    """Return the Euclidean norm over all tensors of floating point, in float64."""
    floating = (a for a in tensors.values() if np.issubdtype(a.dtype, np.floating))
    return math.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in floating))


def norm_bound(base: Tensors, training: LocalTraining) -> float:
    """Return the largest norm that a correction may have.

    So that by itself, over all steps of a round, it moves the model by no more than `REACH` times
    the model's own norm: whatever is longer drowns what the site's patients say, and spends their
    privacy for nothing.
    """
    return REACH * norm_of(base) / (training.learning_rate * training.local_steps)


def read_correction(
    packed: Packed | None,
    *,
    named: str | None,
    shapes: Shapes,
    bound: float,
) -> Correction | None:
    """Return what a site adds to its gradients; None where the plan names nothing.

    Parameters
    ----------
    packed : Packed or None
        As it came.
    named : str or None
        The digest in the signed plan, of the decoded tensors.
    shapes : mapping of str to tuple of int
        Of the tensors that move, as the site knows them.
    bound : float
        Of `norm_bound`.

    Raises
    ------
    PlanRefused
        With code ``correction-mismatch``, ``correction-malformed`` or ``correction-norm``.
    """
    if packed is None or named is None:
        if packed is not None or named is not None:
            raise _mismatch()
        return None
    try:
        found = decode(packed, shapes)
    except UpdateRefused as error:
        raise PlanRefused(
            "A correction has other tensors than those that move, or is not finite.",
            code="correction-malformed",
        ) from error
    if tensors_digest(found) != named:
        raise _mismatch()
    if not norm_of(found) <= SLACK * bound:
        raise PlanRefused(
            "A correction is longer than a round's training may be.",
            meaning="It would drown what the site's patients say.",
            code="correction-norm",
        )
    return found


def _mismatch() -> PlanRefused:
    return PlanRefused(
        "The correction is not the one that the signed plan names.", code="correction-mismatch"
    )
