"""Sets of classes that hold the right one as often as promised: split conformal prediction.

The promise (Vovk et al. 2005; Lei et al. 2018, arXiv:1604.04173) is for any network and any
distribution, on average over holdouts and new patients, if the new patient could have been one of
the holdout's. It is no promise for one class (unless asked for by class), one subgroup, or after
the site's patients or cameras have changed. Scores are of the uncalibrated probabilities: a
temperature fitted on the same patients would void the promise.

MAPIE offers the same sets, but through scikit-learn estimators that hold the data; it knows no
patients, and would be a large dependency in every hospital for what is one quantile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from client.inference.outputs import Probabilities
from client.reading.parts import Conformal, NotEnough
from client.reading.patients import Groups, count, upper_limit
from client.reading.settings import ReadingSettings

FEWEST_PATIENTS = 30
"""With fewer, the share that one holdout's rule really covers lies too far from the promise."""


def class_scores(probabilities: Probabilities, method: str) -> Probabilities:
    """Return how badly each class fits, float64 (N, K), in [0, 1].

    ``lac`` (Sadinle, Lei and Wasserman 2019, arXiv:1609.00451) is one less its probability; ``aps``
    (Romano, Sesia and Candes 2020, arXiv:2006.02544, without the random part) the probability of
    all likelier classes, so that the likeliest scores 0 and is in every set.
    """
    if method == "lac":
        return 1.0 - probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    before[:, 0] = 0.0
    scores = np.empty_like(probabilities)
    np.put_along_axis(scores, order, before, axis=1)
    return scores


def fit_conformal(
    probabilities: Probabilities, labels: Groups, patients: Groups, settings: ReadingSettings
) -> Conformal:
    """Return the rule for the wanted coverage.

    Parameters
    ----------
    probabilities : ndarray of float64, (N, K)
        Uncalibrated.
    labels, patients : ndarray of int64, (N,)
    settings : ReadingSettings
        ``conformal``, ``coverage`` and ``by_class``.

    Raises
    ------
    NotEnough
        With too few patients for the coverage.
    """
    method = settings.conformal
    if method == "off":
        raise NotEnough("turned off in site.toml")
    number, classes = count(patients), probabilities.shape[1]
    if number < FEWEST_PATIENTS:
        raise NotEnough(f"{number} holdout patients; {FEWEST_PATIENTS} are needed")
    share = 1.0 - settings.coverage
    own = class_scores(probabilities, method)[np.arange(len(labels)), labels]
    if settings.by_class:
        quantiles = tuple(
            upper_limit(own[labels == k], patients[labels == k], share=share)
            for k in range(classes)
        )
    else:
        quantiles = (upper_limit(own, patients, share=share),) * classes
    if all(quantile is None for quantile in quantiles):
        raise NotEnough(f"{number} holdout patients cannot promise {settings.coverage:g}")
    return Conformal(
        method=method,
        by_class=settings.by_class,
        coverage=settings.coverage,
        quantiles=quantiles,
    )


def prediction_sets(probabilities: Probabilities, rule: Conformal) -> NDArray[np.bool_]:
    """Return which classes cannot be ruled out, bool (N, K)."""
    result: NDArray[np.bool_] = class_scores(probabilities, rule.method) <= rule.limits
    return result
