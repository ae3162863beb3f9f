"""Whether the answers are as right for one group of patients as for another.

Sensitivity, specificity and the share called positive by age band and sex, over confirmed cases,
by fairlearn's `MetricFrame`; intervals by Wilson. A figure of fewer cases than the policy's
smallest cell is not told, nor is one from which such a cell would follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from client.monitoring.comparison import Interval
from client.monitoring.outcomes import Outcome
from client.monitoring.rates import CONFIDENCE, wilson
from client.training.evaluation import age_group
from common.evaluation_counts import GROUPS
from common.evaluation_suppression import group_cells

RateName: TypeAlias = Literal["sensitivity", "specificity", "positive-share"]
RATES: tuple[RateName, ...] = ("sensitivity", "specificity", "positive-share")

Table: TypeAlias = NDArray[np.int64]
"""Cases by group, label (0 harmless, 1 harmful) and verdict (0 negative, 1 positive)."""


@dataclass(frozen=True)
class GroupFairness:
    """One group's figures; None where they are not told.

    Attributes
    ----------
    axis, group : str
        As `common.evaluation_counts.GROUPS` names them.
    positives, negatives : int or None
        Confirmed cases.
    sensitivity, specificity, positive_share : Interval or None
    """

    axis: str
    group: str
    positives: int | None
    negatives: int | None
    sensitivity: Interval | None
    specificity: Interval | None
    positive_share: Interval | None


@dataclass(frozen=True)
class Gap:
    """The distance between the groups of an axis with the highest and the lowest rate.

    Its bounds hold whatever groups these turn out to be: all groups' intervals together are of
    99 % confidence (Bonferroni). Where the lower one is 0, no difference is shown.
    """

    axis: str
    rate: RateName
    distance: Interval


@dataclass(frozen=True)
class Fairness:
    """All groups of which there is anything, and the gaps between those that are told."""

    groups: tuple[GroupFairness, ...] = ()
    gaps: tuple[Gap, ...] = ()


def fairness(outcomes: Sequence[Outcome], *, minimum: int) -> Fairness:
    """Return the figures by subgroup.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Of one release, independent of each other.
    minimum : int
        The policy's smallest cell.
    """
    groups: list[GroupFairness] = []
    gaps: list[Gap] = []
    for axis, names in GROUPS.items():
        member = np.array([_member(one, axis) for one in outcomes], dtype=np.int64)
        label = np.array([one.harmful for one in outcomes], dtype=np.int64)
        called = np.array([one.positive for one in outcomes], dtype=np.int64)
        told = group_cells(member, label, (len(names), 2), max(1, minimum)).astype(np.bool_)
        known = member >= 0
        if not told.any():
            continue
        table = np.zeros((len(names), 2, 2), dtype=np.int64)
        np.add.at(table, (member[known], label[known], called[known]), 1)
        rates = _rates(label[known], called[known], member[known], len(names))
        groups += [_group(axis, name, table[g], rates[g], told[g]) for g, name in enumerate(names)]
        gaps += _gaps(axis, table, told)
    return Fairness(tuple(groups), tuple(gaps))


def _member(outcome: Outcome, axis: str) -> int:
    group = age_group(outcome.age_band) if axis == "age" else outcome.sex
    return GROUPS[axis].index(group) if group in GROUPS[axis] else -1


def _rates(label: Table, called: Table, member: Table, groups: int) -> NDArray[np.float64]:
    """Return fairlearn's rates by group, float64 (groups, 3), in the order of `RATES`."""
    # It loads pandas: half a second that only a site with confirmed cases needs to spend.
    from fairlearn.metrics import (
        MetricFrame,
        selection_rate,
        true_negative_rate,
        true_positive_rate,
    )

    frame = MetricFrame(
        metrics={
            "sensitivity": lambda y_true, y_pred: true_positive_rate(y_true, y_pred, pos_label=1),
            "specificity": lambda y_true, y_pred: true_negative_rate(y_true, y_pred, pos_label=1),
            "positive-share": selection_rate,
        },
        y_true=label,
        y_pred=called,
        sensitive_features=member,
    )
    by_group = frame.by_group.reindex(range(groups))[list(RATES)]
    found: NDArray[np.float64] = by_group.to_numpy(dtype=np.float64)
    return found


def _group(
    axis: str, name: str, table: Table, rates: NDArray[np.float64], told: NDArray[np.bool_]
) -> GroupFairness:
    harmless, harmful = (int(count) for count in table.sum(axis=1))
    both = bool(told.all())
    return GroupFairness(
        axis=axis,
        group=name,
        positives=harmful if told[1] else None,
        negatives=harmless if told[0] else None,
        sensitivity=_interval(rates[0], harmful) if told[1] else None,
        specificity=_interval(rates[1], harmless) if told[0] else None,
        positive_share=_interval(rates[2], harmful + harmless) if both else None,
    )


def _interval(rate: float, cases: int) -> Interval:
    return wilson(round(rate * cases), cases)


def _gaps(axis: str, table: Table, told: NDArray[np.bool_]) -> list[Gap]:
    found = []
    for rate in RATES:
        hits, cases, usable = _counts(table, told, rate)
        if usable.sum() >= 2:
            found.append(Gap(axis, rate, _gap(hits[usable], cases[usable])))
    return found


def _counts(
    table: Table, told: NDArray[np.bool_], rate: RateName
) -> tuple[Table, Table, NDArray[np.bool_]]:
    """Return hits, cases, and whether both are told, by group."""
    if rate == "sensitivity":
        return table[:, 1, 1], table[:, 1].sum(axis=1), told[:, 1]
    if rate == "specificity":
        return table[:, 0, 0], table[:, 0].sum(axis=1), told[:, 0]
    both = told[:, 0] & told[:, 1]
    return table[:, :, 1].sum(axis=1), table.sum(axis=(1, 2)), both


def _gap(hits: Table, cases: Table) -> Interval:
    each = 1 - (1 - CONFIDENCE) / len(cases)
    found = [wilson(int(h), int(n), confidence=each) for h, n in zip(hits, cases, strict=True)]
    surely = max(one.low for one in found) - min(one.high for one in found)
    perhaps = max(one.high for one in found) - min(one.low for one in found)
    return Interval(max(0.0, surely), float(np.ptp(hits / cases)), perhaps)
