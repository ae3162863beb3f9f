"""How sure a pooled figure is: 95 % intervals by bootstrap over the sites' histograms.

Cases are drawn anew, with replacement, from the counts: the positives of a class from its
positive histogram, the negatives from its negative one (Efron and Tibshirani 1993, chapter 8, the
two-sample problem). What is assumed:

- The unit is the case as the site counted it, one a patient and label; patients are independent.
- The sites are the population, not a sample of one: the intervals say nothing of other hospitals.
- A case of a joined range may lie anywhere in it, all places alike.
- The classes share their cases, in a way that the histograms do not tell. The interval of a mean
  over classes (macro AUROC) is the mean of the classes' intervals, as if all moved together: the
  widest that it can be.
- Two models that were scored on the same patients vary together, in a way that two sets of
  histograms do not tell either: the correlation is given (`difference_lower_bound`).

Proportions (accuracy, sensitivity, specificity) need no drawing: Wilson 1927
(doi:10.1080/01621459.1927.10502953). The calibration error has a module of its own,
`server.calibration_interval`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.evaluation_counts import Counts
from common.evaluation_figures import average_precision
from common.score_histogram import BINS, ScoreHistogram, area_under_curve

DRAWS = 500
SEGMENTS = 128
"""To which the grid is coarsened for drawing: the spread of a figure needs no more."""

ROUNDING = 1e-9
NORMAL_975, NORMAL_95 = 1.959964, 1.644854
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure, and the ends of its two-sided 95 % interval."""

    value: float
    lower: float
    upper: float


def auroc_estimate(
    positive: ScoreHistogram, negative: ScoreHistogram, generator: np.random.Generator
) -> Estimate | None:
    """Return a class's AUROC; None where it is undefined."""
    value = area_under_curve(positive, negative)
    if value is None:
        return None
    drawn = draw_aurocs(positive, negative, generator)
    low, high = _percentiles(drawn + value)
    if _nothing_else(value, drawn):
        slack = _perfect_slack(positive.total, negative.total)
        low, high = value - slack, value + slack
    return Estimate(value, max(0.0, min(low, value)), min(1.0, max(high, value)))


def average_precision_estimate(
    positive: ScoreHistogram, negative: ScoreHistogram, generator: np.random.Generator
) -> Estimate | None:
    """Return a class's average precision at the prevalence of the holdouts; None if undefined.

    The interval is the bootstrap's standard error on the log-odds scale (Boyd et al. 2013,
    doi:10.1007/978-3-642-40994-3_29, find plain percentiles too narrow).
    """
    value = average_precision(positive, negative)
    if value is None:
        return None
    drawn = _precisions(*_draw(positive, negative, generator))
    scale = np.log(np.clip(drawn, 1e-6, 1 - 1e-6)) - np.log1p(-np.clip(drawn, 1e-6, 1 - 1e-6))
    at = min(max(value, 1e-6), 1 - 1e-6)
    middle, half = math.log(at / (1 - at)), NORMAL_975 * float(scale[1:].std())
    low, high = (1 / (1 + math.exp(-(middle + sign * half))) for sign in (-1, 1))
    if _nothing_else(value, drawn):
        slack = _perfect_slack(positive.total, negative.total)
        low, high = max(0.0, value - slack), min(1.0, value + slack)
    return Estimate(value, min(low, value), max(high, value))


def mean_estimate(parts: tuple[Estimate | None, ...]) -> Estimate | None:
    """Return the mean of the defined parts, as if they moved together."""
    told = [part for part in parts if part is not None]
    if not told:
        return None
    columns = zip(*((part.value, part.lower, part.upper) for part in told), strict=True)
    return Estimate(*(sum(column) / len(told) for column in columns))


def proportion(hits: float, cases: float, *, normal: float = NORMAL_975) -> Estimate | None:
    """Return a proportion with Wilson's interval; None without a case.

    ``normal`` is the normal distribution's quantile of either end: 1.96 for a two-sided interval
    of 95 %, `NORMAL_95` where one end alone is to hold with 95 %.
    """
    if cases <= 0:
        return None
    share, z = min(1.0, hits / cases), normal
    middle = (share + z**2 / (2 * cases)) / (1 + z**2 / cases)
    spread = share * (1 - share) / cases + z**2 / (4 * cases**2)
    half = z * math.sqrt(spread) / (1 + z**2 / cases)
    return Estimate(share, max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share)))


def difference_lower_bound(
    new: Counts, old: Counts, *, correlation: float, generator: np.random.Generator
) -> float | None:
    """Return the one-sided 95 % lower bound of a gain in macro AUROC.

    Parameters
    ----------
    new, old : Counts
        Of two models, on the same cases.
    correlation : float
        Of the two AUROCs over samples of patients, 0 to 1; 0 is as if there were other patients.
        Hanley and McNeil 1983 (doi:10.1148/radiology.148.3.6878708, table I) give 0.4 to 0.5 for
        answers that correlate by 0.5 at an AUROC of 0.8.

    Returns
    -------
    float or None
        None where no class has an AUROC for both.
    """
    bounds = []
    for index in range(len(new.classes)):
        before = area_under_curve(old.positives[index], old.negatives[index])
        after = area_under_curve(new.positives[index], new.negatives[index])
        if before is None or after is None:
            continue
        gain = _with_slack(new, index, after, generator)
        loss = _with_slack(old, index, before, generator)
        spread = gain.std()
        together = gain * (loss.std() / spread) if spread else loss
        loss = correlation * together + math.sqrt(1 - correlation**2) * loss
        bounds.append(after - before + float(np.quantile(gain - loss, 0.05)))
    return sum(bounds) / len(bounds) if bounds else None


def draw_aurocs(
    positive: ScoreHistogram, negative: ScoreHistogram, generator: np.random.Generator
) -> Floats:
    """Return by how much `DRAWS` AUROCs of drawn cases differ from the AUROC, float64 (DRAWS,)."""
    right, wrong = _draw(positive, negative, generator)
    below = np.cumsum(wrong, axis=1) - wrong / 2
    areas = (right * below).sum(axis=1) / (positive.total * negative.total)
    return np.asarray(areas[1:] - areas[0], dtype=np.float64)


def _with_slack(counts: Counts, index: int, area: float, generator: np.random.Generator) -> Floats:
    positive, negative = counts.positives[index], counts.negatives[index]
    drawn = draw_aurocs(positive, negative, generator)
    if _nothing_else(area, drawn):
        slack = _perfect_slack(positive.total, negative.total) / NORMAL_975
        return generator.normal(0.0, slack, size=DRAWS)
    return drawn


def _nothing_else(value: float, drawn: Floats) -> bool:
    """Tell whether no draw can say how sure a figure is.

    Of a perfect ranking, the right way round or the other, nothing else can be drawn; nor where
    all scores are alike. Draws that are alike may differ by rounding, and so may 1: a spread of
    exactly 0 would be a matter of chance.
    """
    return value >= 1 - ROUNDING or value <= ROUNDING or float(drawn.std()) < ROUNDING


def _perfect_slack(positives: int, negatives: int) -> float:
    """Return half an interval where every draw is alike: the rule of three over the fewer cases.

    Hanley and Lippman-Hand 1983, doi:10.1001/jama.1983.03330370053031.
    """
    return min(1.0, 3.0 / min(positives, negatives))


def _draw(
    positive: ScoreHistogram, negative: ScoreHistogram, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return cases by segment, (1 + DRAWS, segments) a side; the first row is the counts'."""
    edges = _segment_edges(positive, negative)
    sides = []
    for histogram in (positive, negative):
        counts = np.array(histogram.counts, dtype=np.float64) @ _shares(histogram, edges)
        drawn = generator.multinomial(histogram.total, counts / counts.sum(), size=DRAWS)
        sides.append(np.concatenate([counts[None], drawn]))
    return sides[0], sides[1]


def _segment_edges(positive: ScoreHistogram, negative: ScoreHistogram) -> NDArray[np.int64]:
    """Return at most `SEGMENTS` + 1 edges on the grid, as many cases of either side between any."""
    density = positive.density() / positive.total + negative.density() / negative.total
    cumulative = np.cumsum(density)
    wanted = np.linspace(0, cumulative[-1], SEGMENTS + 1)[1:-1]
    # Rounded a little too small, a sum of densities would move an edge to the next case's bin, and
    # with that some of the other side's cases into one segment with these.
    inner = np.searchsorted(cumulative, wanted - ROUNDING) + 1
    return np.unique(np.concatenate([[0], inner, [BINS]]))


def _shares(histogram: ScoreHistogram, edges: NDArray[np.int64]) -> Floats:
    """Return which share of each range lies in each segment, (ranges, segments)."""
    starts = np.array(histogram.starts, dtype=np.float64)[:, None]
    widths = np.array(histogram.widths, dtype=np.float64)[:, None]
    overlap = np.minimum(starts + widths, edges[None, 1:]) - np.maximum(starts, edges[None, :-1])
    return np.asarray(np.maximum(overlap, 0.0) / widths, dtype=np.float64)


def _precisions(right: Floats, wrong: Floats) -> Floats:
    true = np.cumsum(right[:, ::-1], axis=1)
    called = true + np.cumsum(wrong[:, ::-1], axis=1)
    gained = right[:, ::-1]
    # In the middle of a segment, half of its cases are called.
    middle_true = true - gained / 2
    middle_called = called - (gained + wrong[:, ::-1]) / 2
    share = np.divide(middle_true, middle_called, out=np.zeros_like(true), where=middle_called > 0)
    return np.asarray((gained * share).sum(axis=1) / true[:, -1], dtype=np.float64)


def _percentiles(drawn: Floats) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
