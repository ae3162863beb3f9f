"""Whether a site's own head may answer in the release's place: judged on the site's holdout.

The rule, fixed before anything is looked at:

1. Macro AUROC on the site's holdout is higher than the release's;
2. the lower end of the difference's 95 % interval is above -`MARGIN` (non-inferior);
3. at the release's threshold it finds no fewer positive cases.

The interval is a bootstrap's over patients (percentiles of `RESAMPLES`), both heads on the same
resample, so that the two being correlated is in it. A case is a patient with one label, as in
federated evaluation: probabilities of his or her images are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from common.errors import CaseRefused

MARGIN = 0.02
RESAMPLES = 1000
MINIMUM_PATIENTS = 10
"""Holdout patients with a positive case, and with a negative one, that a verdict needs."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class HoldoutCases:
    """What both heads say of each case: (N, K) each; its label (N,) and its patient (N,)."""

    released: Scores
    personal: Scores
    labels: NDArray[np.int64]
    patients: NDArray[np.int64]


@dataclass(frozen=True)
class Judgement:
    """The figures of the rule above, and whether it is kept."""

    released_auroc: float
    personal_auroc: float
    lower: float
    upper: float
    released_found: int
    personal_found: int
    positives: int

    @property
    def difference(self) -> float:
        """Macro AUROC of the personal head minus the release's."""
        return self.personal_auroc - self.released_auroc

    @property
    def serves(self) -> bool:
        """Whether the personal head may answer."""
        return (
            self.difference > 0
            and self.lower > -MARGIN
            and self.personal_found >= self.released_found
        )


def judge(cases: HoldoutCases, *, positive: Sequence[int], threshold: float) -> Judgement:
    """Judge a head by the rule above; the same cases give the same judgement.

    Parameters
    ----------
    cases : HoldoutCases
        The site's whole holdout.
    positive : sequence of int
        Indices of the recipe's positive classes.
    threshold : float
        The release's, on their summed probability.

    Raises
    ------
    CaseRefused
        With code ``holdout-too-small``.
    """
    sick = np.isin(cases.labels, list(positive))
    sides = [len(np.unique(cases.patients[side])) for side in (sick, ~sick)]
    if min(sides) < MINIMUM_PATIENTS:
        raise CaseRefused(
            "The holdout is too small to judge a head of the site's own.",
            meaning=f"{MINIMUM_PATIENTS} patients with a positive case are needed, and as many "
            "with a negative one.",
            action="Confirm more cases, then try again; the plain release answers meanwhile.",
            code="holdout-too-small",
        )
    found = [
        int((scores[sick][:, list(positive)].sum(axis=1) >= threshold).sum())
        for scores in (cases.released, cases.personal)
    ]
    lower, upper = interval(resampled(cases.patients, _difference(cases)))
    return Judgement(
        released_auroc=macro_auroc(cases.released, cases.labels),
        personal_auroc=macro_auroc(cases.personal, cases.labels),
        lower=lower,
        upper=upper,
        released_found=found[0],
        personal_found=found[1],
        positives=int(sick.sum()),
    )


def macro_auroc(scores: Scores, labels: NDArray[np.int64]) -> float:
    """Return the mean one-against-the-rest AUROC of the classes that are there, and not alone."""
    found = []
    for number in range(scores.shape[1]):
        own = labels == number
        count, others = int(own.sum()), int((~own).sum())
        if count and others:
            ranks = rankdata(scores[:, number])[own].sum()
            found.append((ranks - count * (count + 1) / 2) / (count * others))
    return float(np.mean(found)) if found else float("nan")


def resampled(
    patients: NDArray[np.int64], statistic: Callable[[NDArray[np.int64]], float]
) -> Scores:
    """Return a statistic of `RESAMPLES` draws of the patients, with replacement.

    Parameters
    ----------
    patients : ndarray of int64, (N,)
        Each case's patient.
    statistic : callable
        Of the drawn cases' positions; draws of which it is NaN are left out.

    Returns
    -------
    ndarray of float64, at most (`RESAMPLES`,)
        The same for the same patients and statistic.
    """
    owners, own = np.unique(patients, return_inverse=True)
    rows = [np.flatnonzero(own == number) for number in range(len(owners))]
    dice = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([rows[n] for n in dice.integers(0, len(rows), len(rows))])
        found.append(statistic(drawn))
    values: Scores = np.array(found)
    return np.asarray(values[~np.isnan(values)])


def interval(values: Scores) -> tuple[float, float]:
    """Return the percentiles that end the 95 % interval."""
    lower, upper = np.percentile(values, [2.5, 97.5])
    return float(lower), float(upper)


def case_groups(
    labels: NDArray[np.int64], patients: NDArray[np.int64]
) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Return the images of each case, which is a patient with one label, and its patient.

    Parameters
    ----------
    labels, patients : ndarray of int64, (N,)
        Of each image.
    """
    pairs, own = np.unique(np.stack([patients, labels], axis=1), axis=0, return_inverse=True)
    groups = [np.flatnonzero(own.ravel() == number) for number in range(len(pairs))]
    return groups, pairs[:, 0]


def _difference(cases: HoldoutCases) -> Callable[[NDArray[np.int64]], float]:
    def of(rows: NDArray[np.int64]) -> float:
        labels = cases.labels[rows]
        return macro_auroc(cases.personal[rows], labels) - macro_auroc(cases.released[rows], labels)

    return of
