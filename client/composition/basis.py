"""What all parts of the service stand on: its records, the model's place, and the way to it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from sqlalchemy import Engine

from client.answers.log import AnswerLog
from client.api.metrics import ServiceMetrics
from client.audit import site_audit
from client.audit_writer import AuditWriter
from client.cases.store import CaseStore
from client.inference.batching import MicroBatcher
from client.inference.prediction import Admission
from client.releases.staleness import CheckedHolder
from client.settings import SiteSettings
from client.training.device import choose_device, limit_threads
from client.unfinished_withdrawals import finish_withdrawals
from common.database import open_database

WORKERS = 2
UPLOADS_AT_ONCE = 32


@dataclass(frozen=True)
class Asking:
    """What stands between a request and the model.

    Attributes
    ----------
    device : torch.device
        Where networks run.
    admission : Admission
        How many uploads are let in at once.
    batcher : MicroBatcher
    workers : ThreadPoolExecutor
        Prepare images.
    metrics : ServiceMetrics
    """

    device: torch.device
    admission: Admission
    batcher: MicroBatcher
    workers: ThreadPoolExecutor
    metrics: ServiceMetrics

    @property
    def on_cpu(self) -> bool:
        """Whether networks run on the CPU."""
        return self.device.type == "cpu"

    def waiting(self) -> int:
        """Return how many images wait for the model."""
        return self.batcher.waiting


@dataclass(frozen=True)
class Basis:
    """A site's settings and records, the place of the model that answers, and the way to it."""

    settings: SiteSettings
    store: CaseStore
    database: Engine
    audit: AuditWriter
    answers: AnswerLog
    holder: CheckedHolder
    asking: Asking


def make_basis(settings: SiteSettings, store: CaseStore | None) -> Basis:
    """Open a site's records, and make ready for a model; raises as `client.main.make_app`."""
    store = store or CaseStore.open(settings)
    asking = _make_asking(settings)
    database = open_database(settings.database)
    finish_withdrawals(settings, database)  # before a model, or the site's own head, answers
    return Basis(
        settings=settings,
        store=store,
        database=database,
        audit=AuditWriter(site_audit(settings, database)),
        answers=AnswerLog(database, keep_days=settings.review.keep_answers_days),
        holder=CheckedHolder(),
        asking=asking,
    )


def _make_asking(settings: SiteSettings) -> Asking:
    device = choose_device(settings.device).torch
    on_cpu = device.type == "cpu"
    # On the CPU the batcher's lanes use the cores, one each.
    limit_threads(1 if on_cpu else settings.threads)
    metrics = ServiceMetrics()
    limits = settings.inference.limits(on_cpu=on_cpu, threads=settings.threads)
    return Asking(
        device=device,
        admission=Admission(UPLOADS_AT_ONCE),
        batcher=MicroBatcher(limits, on_batch=metrics.batch),
        workers=ThreadPoolExecutor(WORKERS, thread_name_prefix="images"),
        metrics=metrics,
    )
