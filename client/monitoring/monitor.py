"""Watching the answers in a thread of its own, at low priority; no request waits for it.

Drift is not looked for at every refresh, for each look may raise a false alarm: only when a quarter
of the window is new, or a day has passed since the last look, or the reference is another.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from sqlalchemy import Engine

from client.answers.log import AnswerLog
from client.inference.engine import InferenceEngine, ModelHolder
from client.monitoring.alarms import AlarmBook
from client.monitoring.drift import Model, drift
from client.monitoring.fairness import Fairness, fairness
from client.monitoring.outcomes import Outcome, confirmed_outcomes
from client.monitoring.performance import (
    Months,
    Performance,
    by_month,
    performance,
)
from client.monitoring.promise import promise_of
from client.monitoring.reference import DriftReference
from client.monitoring.settings import MonitoringSettings
from client.monitoring.snapshot import DriftLook, Snapshot
from client.policy import SitePolicy
from client.releases.watcher import Alarm
from common.errors import WardroundError

log = logging.getLogger(__name__)

FIRST_SECONDS = 20.0
STOP_SECONDS = 5.0
NICENESS = 10
LOOK_AFTER = timedelta(days=1)

_Asked: TypeAlias = tuple[tuple[Outcome, ...], int, int]


class Monitor:
    """Makes a `Snapshot` every few minutes.

    Parameters
    ----------
    settings : MonitoringSettings
        The site's.
    holder : ModelHolder
        Whose model is watched.
    answers : AnswerLog
        What it answered.
    database : Engine
        The site's, with the confirmed cases.
    policy : Path
        The policy file; its ``minimum_cell`` is the smallest cell that is told.

    Attributes
    ----------
    failures : int
        Refreshes that went wrong.
    """

    def __init__(
        self,
        settings: MonitoringSettings,
        *,
        holder: ModelHolder,
        answers: AnswerLog,
        database: Engine,
        policy: Path,
    ) -> None:
        self._settings = settings
        self._holder = holder
        self._answers = answers
        self._database = database
        self._policy = policy
        self._book = AlarmBook()
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._snapshot: Snapshot | None = None
        self._looked_with: DriftReference | None = None
        self._months: Months = {}
        self._confirmed_last: tuple[_Asked, Performance, Fairness] | None = None
        self.failures = 0

    @property
    def snapshot(self) -> Snapshot | None:
        """What was found last; None before the first refresh."""
        return self._snapshot

    @property
    def answers_lost(self) -> int:
        """Answers that could not be kept, and are in no figure."""
        return self._answers.lost

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what stands, oldest first."""
        return self._book.alarms()

    def start(self) -> None:
        """Refresh now and then, in a thread of its own."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="monitoring", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a refresh under way may take a moment more, in the background."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def refresh(self) -> None:
        """Make a snapshot now; any thread may. It never raises: trouble is an alarm."""
        with self._turn:
            begun = time.thread_time()
            try:
                found = self._look(datetime.now(UTC), begun)
            except Exception as error:  # the thread must outlive any one failure
                self.failures += 1
                code = error.code if isinstance(error, WardroundError) else type(error).__name__
                self._book.failed(code)
                log.error("event=monitoring-failed code=%s", code)
            else:
                self._snapshot = found
                self._book.found(found)

    def _run(self) -> None:
        _lower_priority()
        wait = min(FIRST_SECONDS, self._settings.refresh_minutes * 60)
        while not self._stopping.wait(wait):
            self.refresh()
            wait = self._settings.refresh_minutes * 60

    def _look(self, now: datetime, begun: float) -> Snapshot:
        engine = self._holder.current
        if engine is None:
            return Snapshot(refreshed_at=now)
        minimum = self._minimum_cell()
        recent, months, groups = self._confirmed(engine, now, minimum)
        look = self._drift(engine, now)
        return Snapshot(
            refreshed_at=now,
            seconds=time.thread_time() - begun,
            version=engine.version,
            minimum_cell=minimum,
            drift=look,
            recent=recent,
            promise=promise_of(engine),
            months=months,
            fairness=groups,
        )

    def _minimum_cell(self) -> int | None:
        try:
            return SitePolicy.read(self._policy).minimum_cell
        except WardroundError as error:
            log.warning("event=monitoring-without-policy code=%s", error.code)
            return None

    def _confirmed(
        self, engine: InferenceEngine, now: datetime, minimum: int | None
    ) -> tuple[Performance | None, tuple[Performance, ...], Fairness]:
        if minimum is None:
            return None, (), Fairness()
        recipe = engine.recipe
        outcomes = confirmed_outcomes(
            *(self._database, recipe.name, recipe.classes, recipe.decision.positive_classes),
            since=now - timedelta(days=self._settings.performance_days),
        )
        mine = (engine.digest, engine.head_digest)
        of_this = [one for one in outcomes if (one.model_digest, one.head_digest) == mine]
        asked = (tuple(of_this), minimum, engine.version)
        if self._confirmed_last is None or self._confirmed_last[0] != asked:
            recent = performance(of_this, version=engine.version, month=None, minimum=minimum)
            self._confirmed_last = (asked, recent, fairness(of_this, minimum=minimum))
        _, recent, groups = self._confirmed_last
        self._months = by_month(outcomes, minimum=minimum, known=self._months)
        return recent, tuple(month.found for month in self._months.values()), groups

    def _drift(self, engine: InferenceEngine, now: datetime) -> DriftLook:
        profile = engine.profile
        reference = None if profile is None else profile.drift
        if reference is None:
            self._looked_with = None
            return DriftLook((), None, None, now)
        answers = self._answers.answers(
            engine.recipe.name,
            since=now - timedelta(days=self._settings.days),
            limit=self._settings.window,
        )
        last = self._snapshot.drift if self._snapshot is not None else None
        if last is not None and self._looked_with is reference and last.newest is not None:
            fresh = sum(answer.answered_at > last.newest for answer in answers)
            if fresh < self._settings.window // 4 and now - last.looked_at < LOOK_AFTER:
                return last
        model = Model(engine.digest, engine.head_digest, engine.recipe.classes)
        kinds = drift(reference, answers, model, fewest=self._settings.fewest)
        self._looked_with = reference
        newest = answers[-1].answered_at if answers else None
        return DriftLook(kinds, len(reference.rows), newest, now)


def _lower_priority() -> None:
    """Let requests go first; Linux gives each thread a niceness of its own."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    except (OSError, AttributeError):
        log.debug("event=monitoring-priority-unchanged")
