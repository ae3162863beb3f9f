"""How right the answers were, by month and by release, beside what the release promised.

Intervals are of 99 % confidence, since somebody looks at them every day: rates by Wilson (1927),
the others by bootstrap. Where a figure's whole interval lies on the wrong side of what the release
promised, the promise is broken and an alarm stands. Where only its lower bound does, nothing is
shown yet: of few cases that is always so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from client.monitoring.comparison import Interval
from client.monitoring.outcomes import Outcome
from common.evaluation_figures import CALIBRATION_BINS

FigureName: TypeAlias = Literal["sensitivity", "specificity", "auroc", "calibration-error"]
FIGURES: tuple[FigureName, ...] = ("sensitivity", "specificity", "auroc", "calibration-error")
Standing: TypeAlias = Literal["held", "open", "broken"]
Weights: TypeAlias = NDArray[np.float64]

CONFIDENCE = 0.99
DRAWS = 400
MOST_DRAWN = 2000
"""Of more outcomes the newest are resampled."""


@dataclass(frozen=True)
class Promise:
    """What the release is held to; None where it promised nothing."""

    sensitivity: float | None = None
    specificity: float | None = None
    auroc: float | None = None
    calibration_error: float | None = None

    def of(self, name: FigureName) -> float | None:
        """Return the figure promised."""
        promised: float | None = getattr(self, name.replace("-", "_"))
        return promised


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


def by_month(outcomes: Iterable[Outcome], *, minimum: int) -> tuple[Performance, ...]:
    """Return the figures of each release and month (UTC), the oldest first.

    A release with another head of the site's own counts as the same release here.
    """
    groups: dict[tuple[str, int], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((f"{one.answered_at:%Y-%m}", one.version), []).append(one)
    return tuple(
        performance(groups[key], version=key[1], month=key[0], minimum=minimum)
        for key in sorted(groups)
    )


def broken(found: Performance, promise: Promise) -> tuple[FigureName, ...]:
    """Return the figures that are shown to be worse than promised."""
    return tuple(
        one.name for one in found.figures if one.standing(promise.of(one.name)) == "broken"
    )


def wilson(hits: int, cases: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return a rate with its score interval (Wilson 1927); ``cases`` at least 1."""
    bounds = stats.binomtest(hits, cases).proportion_ci(confidence, method="wilson")
    return Interval(float(bounds.low), hits / cases, float(bounds.high))


def _told(count: int, minimum: int) -> int | None:
    return count if count >= minimum else None


def _rate(right: NDArray[np.bool_], minimum: int) -> Interval | None:
    return None if len(right) < max(1, minimum) else wilson(int(right.sum()), len(right))


def _resampled(outcomes: Sequence[Outcome], minimum: int) -> tuple[Figure, Figure]:
    """Return area under the curve and calibration error, with bootstrap intervals."""
    if len(outcomes) < max(2, minimum):
        return Figure("auroc", None), Figure("calibration-error", None)
    scores = np.array([one.probabilities for one in outcomes])
    labels = np.array([one.label for one in outcomes])
    generator = np.random.default_rng(0)
    count = len(outcomes)
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=DRAWS)
    weights = np.vstack([np.ones(count), drawn]).astype(np.float64)
    held = np.bincount(labels, minlength=scores.shape[1])
    area = None
    if held.min() >= max(1, minimum):  # of all classes or of none: the mean is over all of them
        area = _area_interval(_mean_area(scores, labels, weights), int(held.min()))
    return Figure("auroc", area), Figure("calibration-error", _calibration(scores, labels, weights))


def _area_interval(areas: NDArray[np.float64], fewest: int) -> Interval:
    low, high = _quantiles(areas[1:])
    # Perfect separation resamples to itself: as sure as the smaller class's perfect rate, then.
    low = min(low, wilson(fewest, fewest).low) if areas[0] == 1.0 else low
    return Interval(low, float(areas[0]), high)


def _mean_area(
    scores: NDArray[np.float64], labels: NDArray[np.int64], weights: Weights
) -> NDArray[np.float64]:
    """Return the mean one-against-the-rest area under the curve for each row of weights."""
    classes = range(scores.shape[1])
    areas = [_area(scores[:, k], labels == k, weights) for k in classes]
    found: NDArray[np.float64] = np.mean(areas, axis=0)
    return found


def _area(
    score: NDArray[np.float64], positive: NDArray[np.bool_], weights: Weights
) -> NDArray[np.float64]:
    """Return the Mann-Whitney statistic for each row of weights, ties counting one half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # of equal scores
    above = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    below = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    lower = np.cumsum(below, axis=1) - below
    pairs = above.sum(axis=1) * below.sum(axis=1)
    won = (above * (lower + below / 2)).sum(axis=1)
    found: NDArray[np.float64] = np.where(pairs > 0, won / np.maximum(pairs, 1e-12), 0.5)
    return found


def _calibration(
    scores: NDArray[np.float64], labels: NDArray[np.int64], weights: Weights
) -> Interval:
    """Return the expected calibration error of the top class, freed of its upward bias.

    As `common.evaluation_figures.calibration_error`, over the same bins, which chance alone makes
    larger than 0. It is multiplied by the root of the share of the mean squared distance that
    binomial chance does not explain (after Kumar et al. 2019, arXiv:1909.10155, section 5). The
    lower bound is 0 where chance explains all of it (Hosmer and Lemeshow 1980).
    """
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, None)
    member = np.zeros((len(labels), CALIBRATION_BINS))
    member[np.arange(len(labels)), np.minimum(place, CALIBRATION_BINS - 1)] = 1.0
    apart = np.abs((weights * (confidence - right)) @ member).sum(axis=1) / weights.sum(axis=1)
    share, shown = _unexplained(confidence, right, member)
    estimate = float(apart[0]) * share
    low, high = (bound - float(apart[1:].mean()) for bound in _quantiles(apart[1:]))
    least = max(0.0, estimate + low) if shown else 0.0
    return Interval(least, estimate, min(1.0, estimate + high))


def _unexplained(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], member: NDArray[np.float64]
) -> tuple[float, bool]:
    """Return the share of the distance that is not chance's, and whether there is any, surely."""
    held = member.sum(axis=0)
    some = held > 0
    said, seen = (values @ member[:, some] / held[some] for values in (confidence, right))
    squares = held[some] * np.square(said - seen)
    by_chance = np.maximum(said * (1 - said), 1e-9)  # were the answers calibrated
    total = float(squares.sum())
    rest = max(0.0, total - float(by_chance.sum())) / total if total > 0 else 0.0
    p_value = float(stats.chi2.sf(float((squares / by_chance).sum()), int(some.sum())))
    return float(np.sqrt(rest)), p_value < 1 - CONFIDENCE


def _quantiles(values: NDArray[np.float64]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return float(low), float(high)
