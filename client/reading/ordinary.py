"""Whether an image is of the kind that the site's holdout is: a distance between features.

After Lee et al. 2018 (arXiv:1807.03888), who take the Mahalanobis distance of a network's features.
A holdout has fewer patients than a network has features, so the covariance is that of probabilistic
PCA (Tipping and Bishop 1999, doi:10.1111/1467-9868.00196): a few directions, and one variance for
all others. The distance to the nearest neighbours (Sun et al. 2022, arXiv:2204.06507) would do too,
but needs the features of single patients at hand; these are figures over all of them.
"""

from __future__ import annotations

import numpy as np

from client.inference.outputs import Features
from client.reading.parts import NotEnough, Ordinary, packed
from client.reading.patients import (
    Groups,
    Numbers,
    attainable_share,
    count,
    first_of_each,
    folds,
    upper_limit,
)

FEWEST_PATIENTS = 20
MOST_PATIENTS = 500
"""Whom the Gaussian is fitted on, of more an evenly spaced choice; the limit is of all of them."""
HIGHEST_RANK = 32
_FOLDS = 5


def fit_ordinary(features: Features, patients: Groups, *, false_alarms: float) -> Ordinary:
    """Return what ordinary features are, and how far from them is too far.

    The limit is the finite-sample quantile of the distances of patients whom the Gaussian was
    not fitted on (five folds).

    Parameters
    ----------
    features : ndarray of float32, (N, D)
    patients : ndarray of int64, (N,)
    false_alarms : float
        Share of ordinary images beyond the limit; few patients can only promise a larger one.

    Raises
    ------
    NotEnough
        With too few patients, or features that do not vary.
    """
    number = count(patients)
    if number < FEWEST_PATIENTS:
        raise NotEnough(f"{number} holdout patients; {FEWEST_PATIENTS} are needed")
    if not np.isfinite(features).all():
        raise NotEnough("the holdout's features are not finite")
    parts, distances = folds(patients, _FOLDS), np.zeros(len(features))
    for fold in range(_FOLDS):
        out = parts == fold
        theirs = _gaussian(features[~out], patients[~out])
        distances[out] = distance(features[out], theirs)
    share = attainable_share(false_alarms, patients)
    limit = upper_limit(distances, patients, share=share)
    assert limit is not None  # the share is one that these patients can promise
    whole = _gaussian(features, patients)
    return whole.model_copy(update={"limit": limit, "false_alarms": share})


def distance(features: Features, ordinary: Ordinary) -> Numbers:
    """Return how far features are from ordinary ones, float64 (N,).

    In standard deviations, root mean square over the D dimensions: about 1 for ordinary images.
    """
    apart = features - ordinary.centre
    along = apart @ ordinary.axes.T
    rest = np.maximum((apart**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
    squares = (along**2 / np.array(ordinary.variances)).sum(axis=1) + rest / ordinary.residual
    result: Numbers = np.sqrt(squares.astype(np.float64) / ordinary.features)
    return result


def _gaussian(features: Features, patients: Groups) -> Ordinary:
    """Fit by maximum likelihood (Tipping and Bishop, section 3.2), on one image a patient."""
    one = first_of_each(patients)
    if len(one) > MOST_PATIENTS:
        one = one[np.linspace(0, len(one) - 1, MOST_PATIENTS).astype(np.int64)]
    rows, wide = len(one), features.shape[1]
    apart = features[one].astype(np.float64)
    mean = apart.mean(axis=0)
    apart -= mean
    # The rows' products have the eigenvalues of the features' covariance, and are fewer.
    sizes, sides = np.linalg.eigh(apart @ apart.T / (rows - 1))
    variances, sides = sizes[::-1], sides[:, ::-1]
    rank = min(HIGHEST_RANK, rows // 4, wide // 2)
    residual = (variances.sum() - variances[:rank].sum()) / (wide - rank)
    directions = sides[:, :rank].T @ apart
    if not (np.isfinite(variances).all() and min(variances[:rank].min(), residual) > 1e-12):
        raise NotEnough("the holdout's features do not vary")
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Ordinary(
        features=wide,
        mean=packed(mean),
        directions=packed(directions),
        variances=tuple(float(v) for v in variances[:rank]),
        residual=float(residual),
        limit=0.0,
        false_alarms=1.0,
    )
