"""Holding a newer release against the one that answers, on the site's own holdout.

Both are scored on the same confirmed holdout cases, which answer for no clinician meanwhile. A
case is a patient with one label, as in federated evaluation. The figures are macro AUROC, and the
share of positive cases at or above each release's own threshold; their differences come with 95 %
intervals of a bootstrap over patients, both releases on the same resample
(`client.personalisation.judging`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from client.inference.holdout_scores import HoldoutScores
from client.inference.outputs import probabilities_of
from client.personalisation.judging import (
    MINIMUM_PATIENTS,
    case_groups,
    interval,
    macro_auroc,
    resampled,
)
from client.releases.shadow_figures import ShadowFigures
from common.release import ReleaseManifest

Table: TypeAlias = NDArray[np.float64]


def shadow_figures(
    new: tuple[ReleaseManifest, HoldoutScores],
    beside: tuple[ReleaseManifest, HoldoutScores],
    *,
    between: Callable[[], None] = lambda: None,
) -> ShadowFigures | None:
    """Compare two releases; None where the holdout has too few patients of either kind.

    Parameters
    ----------
    new, beside : tuple of ReleaseManifest and HoldoutScores
        With the same classes. Cases that only one was scored on do not count.
    between : callable, optional
        Runs before each resample; what it raises ends the comparison.
    """
    manifest = new[0]
    positive = [manifest.classes.index(c) for c in manifest.recipe.decision.positive_classes]
    common = {c.id for c in new[1].cases} & {c.id for c in beside[1].cases}
    if not common:
        return None
    tables, labels, patients = _by_case((new[1], beside[1]), common)
    sick = np.isin(labels, positive)
    if min(len(np.unique(patients[side])) for side in (sick, ~sick)) < MINIMUM_PATIENTS:
        return None
    hits = [
        table[:, positive].sum(axis=1) >= one[0].threshold
        for table, one in zip(tables, (new, beside), strict=True)
    ]

    def auroc(rows: NDArray[np.int64]) -> float:
        between()
        return macro_auroc(tables[0][rows], labels[rows]) - macro_auroc(
            tables[1][rows], labels[rows]
        )

    def sensitivity(rows: NDArray[np.int64]) -> float:
        own = rows[sick[rows]]
        return float(hits[0][own].mean() - hits[1][own].mean()) if len(own) else float("nan")

    differences = [interval(resampled(patients, figure)) for figure in (auroc, sensitivity)]
    return ShadowFigures(
        beside=beside[0].version,
        patients=len(np.unique(patients)),
        positives=int(sick.sum()),
        auroc=macro_auroc(tables[0], labels),
        auroc_beside=macro_auroc(tables[1], labels),
        auroc_lower=differences[0][0],
        auroc_upper=differences[0][1],
        sensitivity=float(hits[0][sick].mean()),
        sensitivity_beside=float(hits[1][sick].mean()),
        sensitivity_lower=differences[1][0],
        sensitivity_upper=differences[1][1],
    )


def _by_case(
    both: Sequence[HoldoutScores], common: Set[str]
) -> tuple[list[Table], NDArray[np.int64], NDArray[np.int64]]:
    """Return both tables of probabilities, a row a case, and each case's label and patient."""
    chosen = [[n for n, c in enumerate(scores.cases) if c.id in common] for scores in both]
    groups, owners = case_groups(both[0].labels[chosen[0]], both[0].patients[chosen[0]])
    tables = []
    for scores, rows in zip(both, chosen, strict=True):
        images = probabilities_of(scores.logits[rows])
        tables.append(np.array([images[group].mean(axis=0) for group in groups]))
    labels = both[0].labels[chosen[0]]
    return tables, np.array([labels[group[0]] for group in groups], np.int64), owners
