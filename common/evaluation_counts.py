"""Holdout counts as they travel: what a site may report, and their sum over sites.

How they are made, and what is suppressed in them, is in `common.evaluation`. Everything here is
read from foreign hands at the coordinator: sizes are bounded, and the parts must agree with each
other to the case.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.errors import InputRefused
from common.score_histogram import ScoreHistogram

Count = Annotated[int, Field(ge=0, le=10**9)]
Axis: TypeAlias = Literal["age", "sex"]
GROUPS: dict[str, tuple[str, ...]] = {
    "age": ("<40", "40-59", "60-79", "80+"),
    "sex": ("female", "male", "other"),
}
"""The closed list of subgroups; a case of unknown age or sex is in none."""

Statistic: TypeAlias = Literal["decision", "calibration", "subgroups"]
"""What may leave a site beside the counts by class."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DecisionCounts(_Part):
    """Where the summed probability of the positive classes falls.

    ``positives`` are the cases of a positive class, ``negatives`` all others.
    """

    positives: ScoreHistogram = ScoreHistogram()
    negatives: ScoreHistogram = ScoreHistogram()

    @property
    def cases(self) -> int:
        """Number of cases reported."""
        return self.positives.total + self.negatives.total


class CalibrationCounts(_Part):
    """Where the highest class probability falls, for right and for wrong answers."""

    right: ScoreHistogram = ScoreHistogram()
    wrong: ScoreHistogram = ScoreHistogram()

    @property
    def cases(self) -> int:
        """Number of cases reported."""
        return self.right.total + self.wrong.total


class Counts(_Part):
    """Counts over some holdout cases, of one site or summed over several.

    Attributes
    ----------
    classes : tuple of str
        In the recipe's order; everything below is in that order.
    minimum_cell : int
        No count between 0 and this one occurs. 1 means that nothing was suppressed.
    positives, negatives : tuple of ScoreHistogram
        Scores of the class among cases that are and are not of it.
    confusion : tuple of tuple of int
        Rows are true classes, columns the class with the highest probability.
    unresolved : tuple of int
        Errors of each row whose cells are too small to be told.
    decision : DecisionCounts or None
        None where no site releases it; of a sum, over those that do.
    calibration : CalibrationCounts or None
        The same.
    """

    classes: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=64)], ...],
        Field(min_length=2, max_length=1000),
    ]
    minimum_cell: Annotated[int, Field(ge=1, le=10**6)]
    positives: Annotated[tuple[ScoreHistogram, ...], Field(max_length=1000)]
    negatives: Annotated[tuple[ScoreHistogram, ...], Field(max_length=1000)]
    confusion: Annotated[
        tuple[Annotated[tuple[Count, ...], Field(max_length=1000)], ...], Field(max_length=1000)
    ]
    unresolved: Annotated[tuple[Count, ...], Field(max_length=1000)]
    decision: DecisionCounts | None = None
    calibration: CalibrationCounts | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Counts:
        size = len(self.classes)
        columns = (self.positives, self.negatives, self.confusion, self.unresolved)
        if any(len(column) != size for column in columns):
            raise ValueError("one entry a class is needed")
        if any(len(row) != size for row in self.confusion):
            raise ValueError("the confusion matrix is not square")
        if len(set(self.classes)) != size:
            raise ValueError("a class is named twice")
        self._check_totals()
        if any(0 < count < self.minimum_cell for count in self.cells()):
            raise ValueError("a count is below the minimum cell")
        return self

    def _check_totals(self) -> None:
        cases = self.cases
        for index, positive in enumerate(self.positives):
            if positive.total != sum(self.confusion[index]) + self.unresolved[index]:
                raise ValueError("a confusion row and its histogram differ in total")
            if self.negatives[index].total != cases - positive.total:
                raise ValueError("positives and negatives do not add up to the cases")
        if self.decision is not None and self.decision.cases > cases:
            raise ValueError("the decision's cases are more than there are")
        if self.calibration is not None and (
            self.calibration.right.total > self.correct or self.calibration.cases > cases
        ):
            raise ValueError("the calibration's cases are more than there are")

    def cells(self) -> list[int]:
        """Return every count that is told, in no particular order."""
        found = [count for row in self.confusion for count in row]
        found += self.unresolved
        histograms = [*self.positives, *self.negatives]
        if self.decision is not None:
            histograms += [self.decision.positives, self.decision.negatives]
        if self.calibration is not None:
            histograms += [self.calibration.right, self.calibration.wrong]
        for histogram in histograms:
            found += histogram.counts
        return found

    @property
    def cases(self) -> int:
        """Number of cases reported."""
        return sum(histogram.total for histogram in self.positives)

    @property
    def correct(self) -> int:
        """Answers that are told to be right."""
        return sum(row[index] for index, row in enumerate(self.confusion))

    def totals(self) -> tuple[int, ...]:
        """Return the cases of each class."""
        return tuple(histogram.total for histogram in self.positives)


class Subgroup(_Part):
    """The counts of one age band or sex; a class of too few cases in it is left out of it."""

    axis: Axis
    group: Annotated[str, Field(max_length=8)]
    counts: Counts

    @model_validator(mode="after")
    def _known(self) -> Subgroup:
        if self.group not in GROUPS[self.axis]:
            raise ValueError("no such subgroup")
        return self


class SiteEvaluation(Counts):
    """One site's counts, or the sum over several sites. See `common.evaluation`.

    ``subgroups`` are in the order of `GROUPS`; those without a case are not listed.
    """

    subgroups: Annotated[tuple[Subgroup, ...], Field(max_length=7)] = ()

    @model_validator(mode="after")
    def _subgroups_fit(self) -> SiteEvaluation:
        named = [(part.axis, part.group) for part in self.subgroups]
        if len(set(named)) != len(named):
            raise ValueError("a subgroup is named twice")
        for part in self.subgroups:
            if part.counts.classes != self.classes:
                raise ValueError("a subgroup has other classes")
            if part.counts.minimum_cell < self.minimum_cell:
                raise ValueError("a subgroup has a smaller minimum cell")
        for axis in GROUPS:
            parts = [part.counts.totals() for part in self.subgroups if part.axis == axis]
            summed = [sum(column) for column in zip(*parts, strict=True)]
            if any(s > n for s, n in zip(summed, self.totals(), strict=False)):
                raise ValueError("subgroups hold more cases than there are")
        return self


def merge(evaluations: Sequence[SiteEvaluation]) -> SiteEvaluation:
    """Sum evaluations of the same classes, exactly.

    What only some sites release is summed over those.

    Raises
    ------
    InputRefused
        If there is none, or the classes differ.
    """
    whole = _sum_counts(evaluations)
    subgroups = []
    for axis, groups in GROUPS.items():
        for group in groups:
            parts = [
                part.counts
                for evaluation in evaluations
                for part in evaluation.subgroups
                if (part.axis, part.group) == (axis, group)
            ]
            if parts:
                subgroups.append(
                    Subgroup.model_validate(
                        {"axis": axis, "group": group, "counts": _sum_counts(parts)}
                    )
                )
    return SiteEvaluation(**dict(whole), subgroups=tuple(subgroups))


def _sum_counts(parts: Sequence[Counts]) -> Counts:
    if not parts or any(part.classes != parts[0].classes for part in parts):
        raise InputRefused("There are no evaluations of the same classes.", code="evaluation-merge")
    confusion = np.sum([np.array(part.confusion, dtype=np.int64) for part in parts], axis=0)
    unresolved = np.sum([np.array(part.unresolved, dtype=np.int64) for part in parts], axis=0)
    return Counts(
        classes=parts[0].classes,
        minimum_cell=min(part.minimum_cell for part in parts),
        positives=_sum_columns([part.positives for part in parts]),
        negatives=_sum_columns([part.negatives for part in parts]),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        unresolved=tuple(unresolved.tolist()),
        decision=_sum_decisions([p.decision for p in parts if p.decision is not None]),
        calibration=_sum_calibrations([p.calibration for p in parts if p.calibration is not None]),
    )


def _sum_decisions(parts: Sequence[DecisionCounts]) -> DecisionCounts | None:
    if not parts:
        return None
    return DecisionCounts(
        positives=ScoreHistogram.merge([part.positives for part in parts]),
        negatives=ScoreHistogram.merge([part.negatives for part in parts]),
    )


def _sum_calibrations(parts: Sequence[CalibrationCounts]) -> CalibrationCounts | None:
    if not parts:
        return None
    return CalibrationCounts(
        right=ScoreHistogram.merge([part.right for part in parts]),
        wrong=ScoreHistogram.merge([part.wrong for part in parts]),
    )


def _sum_columns(columns: Sequence[tuple[ScoreHistogram, ...]]) -> tuple[ScoreHistogram, ...]:
    return tuple(ScoreHistogram.merge(column) for column in zip(*columns, strict=True))
