"""The site's own threshold: chosen for the sensitivity that the site wants, on its own holdout.

Thresholds, the release's and the site's, are held against the model's own, uncalibrated probability
of the positive classes. With more than two classes a temperature changes the order of images by
that sum, so a threshold that was chosen before it would mean something else after it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from client.inference.outputs import Probabilities
from client.reading.parts import NotEnough, SiteOperatingPoint
from client.reading.patients import Groups, Numbers, count, interval, upper_limit
from common.recipe import Recipe


def positive_mask(recipe: Recipe) -> NDArray[np.bool_]:
    """Return which classes are positive, bool (K,)."""
    positive = recipe.decision.positive_classes
    return np.array([name in positive for name in recipe.classes])


def positive_probability(probabilities: Probabilities, positive: NDArray[np.bool_]) -> Numbers:
    """Return the positive classes' sum, float64 (N,), in [0, 1]."""
    total: Numbers = np.minimum(1.0, probabilities[:, positive].sum(axis=1))
    return total


def choose_operating_point(
    scores: Numbers, truth: NDArray[np.bool_], patients: Groups, *, wanted: float
) -> SiteOperatingPoint:
    """Return the highest threshold that a new positive patient's image reaches often enough.

    The finite-sample quantile (`client.reading.patients.upper_limit`) over patients with a positive
    image: an image of a new one reaches the threshold with probability ``wanted`` at least.

    Parameters
    ----------
    scores : ndarray of float64, (N,)
        Uncalibrated positive probabilities.
    truth : ndarray of bool, (N,)
        Whether the label is a positive class.
    patients : ndarray of int64, (N,)
    wanted : float
        Sensitivity, in (0, 1).

    Raises
    ------
    NotEnough
        With fewer positive patients than ``wanted / (1 - wanted)``.
    """
    limit = upper_limit(-scores[truth], patients[truth], share=1.0 - wanted)
    if limit is None:
        needed = int(np.ceil(wanted / (1.0 - wanted) - 1e-9))
        raise NotEnough(
            f"{count(patients[truth])} holdout patients with a positive image; "
            f"a sensitivity of {wanted:g} needs {max(1, needed)}"
        )
    threshold = min(1.0, max(0.0, -limit))
    called = scores >= threshold
    negative = ~truth
    return SiteOperatingPoint(
        threshold=threshold,
        wanted_sensitivity=wanted,
        sensitivity=interval(called[truth], patients[truth]),
        specificity=interval(~called[negative], patients[negative]) if negative.any() else None,
    )
