"""Histograms of scores on a fixed grid of log-odds, coarsened so that no range holds few cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

LOG_ODDS_LIMIT = 12.0
BINS = 65_536
# 24 / 65536 = 0.0004 log-odds a bin: a barely trained network keeps its ranking, too. Only bins
# that hold cases are reported, so a fine grid costs nothing.


class ScoreHistogram(BaseModel):
    """Counts over ranges of the log-odds grid.

    Range ``i`` is the ``widths[i]`` bins from ``starts[i]`` on, and stands for ``counts[i]`` cases
    that are taken to lie evenly in it. Bin ``b`` begins at log-odds ``-12 + 24 b / BINS``; the
    outermost two hold all beyond. Ranges are in strictly increasing order of (start, width).

    How many there are is not bounded here: a sum over sites may have as many as all of them
    together. A reply's size bounds what a site can send, and
    `server.rounds.evaluation_checks` what of it enters a sum.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    starts: tuple[Annotated[int, Field(ge=0, lt=BINS)], ...] = ()
    widths: tuple[Annotated[int, Field(ge=1, le=BINS)], ...] = ()
    counts: tuple[Annotated[int, Field(ge=1, le=10**9)], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> ScoreHistogram:
        if not len(self.starts) == len(self.widths) == len(self.counts):
            raise ValueError("starts, widths and counts differ in length")
        ranges = list(zip(self.starts, self.widths, strict=True))
        if any(a >= b for a, b in pairwise(ranges)):
            raise ValueError("ranges are not strictly increasing")
        if any(start + width > BINS for start, width in ranges):
            raise ValueError("a range ends outside the grid")
        return self

    @property
    def total(self) -> int:
        """Number of cases."""
        return sum(self.counts)

    def density(self) -> NDArray[np.float64]:
        """Return the expected cases in each bin, float64 (BINS,)."""
        steps = np.zeros(BINS + 1)
        starts, widths = (
            np.array(self.starts, dtype=np.int64),
            np.array(self.widths, dtype=np.int64),
        )
        height = np.array(self.counts, dtype=np.float64) / widths
        narrow = widths == 1
        np.add.at(steps, starts[~narrow], height[~narrow])
        np.add.at(steps, (starts + widths)[~narrow], -height[~narrow])
        # Differences of sums round; a bin of its own is added exactly.
        full = np.maximum(np.cumsum(steps)[:BINS], 0.0) if not narrow.all() else np.zeros(BINS)
        np.add.at(full, starts[narrow], height[narrow])
        return full

    def mirrored(self) -> ScoreHistogram:
        """Return the histogram of one minus each score."""
        ranges = zip(self.starts, self.widths, self.counts, strict=True)
        return self.of({(BINS - start - width, width): count for start, width, count in ranges})

    @classmethod
    def of(cls, ranges: Mapping[tuple[int, int], int]) -> ScoreHistogram:
        """Build from counts by (start, width)."""
        keys = sorted(ranges)
        return cls(
            starts=tuple(start for start, _ in keys),
            widths=tuple(width for _, width in keys),
            counts=tuple(ranges[key] for key in keys),
        )

    @classmethod
    def count(cls, bins: NDArray[np.int64], minimum: int) -> ScoreHistogram:
        """Count bin indices (N,), joining neighbours until each run holds ``minimum`` cases.

        A run is told as the range over which evenly spread cases have its mean and its standard
        deviation. Its own lowest and highest bin would each be one patient's score; and a single
        case far out would carry the others along, which costs up to 0.04 of an AUROC
        (``tests/bench/evaluation.py``). Ranges of neighbouring runs may overlap.

        Fewer than ``minimum`` cases in all stay together in one range that is too small: the
        caller sees to it that there are more, or none.
        """
        dense = np.bincount(bins, minlength=BINS)
        ranges: list[tuple[int, int, int]] = []
        held = minimum
        for index in np.flatnonzero(dense).tolist():
            # A bin that is a run by itself, as the grid's last one of a sure model, is not smeared
            # over the bins of the few before it.
            if held < minimum <= dense[index] and len(ranges) > 1:
                _join_last(ranges)
                held = minimum
            if held >= minimum:
                ranges.append((index, index, 0))
            first, _, held = ranges[-1]
            held += int(dense[index])
            ranges[-1] = (first, index, held)
        if held < minimum and len(ranges) > 1:
            _join_last(ranges)
        told: Counter[tuple[int, int]] = Counter()
        for first, last, count in ranges:
            told[_even_range(first, dense[first : last + 1])] += count
        return cls.of(told)

    @classmethod
    def merge(cls, parts: Sequence[ScoreHistogram]) -> ScoreHistogram:
        """Sum histograms, exactly."""
        ranges: Counter[tuple[int, int]] = Counter()
        for part in parts:
            for start, width, count in zip(part.starts, part.widths, part.counts, strict=True):
                ranges[start, width] += count
        return cls.of(ranges)


def _join_last(ranges: list[tuple[int, int, int]]) -> None:
    """Give the cases of the last run to the run before it."""
    _, last, rest = ranges.pop()
    first, _, count = ranges.pop()
    ranges.append((first, last, count + rest))


def _even_range(first: int, counts: NDArray[np.int64]) -> tuple[int, int]:
    """Return start and width of the even range with the mean and spread of counts from a bin on."""
    places = np.arange(len(counts)) + first + 0.5
    mean = float((places * counts).sum() / counts.sum())
    spread = float(np.sqrt((counts * (places - mean) ** 2).sum() / counts.sum()))
    half = np.sqrt(3.0) * spread  # of an even distribution
    start = min(max(int(np.floor(mean - half)), 0), BINS - 1)
    return start, min(max(1, round(2 * half)), BINS - start)


def bin_scores(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin of each probability in [0, 1], same shape."""
    with np.errstate(divide="ignore"):
        log_odds = np.log(scores) - np.log1p(-np.minimum(scores, 1.0))
    clipped = np.clip(log_odds, -LOG_ODDS_LIMIT, LOG_ODDS_LIMIT)
    index = np.floor((clipped + LOG_ODDS_LIMIT) * (BINS / (2 * LOG_ODDS_LIMIT))).astype(np.int64)
    return cast("NDArray[np.int64]", np.minimum(index, BINS - 1))


def area_under_curve(positive: ScoreHistogram, negative: ScoreHistogram) -> float | None:
    """Return the AUROC (Mann-Whitney, ties one half); None when either side is empty."""
    pairs = positive.total * negative.total
    if pairs == 0:
        return None
    above, below = positive.density(), negative.density()
    lower = np.cumsum(below) - below
    return min(1.0, float((above * (lower + below / 2)).sum() / pairs))
