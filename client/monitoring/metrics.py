"""What monitoring found, as Prometheus metrics: figures of many images or patients, never of one.

A figure that is not known, or is of fewer cases than the policy's smallest cell, is absent.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from client.monitoring.comparison import Interval
from client.monitoring.monitor import Monitor
from client.monitoring.snapshot import Snapshot

_BOUNDS = ("low", "estimate", "high")


class MonitoringCollector(Collector):
    """Reads the monitor's last snapshot at each scrape; it computes nothing.

    Parameters
    ----------
    monitor : Monitor
        The service's.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families."""
        yield CounterMetricFamily(
            "wardround_site_monitoring_failures",
            "Refreshes of the monitoring that went wrong.",
            value=self._monitor.failures,
        )
        yield CounterMetricFamily(
            "wardround_site_answers_lost",
            "Answers given that could not be kept for monitoring and review.",
            value=self._monitor.answers_lost,
        )
        found = self._monitor.snapshot
        if found is None:
            return
        yield GaugeMetricFamily(
            "wardround_site_monitoring_refreshed_timestamp_seconds",
            "When the monitoring last looked, seconds since 1970.",
            value=found.refreshed_at.timestamp(),
        )
        yield GaugeMetricFamily(
            "wardround_site_monitoring_cpu_seconds",
            "Processor time of the last look.",
            value=found.seconds,
        )
        yield from _drift(found)
        yield from _performance(found)
        yield from _fairness(found)


def _drift(found: Snapshot) -> Iterable[Metric]:
    level = GaugeMetricFamily(
        "wardround_site_drift",
        "Drift from the release's holdout: 0 none, 1 some, 2 much.",
        labels=("kind",),
    )
    images = GaugeMetricFamily(
        "wardround_site_drift_images", "Images that were compared.", labels=("kind",)
    )
    index = GaugeMetricFamily(
        "wardround_site_drift_psi",
        "Population stability index of a figure, with its 95 % interval.",
        labels=("kind", "figure", "bound"),
    )
    kernel = GaugeMetricFamily(
        "wardround_site_drift_mmd",
        "Squared maximum mean discrepancy of the embeddings, with its 95 % interval.",
        labels=("bound",),
    )
    look = found.drift
    for kind in () if look is None else look.kinds:
        images.add_metric((kind.kind,), kind.cases)
        if kind.level is not None:
            level.add_metric((kind.kind,), kind.level)
        for figure in kind.figures:
            _add(index, (kind.kind, figure.name), figure.stability)
        if kind.discrepancy is not None:
            _add(kernel, (), kind.discrepancy.squared)
    yield from (level, images, index, kernel)
    if look is not None and look.reference_patients is not None:
        yield GaugeMetricFamily(
            "wardround_site_drift_reference_patients",
            "Holdout patients that the reference is of.",
            value=look.reference_patients,
        )


def _performance(found: Snapshot) -> Iterable[Metric]:
    family = GaugeMetricFamily(
        "wardround_site_performance",
        "A figure over confirmed cases of the model that answers, with its 99 % interval.",
        labels=("figure", "bound"),
    )
    promised = GaugeMetricFamily(
        "wardround_site_performance_promised",
        "What the model is held to.",
        labels=("figure",),
    )
    for figure in () if found.recent is None else found.recent.figures:
        if figure.interval is not None:
            _add(family, (figure.name,), figure.interval)
        promise = found.promise.of(figure.name)
        if promise is not None:
            promised.add_metric((figure.name,), promise)
    yield from (family, promised)


def _fairness(found: Snapshot) -> Iterable[Metric]:
    gap = GaugeMetricFamily(
        "wardround_site_fairness_gap",
        "Distance between the groups with the highest and the lowest rate, with its 99 % interval.",
        labels=("axis", "rate", "bound"),
    )
    for one in found.fairness.gaps:
        _add(gap, (one.axis, one.rate), one.distance)
    yield gap


def _add(family: GaugeMetricFamily, labels: tuple[str, ...], interval: Interval) -> None:
    values = (interval.low, interval.estimate, interval.high)
    for bound, value in zip(_BOUNDS, values, strict=True):
        family.add_metric((*labels, bound), value)
