"""Rates with their intervals, of the confidence that all figures over confirmed cases have."""

from __future__ import annotations

from scipy import stats

from client.monitoring.comparison import Interval

CONFIDENCE = 0.99


def wilson(hits: int, cases: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return a rate with its score interval (Wilson 1927); ``cases`` at least 1."""
    bounds = stats.binomtest(hits, cases).proportion_ci(confidence, method="wilson")
    return Interval(float(bounds.low), hits / cases, float(bounds.high))
