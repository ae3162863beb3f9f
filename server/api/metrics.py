"""Prometheus metrics in a registry of their own; no identifiers but site and task names."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator
from itertools import product
from typing import get_args

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from common.database import open_database
from common.errors import WardroundError
from server.api.health import readiness
from server.api.services import CoordinatorServices
from server.reports.store import report_paths
from server.triggers.records import FiringState
from server.triggers.store import TriggerStore


class CoordinatorMetrics:
    """The requests counted here, and what a scrape finds in the services."""

    def __init__(self, services: CoordinatorServices) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_ServicesCollector(services))
        self._requests = Counter(
            "wardround_coordinator_requests",
            "Requests by route template and status.",
            ("route", "status"),
            registry=self.registry,
        )

    def request(self, route: str, status: int) -> None:
        """Count one request."""
        self._requests.labels(route, str(status)).inc()


def metrics_router(metrics: CoordinatorMetrics) -> APIRouter:
    """Return the ``/metrics`` route."""
    router = APIRouter(tags=["metrics"])

    @router.get("/metrics", summary="Prometheus metrics")
    def show() -> Response:
        return Response(generate_latest(metrics.registry), 200, media_type=CONTENT_TYPE_LATEST)

    return router


class _ServicesCollector(Collector):
    """Reads registry and repository at each scrape, so that no figure can be stale."""

    def __init__(self, services: CoordinatorServices) -> None:
        self._services = services
        self._triggers_of = TriggerStore(open_database(services.settings.database))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield what can be read; a part that fails shows in ``wardround_ready``."""
        for part in (self._ready, self._releases, self._campaigns, self._reports, self._triggers):
            try:
                yield from list(part())
            except WardroundError:
                continue

    def _ready(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "wardround_ready", "1 where a readiness check passes.", labels=["check"]
        )
        for check in readiness(self._services):
            family.add_metric([check.name], float(check.ok))
        yield family

    def _releases(self) -> Iterator[GaugeMetricFamily]:
        publisher = self._services.publisher
        yield GaugeMetricFamily(
            "wardround_release_timestamp_expires_seconds",
            "When the signed timestamp expires, seconds since 1970.",
            value=publisher.timestamp_expires().timestamp(),
        )
        newest = {m.task: m.version for m in publisher.releases()}
        family = GaugeMetricFamily(
            "wardround_release_version", "Newest release of a task.", labels=["task"]
        )
        for task, version in newest.items():
            family.add_metric([task], version)
        yield family

    def _reports(self) -> Iterator[GaugeMetricFamily]:
        settings = self._services.settings
        found = [report_paths(settings, r.version).made for r in self._services.registry.releases()]
        family = GaugeMetricFamily(
            "wardround_release_reports",
            "Releases by whether their report is made.",
            labels=["state"],
        )
        family.add_metric(["made"], sum(found))
        family.add_metric(["missing"], len(found) - sum(found))
        yield family

    def _triggers(self) -> Iterator[GaugeMetricFamily]:
        firings = self._triggers_of.firings()
        counts = Tally((f.task, f.state) for f in firings)
        family = GaugeMetricFamily(
            "wardround_trigger_firings", "Firings of triggers by task and state.",
            labels=["task", "state"],
        )  # fmt: skip
        # A series that begins at 1 has not risen: the first failure would alarm nobody.
        tasks = {f.task for f in firings} | {t.task for t in self._triggers_of.all()}
        for task, state in product(sorted(tasks), get_args(FiringState)):
            family.add_metric([task, state], counts[task, state])
        yield family

    def _campaigns(self) -> Iterator[GaugeMetricFamily]:
        registry = self._services.registry
        campaigns = registry.campaigns(kind="training")
        states = GaugeMetricFamily("wardround_campaigns", "Campaigns by state.", labels=["state"])
        for state, count in Tally(campaign.state for campaign in campaigns).items():
            states.add_metric([state], count)
        yield states
        outcomes: Tally[tuple[str, str]] = Tally()
        for campaign in campaigns:
            if campaign.state == "running":
                outcomes.update((c.site, c.outcome) for c in registry.contributions(campaign.id))
        family = GaugeMetricFamily(
            "wardround_contributions",
            "Requests to sites in the running campaigns, by outcome.",
            labels=["site", "outcome"],
        )
        for (site, outcome), count in outcomes.items():
            family.add_metric([site, outcome], count)
        yield family
