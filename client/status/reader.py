"""Putting the status together. Each part may fail by itself: the others are told all the same."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from sqlalchemy import Engine, func, select

from client.audit import site_audit
from client.backup.making import last_backup
from client.cases.store import CaseStore
from client.cases.tables import PlanRow
from client.certificates import WARN_DAYS, CertificateEnd, certificate_ends
from client.dicom.outbox import SUFFIX
from client.inference.engine import ModelHolder
from client.pause import current_pause
from client.policy import SitePolicy
from client.privacy.ledger import PrivacyLedger
from client.releases.watcher import Alarm, ReleaseWatcher
from client.settings import SiteSettings
from client.status.advice import advice
from client.status.documents import (
    AlarmState,
    Backup,
    CertificateState,
    Connection,
    LeftLine,
    Level,
    Model,
    Privacy,
    Queues,
    StatusDocument,
    Training,
    Trouble,
    WhatLeft,
)
from client.status.machine import disk_of, machine, versions
from client.status.scoring import ScoringReader
from common.audit_entries import Left
from common.errors import StoreError, WardroundError

log = logging.getLogger(__name__)

T = TypeVar("T")

KEPT_SECONDS = 2.0
"""For so long an answer serves whoever asks: several pages may be open at once."""
NEWEST_LEFT = 10
DATABASE_AWAY = "database-away"
NOT_ASKED = "The database is away."
BACKUP_DAYS = 8
WARN_SHARE = 0.2
"""Below this share of its life's epsilon a site is warned: a campaign may not fit any more."""


@dataclass
class StatusReader:
    """Reads one site's status.

    Parameters
    ----------
    settings, store, holder, watcher
        The service's own.
    engine : Engine
        The site's database.
    waiting : callable
        How many images wait for the model.
    """

    settings: SiteSettings
    store: CaseStore
    holder: ModelHolder
    watcher: ReleaseWatcher
    engine: Engine
    waiting: Callable[[], int]
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _kept: tuple[float, StatusDocument] | None = None
    _scoring: ScoringReader = field(init=False)

    def __post_init__(self) -> None:
        self._scoring = ScoringReader(self.settings, self.store)

    def read(self, alarms: tuple[Alarm, ...], *, fresh: bool = False) -> StatusDocument:
        """Return the status; blocks for the database, so call it in a thread.

        Parameters
        ----------
        alarms : tuple of Alarm
            What is wrong, oldest first.
        fresh : bool
            Read it anew, as after a change.
        """
        with self._turn:
            if not fresh and self._kept and time.monotonic() - self._kept[0] < KEPT_SECONDS:
                return self._kept[1]
            document = self._read(alarms)
            self._kept = (time.monotonic(), document)
            return document

    def _read(self, alarms: tuple[Alarm, ...]) -> StatusDocument:
        troubles: list[Trouble] = []
        away = next((alarm for alarm in alarms if alarm.code == DATABASE_AWAY), None)

        def ask(part: str, read: Callable[[], T]) -> T | None:
            # Known to be away, it is not asked again: each part would wait for it in turn.
            if away is not None:
                troubles.append(Trouble(part=part, code=away.code, message=NOT_ASKED))
                return None
            return self._try(part, read, troubles)

        served = self.holder.current
        # Whatever is wrong with one part, the page must come: it says what is wrong.
        last_plan = ask("plans", self._last_plan)
        return StatusDocument(
            site=self.settings.name,
            task=self.settings.task,
            now=datetime.now(UTC),
            started_at=self.started_at,
            connection=self._connection(last_plan),
            certificates=tuple(_certificate(end) for end in certificate_ends(self.settings)),
            machine=machine(None if served is None else served.runtime),
            model=self._model(),
            alarms=tuple(_alarm(alarm) for alarm in alarms),
            versions=versions(),
            disk=self._try("disk", lambda: disk_of(self.settings.data), troubles),
            training=self._try("training", self._training, troubles),
            left=ask("left", self._left),
            privacy=ask("privacy", self._privacy),
            scoring=ask("scoring", self._scoring.read),
            backup=self._try("backup", self._backup, troubles),
            queues=ask("queues", self._queues),
            troubles=tuple(troubles),
        )

    def _try(self, part: str, read: Callable[[], T], troubles: list[Trouble]) -> T | None:
        try:
            return read()
        except WardroundError as error:
            troubles.append(Trouble(part=part, code=error.code, message=error.line()))
        except Exception as error:  # its text may quote a row
            message = f"It cannot be read ({type(error).__name__})."
            troubles.append(Trouble(part=part, code="unreadable", message=message))
            log.warning("event=status-part-failed part=%s type=%s", part, type(error).__name__)
        return None

    def _connection(self, last_plan: datetime | None) -> Connection:
        status = self.watcher.releases.status
        level: Level = "good"
        if status.failing_since is not None:
            level = "bad"
        elif status.verified_at is None:
            level = "warn"
        return Connection(
            level=level,
            coordinator=self.settings.coordinator_url,
            superlink=self.settings.superlink,
            verified_at=status.verified_at,
            failing_since=status.failing_since,
            code=status.code,
            message=status.message,
            last_plan_at=last_plan,
        )

    def _last_plan(self) -> datetime | None:
        with self.engine.connect() as connection:
            return connection.scalar(select(func.max(PlanRow.accepted_at)))

    def _model(self) -> Model | None:
        served = self.holder.current
        if served is None:
            return None
        return Model(
            version=served.version,
            digest=served.digest,
            personalised=served.head_digest is not None,
            campaign=served.manifest.lineage.campaign,
            created_at=served.manifest.created_at,
        )

    def _training(self) -> Training:
        switch = current_pause(self.settings)
        text = self.settings.policy.read_text("utf-8")
        by_policy = SitePolicy.parse(text, origin="policy.toml").paused
        if switch is None:
            return Training(paused=by_policy, by_policy=by_policy)
        return Training(
            paused=True,
            by_policy=by_policy,
            since=switch.since,
            by=switch.by,
            reason=switch.reason,
        )

    def _left(self) -> WhatLeft:
        newest: list[LeftLine] = []
        counts = dict.fromkeys(("update", "evaluation", "refusal"), 0)
        replies = size = 0
        for line in site_audit(self.settings, self.engine).lines(kinds=("left",)):
            entry = line.entry()
            if not isinstance(entry, Left):
                continue
            replies, size = replies + 1, size + entry.bytes
            for content in counts.keys() & set(entry.contents):
                counts[content] += 1
            at = datetime.fromisoformat(line.written_at)
            newest = [*newest, _left_line(line.sequence, at, entry)][-NEWEST_LEFT:]
        return WhatLeft(
            replies=replies,
            updates=counts["update"],
            evaluations=counts["evaluation"],
            refusals=counts["refusal"],
            bytes=size,
            newest=tuple(reversed(newest)),
        )

    def _privacy(self) -> Privacy:
        policy = SitePolicy.read(self.settings.policy)
        ledger = PrivacyLedger(self.engine, anchor=self.settings.data / "ledger-head.json")
        ledger.verify_chain()
        spent = ledger.spent(policy.delta)
        left = max(0.0, policy.epsilon_life - spent.life)
        level: Level = "good" if left > WARN_SHARE * policy.epsilon_life else "warn"
        return Privacy(
            level=level if spent.rounds_without_privacy == 0 else "bad",
            spent=spent.life if math.isfinite(spent.life) else None,
            limit=policy.epsilon_life,
            left=left,
            campaign_limit=policy.epsilon_campaign,
            delta=policy.delta,
            rounds=sum(line.kind == "reserve" for line in ledger.entries()),
            guaranteed=spent.rounds_without_privacy == 0,
        )

    def _backup(self) -> Backup:
        made = last_backup(self.settings)
        if made is None:
            return Backup(level="warn", made_at=None, age_days=None, images=None, missing=None)
        age = (datetime.now(UTC) - made.made_at).total_seconds() / 86_400
        bad = age > BACKUP_DAYS or made.missing > 0
        return Backup(
            level="warn" if bad else "good",
            made_at=made.made_at,
            age_days=round(max(age, 0.0), 2),
            images=made.images,
            missing=made.missing,
        )

    def _queues(self) -> Queues:
        counts = self.store.counts(self.settings.task)
        return Queues(
            inference=self.waiting(),
            cases_waiting=counts.waiting,
            cases_confirmed=counts.confirmed,
            reports=_reports(self.settings),
        )


def _reports(settings: SiteSettings) -> int | None:
    folder = settings.data / "dicom"
    if settings.dicom.stow_url is None:
        return None
    try:
        names = [path.name for path in folder.iterdir()]
        return sum(name.endswith(SUFFIX) and not name.startswith(".") for name in names)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StoreError(f"The reports that wait cannot be counted ({error.strerror}).") from error


def _left_line(sequence: int, at: datetime, entry: Left) -> LeftLine:
    return LeftLine(
        sequence=sequence,
        at=at,
        contents=entry.contents,
        campaign=entry.campaign,
        round=entry.round,
        bytes=entry.bytes,
        epsilon_campaign=entry.epsilon_campaign,
    )


def _certificate(end: CertificateEnd) -> CertificateState:
    if end.ends is None:
        return CertificateState(level="bad", purpose=end.purpose, ends=None, days_left=None)
    days = math.floor((end.ends - datetime.now(UTC)).total_seconds() / 86_400)
    level: Level = "good" if days >= WARN_DAYS else "warn" if days >= 0 else "bad"
    return CertificateState(level=level, purpose=end.purpose, ends=end.ends, days_left=days)


def _alarm(alarm: Alarm) -> AlarmState:
    return AlarmState(
        code=alarm.code, message=alarm.message, since=alarm.since, action=advice(alarm.code)
    )
