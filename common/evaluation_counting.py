"""Counting holdout cases so that no two histograms together tell of fewer than the smallest cell.

Cases are joined to runs of ``m`` neighbours. Where two histograms hold the same cases by the same
score, both must have the same runs: were the one joined from the lowest score on and the other
from the highest, their sums would differ by the scores of fewer than m cases, often of one. So:

- A class's own cases are joined from the lowest score on, those of other classes from the highest.
  Of two classes the probabilities mirror each other, and so do, bin by bin, their histograms: the
  negatives of the one are the positives of the other.
- Answers that are told to be right are joined apart from the rest, which the confusion matrix
  counts. Calibration tells the very runs of the right ones.
- The decision's score where one class alone is positive, or all but one, is that class's (or its
  mirror image), and so are its runs.
- A subgroup that holds all of a histogram's cases has the whole's.

What is left are scores that differ: with three classes or more, other classes' probabilities of
the same cases; and subgroups that hold nearly all cases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.evaluation_counts import (
    GROUPS,
    CalibrationCounts,
    Counts,
    DecisionCounts,
    Statistic,
    Subgroup,
)
from common.evaluation_suppression import IntArray, group_cells, suppress_row, told_right
from common.score_histogram import BINS, ScoreHistogram, bin_scores

SUBGROUP_RANGES = 64
Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]
Columns = tuple[ScoreHistogram, ...]


@dataclass(frozen=True)
class CaseGroups:
    """What subgroup each case is in: for each axis its index in `GROUPS`, -1 where unknown.

    ``age`` and ``sex`` are int64 (N,).
    """

    age: IntArray
    sex: IntArray


@dataclass(frozen=True)
class CaseCounting:
    """What is counted, of predictions that were checked already."""

    classes: tuple[str, ...]
    positive: frozenset[str]
    statistics: frozenset[Statistic]

    def count(self, scores: Scores, truth: IntArray, minimum: int) -> Counts:
        """Count all cases; every class has ``minimum`` of them, or none."""
        size = len(self.classes)
        right = scores.argmax(axis=1) == truth
        confusion = np.zeros((size, size), dtype=np.int64)
        np.add.at(confusion, (truth, scores.argmax(axis=1)), 1)
        rows = [suppress_row(row, index, minimum) for index, row in enumerate(confusion)]
        told = np.zeros(len(truth), dtype=np.bool_)
        for k, (row, _) in enumerate(rows):
            confidence = scores.max(axis=1, initial=0.0)
            told[told_right(right & (truth == k), confidence, int(row[k]))] = True
        joining = _Joining(told, minimum)
        positives, negatives = joining.by_class(scores, truth)
        return Counts(
            classes=self.classes,
            minimum_cell=minimum,
            positives=positives,
            negatives=negatives,
            confusion=tuple(tuple(row.tolist()) for row, _ in rows),
            unresolved=tuple(rest for _, rest in rows),
            decision=self._decision(scores, truth, joining, (positives, negatives)),
            calibration=(
                joining.calibration(scores, truth) if "calibration" in self.statistics else None
            ),
        )

    def count_subgroups(
        self, scores: Scores, truth: IntArray, groups: CaseGroups, whole: Counts
    ) -> tuple[Subgroup, ...]:
        """Count age bands and sexes among the cases of ``whole``, which are given again."""
        found, minimum = [], whole.minimum_cell
        for axis, member in (("age", groups.age), ("sex", groups.sex)):
            names = GROUPS[axis]
            told = group_cells(member, truth, (len(names), len(self.classes)), minimum)
            for index, name in enumerate(names):
                inside = (member == index) & (told[index][truth] == 1)
                if inside.any():
                    counts = self._count_group(scores[inside], truth[inside], minimum)
                    counts = counts if minimum == 1 else _as_whole(counts, whole)
                    part = {"axis": axis, "group": name, "counts": counts}
                    found.append(Subgroup.model_validate(part))
        return tuple(found)

    def _count_group(self, scores: Scores, truth: IntArray, minimum: int) -> Counts:
        size = len(self.classes)
        coarse = max(minimum, math.ceil(len(truth) / SUBGROUP_RANGES))
        joining = _Joining(np.zeros(len(truth), dtype=np.bool_), coarse)
        positives, negatives = joining.by_class(scores, truth)
        return Counts(
            classes=self.classes,
            minimum_cell=minimum,
            positives=positives,
            negatives=negatives,
            confusion=((0,) * size,) * size,
            unresolved=tuple(histogram.total for histogram in positives),
            decision=self._decision(scores, truth, joining, (positives, negatives)),
        )

    def _decision(
        self, scores: Scores, truth: IntArray, joining: _Joining, by_class: tuple[Columns, Columns]
    ) -> DecisionCounts | None:
        if "decision" not in self.statistics:
            return None
        chosen = np.array([name in self.positive for name in self.classes])
        positives, negatives = by_class
        if chosen.sum() == 1:
            k = int(chosen.argmax())
            return DecisionCounts(positives=positives[k], negatives=negatives[k])
        if (~chosen).sum() == 1:
            k = int(chosen.argmin())
            return DecisionCounts(
                positives=negatives[k].mirrored(), negatives=positives[k].mirrored()
            )
        bins = bin_scores(np.clip(scores[:, chosen].sum(axis=1), 0.0, 1.0))
        positive = chosen[truth]
        return DecisionCounts(
            positives=joining.upwards(bins, positive), negatives=joining.downwards(bins, ~positive)
        )


@dataclass(frozen=True)
class _Joining:
    """How cases are joined: those ``told`` to be right apart, each run of ``minimum`` cases."""

    told: Mask
    minimum: int

    def upwards(self, bins: IntArray, chosen: Mask) -> ScoreHistogram:
        """Join the chosen cases from the lowest score on."""
        parts = (bins[chosen & self.told], bins[chosen & ~self.told])
        return ScoreHistogram.merge([ScoreHistogram.count(part, self.minimum) for part in parts])

    def downwards(self, bins: IntArray, chosen: Mask) -> ScoreHistogram:
        """Join the chosen cases from the highest score on."""
        return self.upwards(BINS - 1 - bins, chosen).mirrored()

    def by_class(self, scores: Scores, truth: IntArray) -> tuple[Columns, Columns]:
        size, bins = scores.shape[1], _class_bins(scores)
        return (
            tuple(self.upwards(bins[:, k], truth == k) for k in range(size)),
            tuple(self.downwards(bins[:, k], truth != k) for k in range(size)),
        )

    def calibration(self, scores: Scores, truth: IntArray) -> CalibrationCounts:
        size, bins = scores.shape[1], _class_bins(scores)
        right = [self.upwards(bins[:, k], (truth == k) & self.told) for k in range(size)]
        if size == 2:
            # A wrong answer's confidence is what is missing to its own class's probability. (So
            # is that of a right answer which is told as wrong: told apart, it would follow.)
            rest = [self.upwards(bins[:, k], (truth == k) & ~self.told) for k in range(size)]
            wrong = ScoreHistogram.merge([part.mirrored() for part in rest])
        else:
            confidence = bin_scores(np.clip(scores.max(axis=1, initial=0.0), 0.0, 1.0))
            wrong = self.downwards(confidence, ~self.told)
        return CalibrationCounts(right=ScoreHistogram.merge(right), wrong=wrong)


def _class_bins(scores: Scores) -> IntArray:
    """Return each probability's bin (N, K); of two classes, the two mirror each other exactly."""
    if scores.shape[1] != 2:
        return bin_scores(scores)
    first, second = scores[:, 0], scores[:, 1]
    # The smaller of both is the more exact one: next to 1 floats lie far apart.
    bins = np.where(second <= first, bin_scores(second), BINS - 1 - bin_scores(first))
    return np.stack([BINS - 1 - bins, bins], axis=1)


def _as_whole(part: Counts, whole: Counts) -> Counts:
    """Return a subgroup's counts with the whole's histograms where it holds all their cases."""

    def same(mine: ScoreHistogram, all_of_them: ScoreHistogram) -> ScoreHistogram:
        return all_of_them if mine.total == all_of_them.total else mine

    decision = part.decision
    if decision is not None and whole.decision is not None:
        decision = DecisionCounts(
            positives=same(decision.positives, whole.decision.positives),
            negatives=same(decision.negatives, whole.decision.negatives),
        )
    return part.model_copy(
        update={
            "positives": tuple(map(same, part.positives, whole.positives)),
            "negatives": tuple(map(same, part.negatives, whole.negatives)),
            "decision": decision,
        }
    )
