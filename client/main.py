"""The inference service of one site: ``python -m client.main --folder SITE``.

The parts are put together here, and nowhere else. It binds to loopback unless TLS or
``allow_plain_http`` is set, and to nothing else where ``access`` is ``open``.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

import uvicorn
from fastapi import Depends, FastAPI

from client.access.guard import guard, install_guard
from client.access.site_access import make_access
from client.answers.log import AnswerLog
from client.api import (
    batch,
    budget,
    cases,
    explain,
    health,
    metrics,
    model,
    monitoring,
    pages,
    prediction,
    protocol_v2,
    provider_sign_in,
    review,
    sign_in,
    similar,
    status,
)
from client.api import (
    releases as release_decisions,
)
from client.api.body_limit import BodyLimitMiddleware
from client.api.connections import bounded_protocol, raise_file_limit
from client.api.errors import install_error_handlers
from client.api.middleware import OriginMiddleware, RequestMiddleware, is_loopback
from client.api.openapi_document import SiteApp, operation_id
from client.api.services import Services
from client.audit import site_audit
from client.audit_writer import AuditWriter
from client.cases.store import CaseStore
from client.certificates import certificate_alarms
from client.dicom.modalities import make_intake
from client.explanation.service import Explanations
from client.explanation.similar import SimilarCases
from client.inference.batching import MicroBatcher
from client.inference.graphs import GraphStore
from client.inference.prediction import Admission, Predictor
from client.inference.quickening import Quickener
from client.monitoring.metrics import MonitoringCollector
from client.monitoring.monitor import Monitor
from client.personalisation.head import PersonalHeads
from client.personalisation.serving import load_personalised, outdated
from client.releases.putting_together import make_release_parts
from client.releases.staleness import CheckedHolder
from client.releases.watcher import Releases
from client.review.room import ReviewRoom
from client.settings import SiteSettings
from client.site_recipes import own_recipe
from client.status.reader import StatusReader
from client.storage import StorageWatch
from client.training.device import choose_device, limit_threads
from common import logs
from common.database import open_database
from common.errors import ConfigurationError, WardroundError
from common.logs import LogFormat

log = logging.getLogger(__name__)

Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[None]]

WORKERS = 2
UPLOADS_AT_ONCE = 32
CONNECTIONS_AT_ONCE = 256
SHUTDOWN_SECONDS = 10
EXIT_USAGE = 2


def make_app(
    settings: SiteSettings, *, releases: Releases | None = None, store: CaseStore | None = None
) -> FastAPI:
    """Put the service together.

    Parameters
    ----------
    settings : SiteSettings
        The site's.
    releases : Releases, optional
        Where models come from; the site's release cache by default.
    store : CaseStore, optional
        The site's by default, which is migrated.

    Returns
    -------
    FastAPI
        Its lifespan starts and stops the release watcher and the inference thread.

    Raises
    ------
    ConfigurationError, StoreError
        If the site's folder or database cannot be used.
    """
    store = store or CaseStore.open(settings)
    device = choose_device(settings.device).torch
    on_cpu = device.type == "cpu"
    # On the CPU the batcher's lanes use the cores, one each.
    limit_threads(1 if on_cpu else settings.threads)
    service_metrics = metrics.ServiceMetrics()
    holder = CheckedHolder()
    admission = Admission(UPLOADS_AT_ONCE)
    limits = settings.inference.limits(on_cpu=on_cpu, threads=settings.threads)
    batcher = MicroBatcher(limits, on_batch=service_metrics.batch)
    engine = open_database(settings.database)
    audit = AuditWriter(site_audit(settings, engine))
    answers = AnswerLog(engine, keep_days=settings.review.keep_answers_days)
    workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="images")
    heads = PersonalHeads(settings)
    load = partial(load_personalised, heads=heads, device=device)
    quickener = Quickener(load, GraphStore(settings.graphs))
    parts = make_release_parts(
        *(settings, store, holder),
        releases=releases,
        load=quickener.load if on_cpu and settings.inference.runtime == "auto" else load,
        outdated=partial(outdated, heads=heads),
        busy=lambda: admission.admitted > 0,
        on_served=audit.release,
        on_decision=audit.decision,
    )
    watcher = parts.watcher
    storage = StorageWatch(settings)
    access = make_access(settings, engine)
    dicom = make_intake(settings, own_recipe(settings, settings.task))
    similar_cases = SimilarCases(
        holder, store, settings.task, maximum=settings.explanation.similar_cases
    )
    explanations = Explanations(settings.explanation, similar_cases)
    monitor = Monitor(
        settings.monitoring,
        holder=holder,
        answers=answers,
        database=engine,
        policy=settings.policy,
    )
    services = Services(
        settings=settings,
        store=store,
        holder=holder,
        predictor=Predictor(
            *(holder, batcher, workers, audit, answers, settings.reading),
            kept_answers=settings.inference.kept_answers,
        ),
        watcher=watcher,
        releases=parts,
        admission=admission,
        metrics=service_metrics,
        audit=audit,
        answers=answers,
        review=ReviewRoom(settings, store, answers),
        dicom=dicom,
        explanations=explanations,
        access=access,
        monitor=monitor,
        status=StatusReader(
            settings, store, holder, watcher, engine, waiting=lambda: batcher.waiting
        ),
        alarm_sources=(
            *(
                parts.alarms,
                storage.alarms,
                audit.alarms,
                answers.alarms,
                quickener.alarms,
                monitor.alarms,
            ),
            partial(certificate_alarms, settings),
        ),
    )
    service_metrics.registry.register(MonitoringCollector(monitor))
    service_metrics.registry.register(
        metrics.StateCollector(
            *(holder, watcher, audit, settings),
            waiting=lambda: batcher.waiting,
            alarms=services.alarms,
        )
    )
    stops = (
        monitor.stop,
        *(
            storage.stop,
            parts.stop,
            quickener.close,
            explanations.close,
            batcher.close,
            workers.shutdown,
        ),
        *(audit.close, answers.close, access.close, engine.dispose, store.close, dicom.close),
    )
    starts = (
        storage.start,
        audit.start,
        lambda: audit.catch_up(watcher.desk.state.decisions),
        answers.start,
        parts.start,
        explanations.start,
        monitor.start,
    )
    return _assemble(services, _lifespan(starts, stops))


def _lifespan(
    starts: Sequence[Callable[[], None]], stops: Sequence[Callable[[], None]]
) -> Lifespan:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        for start in starts:
            start()
        try:
            yield
        finally:
            for stop in stops:
                stop()

    return lifespan


def _assemble(services: Services, lifespan: Lifespan) -> FastAPI:
    app = SiteApp(
        title="Wardround site",
        description="Predictions of the released model, and the site's cases.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's documentation pages load scripts from elsewhere
        redoc_url=None,
        dependencies=[Depends(guard)],
        generate_unique_id_function=operation_id,
    )
    app.state.services = services
    install_guard(
        *(app, services.access.door, services.access.limits),
        proxies=services.access.settings.proxies,
    )
    for part in (
        prediction,
        batch,
        budget,
        protocol_v2,
        explain,
        similar,
        cases,
        review,
        model,
        release_decisions,
        health,
        metrics,
        monitoring,
        pages,
        sign_in,
        status,
        provider_sign_in,
    ):
        app.include_router(part.router)
    app.mount("/static", pages.page_files, name="static")
    install_error_handlers(app)
    # The last one added is the outermost.
    host = services.settings.host
    app.add_middleware(BodyLimitMiddleware)
    app.add_middleware(OriginMiddleware, host_names=(host, *services.settings.host_names))
    app.add_middleware(RequestMiddleware, metrics=services.metrics)
    return app


def check_exposure(settings: SiteSettings) -> None:
    """Refuse to serve beyond this machine without TLS, or without being told to.

    Raises
    ------
    ConfigurationError
        With code ``exposed-without-tls`` or ``open-beyond-loopback``, or if only one half of the
        TLS pair is set.
    """
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise ConfigurationError("tls_certificate and tls_key go together; one is missing.")
    if is_loopback(settings.host):
        return
    if settings.access == "open":
        raise ConfigurationError(
            f"The inference service will not bind to {settings.host} with open access.",
            meaning="Whoever reaches the port could read and store cases.",
            action='Set access = "accounts" in site.toml, and make a user or a key.',
            code="open-beyond-loopback",
        )
    if settings.tls_certificate is None and not settings.allow_plain_http:
        raise ConfigurationError(
            f"The inference service will not bind to {settings.host} without TLS.",
            meaning="Patients' images would cross the network in the clear.",
            action="Set tls_certificate and tls_key in site.toml, put a TLS proxy in front of "
            "127.0.0.1, or set allow_plain_http if the network itself is trusted.",
            code="exposed-without-tls",
        )


def serve(settings: SiteSettings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises
    ------
    ConfigurationError, StoreError
        If the service cannot start.
    """
    check_exposure(settings)
    scheme = "https" if settings.tls_certificate else "http"
    app = make_app(settings)
    log.info("event=serving url=%s://%s:%d", scheme, settings.host, settings.port)
    # A full collection over torch's own objects takes half a second, with every request waiting.
    gc.freeze()
    raise_file_limit()
    uvicorn.Server(server_config(settings, app)).run()


def server_config(settings: SiteSettings, app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn serves an app of this site."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=bounded_protocol(),
        ssl_certfile=_text(settings.tls_certificate),
        ssl_keyfile=_text(settings.tls_key),
        log_config=None,
        access_log=False,  # it would write paths and queries; RequestMiddleware logs instead
        proxy_headers=False,
        server_header=False,
        ws="none",
        limit_concurrency=CONNECTIONS_AT_ONCE,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def configure_logging(log_format: LogFormat = "text") -> None:
    """Log to standard error, one line an event; libraries from WARNING on."""
    ours = dict.fromkeys(("client", "common", "uvicorn.error"), logging.INFO)
    logs.configure_logging(log_format, level=logging.WARNING, levels=ours)


def main() -> None:
    """Read the command line and serve. Exit code 2: the settings are wrong; 1: another failure."""
    parser = argparse.ArgumentParser(prog="python -m client.main", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the site's folder")
    arguments = parser.parse_args()
    configure_logging()
    try:
        settings = SiteSettings.read(arguments.folder)
        configure_logging(settings.log_format)
        serve(settings)
    except WardroundError as error:
        log.error("event=not-started code=%s: %s", error.code, error.line())
        sys.exit(EXIT_USAGE if isinstance(error, ConfigurationError) else 1)


if __name__ == "__main__":
    main()
