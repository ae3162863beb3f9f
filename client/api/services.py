"""What the routers work with, put together once in `client.composition`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from client.access.site_access import SiteAccess
from client.answers.log import AnswerLog
from client.audit_writer import AuditWriter
from client.cases.store import CaseStore
from client.dicom.intake import DicomIntake, TakenIn
from client.dicom.picture import looks_like_dicom
from client.explanation.service import Explanations
from client.inference.engine import ModelHolder
from client.inference.prediction import Admission, Predictor
from client.monitoring.monitor import Monitor
from client.releases.putting_together import ReleaseParts
from client.releases.watcher import Alarm, ReleaseWatcher
from client.review.room import ReviewRoom
from client.settings import SiteSettings
from client.status.reader import StatusReader
from common.recipe import Recipe, load_recipe, shipped_recipes

if TYPE_CHECKING:
    from client.api.metrics import ServiceMetrics


@dataclass(frozen=True)
class Services:
    """One site's parts."""

    settings: SiteSettings
    store: CaseStore
    holder: ModelHolder
    predictor: Predictor
    watcher: ReleaseWatcher
    releases: ReleaseParts
    admission: Admission
    metrics: ServiceMetrics
    audit: AuditWriter
    answers: AnswerLog
    review: ReviewRoom
    dicom: DicomIntake
    explanations: Explanations
    access: SiteAccess
    status: StatusReader
    monitor: Monitor
    alarm_sources: tuple[Callable[[], tuple[Alarm, ...]], ...]

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what hospital IT should look at, oldest first."""
        found = (alarm for source in self.alarm_sources for alarm in source())
        return tuple(sorted(found, key=lambda alarm: alarm.since))

    async def take_in(self, image: bytes) -> TakenIn:
        """Turn a DICOM upload into a picture, in a thread of its own; hand any other on.

        Raises
        ------
        ImageRefused, Busy, ProcessError
            As `DicomIntake.take`.
        """
        if not looks_like_dicom(image):
            return TakenIn(image)
        return await asyncio.to_thread(self.dicom.take, image)

    def recipe(self) -> Recipe:
        """Return the served model's recipe; the shipped one of the site's task without a model.

        Raises
        ------
        ReleaseError
            With code ``no-model``, if none is loaded and the task is no shipped recipe.
        """
        task = self.settings.task
        engine = self.holder.current
        if engine is not None:
            return engine.recipe  # also of one that is too stale to answer: cases are stored
        return load_recipe(task) if task in shipped_recipes() else self.holder.require().recipe


async def _services(request: Request) -> Services:  # async: FastAPI gives others a thread
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


ServicesDependency = Annotated[Services, Depends(_services)]
