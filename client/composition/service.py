"""All parts of the service, with what starts and what stops them, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from client.access.site_access import make_access
from client.api.metrics import StateCollector
from client.api.services import Services
from client.cases.store import CaseStore
from client.certificates import certificate_alarms
from client.composition.basis import Basis, make_basis
from client.composition.models import Models, make_models
from client.dicom.modalities import make_intake
from client.explanation.service import Explanations
from client.explanation.similar import SimilarCases
from client.inference.prediction import Predictor
from client.monitoring.metrics import MonitoringCollector
from client.monitoring.monitor import Monitor
from client.releases.watcher import Releases
from client.review.room import ReviewRoom
from client.settings import SiteSettings
from client.site_recipes import own_recipe
from client.status.reader import StatusReader
from client.storage import StorageWatch

Step = Callable[[], None]


@dataclass(frozen=True)
class SiteService:
    """One site's service.

    Attributes
    ----------
    services : Services
        What the routers work with.
    starts, stops : tuple of callable
        Each in the order in which they are called.
    """

    services: Services
    starts: tuple[Step, ...]
    stops: tuple[Step, ...]


def put_together(
    settings: SiteSettings, *, releases: Releases | None, store: CaseStore | None
) -> SiteService:
    """Put the parts together; nothing runs yet. See `client.main.make_app`."""
    basis = make_basis(settings, store)
    models = make_models(basis, releases)
    storage = StorageWatch(settings)
    services = _make_services(basis, models, storage)
    _show_metrics(basis, services)
    return SiteService(
        services,
        _starts(services, storage),
        _stops(services, basis, models, storage),
    )


def _make_services(basis: Basis, models: Models, storage: StorageWatch) -> Services:
    settings, store, holder, asking = basis.settings, basis.store, basis.holder, basis.asking
    watcher = models.releases.watcher
    access = make_access(settings, basis.database)
    dicom = make_intake(settings, own_recipe(settings, settings.task))
    similar = SimilarCases(holder, store, settings.task, maximum=settings.explanation.similar_cases)
    monitor = _make_monitor(basis)
    return Services(
        settings=settings,
        store=store,
        holder=holder,
        predictor=Predictor(
            *(holder, asking.batcher, asking.workers, basis.audit, basis.answers),
            settings.reading,
            kept_answers=settings.inference.kept_answers,
        ),
        watcher=watcher,
        releases=models.releases,
        admission=asking.admission,
        metrics=asking.metrics,
        audit=basis.audit,
        answers=basis.answers,
        review=ReviewRoom(settings, store, basis.answers),
        dicom=dicom,
        explanations=Explanations(settings.explanation, similar),
        access=access,
        monitor=monitor,
        status=StatusReader(
            *(settings, store, holder, watcher, basis.database), waiting=asking.waiting
        ),
        alarm_sources=(
            *(models.releases.alarms, storage.alarms, basis.audit.alarms, basis.answers.alarms),
            *(models.quickener.alarms, monitor.alarms, partial(certificate_alarms, settings)),
            access.endings.alarms,
        ),
    )


def _make_monitor(basis: Basis) -> Monitor:
    return Monitor(
        basis.settings.monitoring,
        holder=basis.holder,
        answers=basis.answers,
        database=basis.database,
        policy=basis.settings.policy,
    )


def _show_metrics(basis: Basis, services: Services) -> None:
    registry = basis.asking.metrics.registry
    registry.register(MonitoringCollector(services.monitor))
    registry.register(
        StateCollector(
            *(basis.holder, services.watcher, basis.audit, basis.settings),
            waiting=basis.asking.waiting,
            alarms=services.alarms,
        )
    )


def _starts(services: Services, storage: StorageWatch) -> tuple[Step, ...]:
    audit, desk = services.audit, services.watcher.desk
    return (
        storage.start,
        audit.start,
        lambda: audit.catch_up(desk.state.decisions),
        services.answers.start,
        services.access.start,
        services.releases.start,
        services.explanations.start,
        services.monitor.start,
    )


def _stops(
    services: Services, basis: Basis, models: Models, storage: StorageWatch
) -> tuple[Step, ...]:
    return (
        *(services.monitor.stop, storage.stop, models.releases.stop, models.quickener.close),
        *(services.explanations.close, basis.asking.batcher.close, basis.asking.workers.shutdown),
        *(basis.audit.close, basis.answers.close, services.access.close, basis.database.dispose),
        *(basis.store.close, services.dicom.close),
    )
