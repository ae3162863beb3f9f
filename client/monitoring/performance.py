"""How right the answers were, by month and by release, beside what the release promised.

Intervals are of 99 % confidence, since somebody looks at them every day: rates by Wilson (1927),
the others by bootstrap. Where a figure's whole interval lies on the wrong side of what the release
promised, the promise is broken and an alarm stands. Where only its lower bound does, nothing is
shown yet: of few cases that is always so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from client.monitoring.comparison import Interval
from client.monitoring.outcomes import Outcome
from client.monitoring.promise import FigureName, Promise
from client.monitoring.rates import wilson
from client.monitoring.resampling import area_and_calibration

Standing: TypeAlias = Literal["held", "open", "broken"]

MOST_DRAWN = 2000
"""Of more outcomes the newest are resampled."""


@dataclass(frozen=True)
class Figure:
    """A figure with its interval; None where it is of fewer cases than the smallest cell."""

    name: FigureName
    interval: Interval | None

    def standing(self, promised: float | None) -> Standing | None:
        """Return how it stands beside a promise; None where either is not there."""
        if self.interval is None or promised is None:
            return None
        low, high = self.interval.low, self.interval.high
        if self.name == "calibration-error":  # the lower the better
            low, high, promised = -high, -low, -promised
        return "broken" if high < promised else "held" if low >= promised else "open"


@dataclass(frozen=True)
class Performance:
    """Figures of one release, in one month or since it answers (``month`` None).

    ``positives`` and ``negatives`` are confirmed cases; None below the smallest cell.
    """

    version: int
    month: str | None
    positives: int | None
    negatives: int | None
    figures: tuple[Figure, ...]


def performance(
    outcomes: Sequence[Outcome], *, version: int, month: str | None, minimum: int
) -> Performance:
    """Return the figures of outcomes of one release.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Independent of each other.
    version : int
        The release's.
    month : str or None
        ``YYYY-MM``, to be shown.
    minimum : int
        The smallest number of cases that a figure may be of.
    """
    harmful = np.array([one.harmful for one in outcomes], dtype=np.bool_)
    called = np.array([one.positive for one in outcomes], dtype=np.bool_)
    caught, cleared = called[harmful], ~called[~harmful]
    return Performance(
        version=version,
        month=month,
        positives=_told(len(caught), minimum),
        negatives=_told(len(cleared), minimum),
        figures=(
            Figure("sensitivity", _rate(caught, minimum)),
            Figure("specificity", _rate(cleared, minimum)),
            *_resampled(outcomes[-MOST_DRAWN:], minimum),
        ),
    )


@dataclass(frozen=True)
class Month:
    """What one month's figures were computed of, and they: most months never change again."""

    outcomes: tuple[Outcome, ...]
    minimum: int
    found: Performance


Months: TypeAlias = Mapping[tuple[str, int], Month]


def by_month(outcomes: Iterable[Outcome], *, minimum: int, known: Months) -> Months:
    """Return the figures of each release and month (UTC), by both, the oldest first.

    A release with another head of the site's own counts as the same release here.

    Parameters
    ----------
    outcomes : iterable of Outcome
        Independent of each other.
    minimum : int
        The smallest number of cases that a figure may be of.
    known : mapping
        What was returned last: a month whose outcomes are the same is not computed again.
    """
    groups: dict[tuple[str, int], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((f"{one.answered_at:%Y-%m}", one.version), []).append(one)
    found: dict[tuple[str, int], Month] = {}
    for key in sorted(groups):
        mine, last = tuple(groups[key]), known.get(key)
        if last is None or (last.minimum, last.outcomes) != (minimum, mine):
            figures = performance(mine, version=key[1], month=key[0], minimum=minimum)
            last = Month(mine, minimum, figures)
        found[key] = last
    return found


def broken(found: Performance, promise: Promise) -> tuple[FigureName, ...]:
    """Return the figures that are shown to be worse than promised."""
    return tuple(
        one.name for one in found.figures if one.standing(promise.of(one.name)) == "broken"
    )


def _told(count: int, minimum: int) -> int | None:
    return count if count >= minimum else None


def _rate(right: NDArray[np.bool_], minimum: int) -> Interval | None:
    return None if len(right) < max(1, minimum) else wilson(int(right.sum()), len(right))


def _resampled(outcomes: Sequence[Outcome], minimum: int) -> tuple[Figure, Figure]:
    """Return area under the curve and calibration error."""
    if len(outcomes) < max(2, minimum):
        return Figure("auroc", None), Figure("calibration-error", None)
    scores = np.array([one.probabilities for one in outcomes])
    labels = np.array([one.label for one in outcomes])
    area, error = area_and_calibration(scores, labels, minimum=minimum)
    return Figure("auroc", area), Figure("calibration-error", error)
