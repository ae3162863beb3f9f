"""Metrics for Prometheus (text format 0.0.4), and their route: numbers, no identifiers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.responses import Response

from client.access.caller import Role, requires
from client.api.services import ServicesDependency
from client.audit_writer import AuditWriter
from client.backup.making import last_backup
from client.certificates import certificate_ends
from client.inference.engine import ModelHolder
from client.releases.watcher import Alarm, ReleaseWatcher
from client.settings import SiteSettings

router = APIRouter(dependencies=[requires(Role.it)])

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
BATCHES = (1, 2, 4, 8, 16, 32)


class ServiceMetrics:
    """Counters of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "wardround_site_requests",
            "HTTP requests by route template, method and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "wardround_site_request_seconds",
            "Time from a request's header to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._predictions = Counter(
            "wardround_site_predictions",
            "Answers given, by model version.",
            ("version",),
            registry=self.registry,
        )
        self._batches = Histogram(
            "wardround_site_batch_images",
            "Images that shared one network call.",
            buckets=BATCHES,
            registry=self.registry,
        )

    def request(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def prediction(self, *, version: int) -> None:
        """Count one answer."""
        self._predictions.labels(str(version)).inc()

    def batch(self, images: int) -> None:
        """Count one network call."""
        self._batches.observe(images)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


class StateCollector(Collector):
    """Reads, when asked, which model answers, how long its queue is and what is wrong."""

    def __init__(
        self,
        holder: ModelHolder,
        watcher: ReleaseWatcher,
        audit: AuditWriter,
        settings: SiteSettings,
        *,
        waiting: Callable[[], int],
        alarms: Callable[[], tuple[Alarm, ...]],
    ) -> None:
        self._alarms = alarms
        self._audit = audit
        self._settings = settings
        self._holder = holder
        self._watcher = watcher
        self._waiting = waiting

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families."""
        model = GaugeMetricFamily(
            "wardround_site_model_info",
            "The model that answers now, and what computes it.",
            labels=("task", "version", "digest", "runtime"),
        )
        engine = self._holder.current
        if engine is not None:
            model.add_metric(
                (engine.recipe.name, str(engine.version), engine.digest, engine.runtime), 1
            )
        yield model
        yield GaugeMetricFamily(
            "wardround_site_model_version",
            "Version of the model that answers now, 0 for none.",
            value=0 if engine is None else engine.version,
        )
        yield GaugeMetricFamily(
            "wardround_site_model_calibrated",
            "1 where the model's answers are calibrated to this site's holdout.",
            value=float(engine is not None and engine.profile is not None),
        )
        yield from self._release_metrics()
        yield from self._certificate_metrics()
        yield from self._machine_metrics()
        yield GaugeMetricFamily(
            "wardround_site_images_waiting",
            "Images in the inference queue.",
            value=self._waiting(),
        )
        yield CounterMetricFamily(
            "wardround_site_predictions_unaudited",
            "Answers given that could not be written into the audit log.",
            value=self._audit.unaudited,
        )
        yield CounterMetricFamily(
            "wardround_site_views_unaudited",
            "Views of stored cases that could not be written into the audit log.",
            value=self._audit.unaudited_views,
        )

    def _certificate_metrics(self) -> Iterable[Metric]:
        ends = GaugeMetricFamily(
            "wardround_site_certificate_end_timestamp_seconds",
            "When a certificate ends, seconds since 1970.",
            labels=("purpose",),
        )
        for one in certificate_ends(self._settings):
            if one.ends is not None:
                ends.add_metric((one.purpose,), one.ends.timestamp())
        yield ends

    def _machine_metrics(self) -> Iterable[Metric]:
        try:
            disk = shutil.disk_usage(self._settings.data)
        except OSError:
            disk = None  # its absence is what an alert rule looks for
        if disk is not None:
            yield GaugeMetricFamily(
                "wardround_site_disk_free_bytes", "Room left for the site's data.", value=disk.free
            )
            yield GaugeMetricFamily(
                "wardround_site_disk_bytes", "Size of that file system.", value=disk.total
            )
        backup = last_backup(self._settings)
        if backup is not None:
            yield GaugeMetricFamily(
                "wardround_site_backup_timestamp_seconds",
                "When the site was last backed up, seconds since 1970.",
                value=backup.made_at.timestamp(),
            )

    def _release_metrics(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "wardround_site_model_swaps", "Models put in service.", value=self._watcher.swaps
        )
        yield CounterMetricFamily(
            "wardround_site_model_load_failures",
            "Releases that could not be put in service.",
            value=self._watcher.load_failures,
        )
        alarms = GaugeMetricFamily(
            "wardround_site_release_alarm", "1 for each alarm that stands.", labels=("code",)
        )
        for code in sorted({alarm.code for alarm in self._alarms()}):
            alarms.add_metric((code,), 1)
        yield alarms
        verified = self._watcher.verified_at
        if verified is not None:
            yield GaugeMetricFamily(
                "wardround_site_release_verified_timestamp_seconds",
                "When the coordinator last vouched for the release, seconds since 1970.",
                value=verified.timestamp(),
            )


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
def metrics(services: ServicesDependency) -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(services.metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
