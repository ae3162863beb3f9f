"""Writing down what the inference service does, without holding it up.

Entries wait in memory for the one thread that writes, which takes all of them at once: under load,
many predictions share one transaction. An answer, or a case that is opened, waits for its entry,
but not for long, and not for a log that cannot be written: a clinician must not lose an answer
because a disk is full. What could not be written is counted, raises an alarm, and, when the log
works again, stands in it as a gap with its numbers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from types import MappingProxyType

from client.releases.alarms import Alarm
from client.releases.decisions import ReleaseDecision
from common.audit import AuditLog
from common.audit_entries import (
    CasePart,
    CaseViewed,
    PredictionMade,
    ReleaseDecided,
    ReleaseInstalled,
    SiteEntry,
    Unaudited,
)
from common.audit_lines import AuditLine
from common.errors import StoreError
from common.release import ReleaseManifest

log = logging.getLogger(__name__)

AT_ONCE = 512
MAXIMUM_WAITING = 10_000
ANSWER_WAITS_SECONDS = 1.0
LATE_ANSWER_WAITS_SECONDS = 0.05
"""While the answer before waited in vain: a database that is locked must not slow every answer."""
TOGETHER_SECONDS = 0.02
"""Least time from one transaction to the next: what comes meanwhile shares one. An entry that comes
after a pause is written at once."""
RETRY_SECONDS = 5.0
ANCHOR_SECONDS = 1.0
"""How far the anchor may lag behind: it costs more than the lines themselves."""
STOP_SECONDS = 5.0
COUNTED: Mapping[str, str] = MappingProxyType({"prediction": "predictions", "case-viewed": "views"})
"""Kinds of which those that cannot be written are counted, not kept: too many may come."""


class AuditWriter:
    """Appends to one site's audit log in a thread of its own.

    Parameters
    ----------
    audit : AuditLog
        The site's.
    retry_seconds : float
        How often a log that could not be written is tried again while nobody asks anything.

    """

    def __init__(self, audit: AuditLog, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self._audit = audit
        self._retry_seconds = retry_seconds
        self._changed = threading.Condition()
        self._waiting: list[tuple[SiteEntry, Future[bool]]] = []
        self._releases: list[SiteEntry] = []
        self._gap: Counter[str] = Counter()
        self._closing = False
        self._is_late = False
        self._alarm: Alarm | None = None
        self._newest: AuditLine | None = None
        self._anchored_at = 0.0
        self._wrote_at = 0.0
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._lost: Counter[str] = Counter()

    @property
    def unaudited(self) -> int:
        """Predictions that could not be written down."""
        return self._lost["predictions"]

    @property
    def unaudited_views(self) -> int:
        """Views of cases that could not be written down."""
        return self._lost["views"]

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    async def prediction(
        self,
        manifest: ReleaseManifest,
        request_id: str,
        *,
        head_digest: str | None = None,
        profile_digest: str | None = None,
        by: str | None = None,
    ) -> None:
        """Write down one answer; returns when that is done, has failed, or takes too long.

        Parameters
        ----------
        manifest : ReleaseManifest
            Of the model that answered.
        request_id : str
            As the answer names it.
        head_digest : str, optional
            Of the site's own head, where that answered.
        profile_digest : str, optional
            Of the site's profile that the answer was read with.
        by : str, optional
            The account or the key that asked.
        """
        entry = PredictionMade(
            request_id=request_id,
            version=manifest.version,
            model_digest=manifest.model_digest,
            head_digest=head_digest,
            profile_digest=profile_digest,
            by=by,
        )
        await self._written(entry)

    async def viewed(self, case_id: str, part: CasePart, *, by: str) -> None:
        """Write down that a stored case is about to be shown; returns as `prediction` does."""
        await self._written(CaseViewed(case=case_id, part=part, by=by))

    async def _written(self, entry: SiteEntry) -> None:
        # Not wait_for, which would cancel an entry that is late: it is to be written all the same.
        written = asyncio.wrap_future(self._submit(entry))
        seconds = LATE_ANSWER_WAITS_SECONDS if self._is_late else ANSWER_WAITS_SECONDS
        done, _ = await asyncio.wait({written}, timeout=seconds)
        self._is_late = not done

    def release(self, manifest: ReleaseManifest) -> None:
        """Write down that a release answers from now on, unless the log says so already."""
        entry = ReleaseInstalled(version=manifest.version, model_digest=manifest.model_digest)
        try:
            newest = self._audit.newest("release-installed")
            known = newest.entry() if newest is not None else None
        except StoreError:
            known = None
        if known != entry:
            self._submit(entry)

    def decision(self, decision: ReleaseDecision) -> None:
        """Write down what was decided about a release; later, where the log cannot be written."""
        self._submit(_entry(decision))

    def catch_up(self, decisions: Sequence[ReleaseDecision]) -> None:
        """Write down decisions of which a crash, or a database that was away, left no line."""
        try:
            lines = self._audit.lines(kinds=["release-decided"])
            known = Counter(line.entry() for line in lines)
        except StoreError as error:
            log.error("event=audit-trouble code=%s", error.code)
            return
        for decision in decisions:
            entry = _entry(decision)
            if known[entry]:
                known[entry] -= 1
            else:
                self._submit(entry)

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what is wrong with the log now."""
        alarm = self._alarm
        return () if alarm is None else (alarm,)

    def _submit(self, entry: SiteEntry) -> Future[bool]:
        done: Future[bool] = Future()
        with self._changed:
            if len(self._waiting) >= MAXIMUM_WAITING or self._closing:
                self._lose([entry])
                done.set_result(False)
                return done
            self._waiting.append((entry, done))
            self._changed.notify()
        return done

    def _run(self) -> None:
        while True:
            self._gather()
            with self._changed:
                self._changed.wait_for(
                    lambda: self._waiting or self._closing, timeout=self._pause()
                )
                batch, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
                last = self._closing and not self._waiting
            self._write(batch)
            if last or time.monotonic() - self._anchored_at >= ANCHOR_SECONDS:
                self._move_anchor()
            if last:
                return

    def _gather(self) -> None:
        left = self._wrote_at + TOGETHER_SECONDS - time.monotonic()
        if left > 0 and not self._closing:
            time.sleep(left)

    def _pause(self) -> float | None:
        """Return how long to wait for entries, in seconds; None for ever."""
        if self._newest is not None:
            return ANCHOR_SECONDS
        return self._retry_seconds if self._gap or self._releases else None

    def _move_anchor(self) -> None:
        newest, self._newest = self._newest, None
        self._anchored_at = time.monotonic()
        if newest is None:
            return
        try:
            self._audit.remember(newest)
        except Exception as error:  # as below; the next line moves it
            self._raise_alarm(error)

    def _write(self, batch: list[tuple[SiteEntry, Future[bool]]]) -> None:
        entries = [entry for entry, _ in batch]
        gap, releases = self._gap.copy(), self._releases
        gaps = [Unaudited(predictions=gap["predictions"], views=gap["views"])] if gap else []
        try:
            lines = self._audit.append(*gaps, *releases, *entries, remember=False)
        except Exception as error:  # the thread must outlive any one failure
            with self._changed:
                self._lose(entries)
            self._raise_alarm(error)
            written = False
        else:
            with self._changed:
                self._gap -= gap
                self._releases = self._releases[len(releases) :]
            self._newest = lines[-1] if lines else self._newest
            self._wrote_at = time.monotonic() if lines else self._wrote_at
            self._alarm = None if lines else self._alarm
            written = True
        for _, done in batch:
            done.set_result(written)

    def _lose(self, entries: list[SiteEntry]) -> None:
        """Count predictions and views; keep the few others until the log works again."""
        lost = Counter(COUNTED[entry.kind] for entry in entries if entry.kind in COUNTED)
        self._gap += lost
        self._lost += lost
        others = [entry for entry in entries if entry.kind not in COUNTED]
        self._releases = [*self._releases, *others][-100:]

    def _raise_alarm(self, error: Exception) -> None:
        known = isinstance(error, StoreError)
        code = error.code if isinstance(error, StoreError) else "audit-unavailable"
        said = str(error) if known else f"Unexpected trouble ({type(error).__name__})."
        since = self._alarm.since if self._alarm is not None else datetime.now(UTC)
        message = f"The audit log cannot be kept; answers and cases are shown all the same. {said}"
        self._alarm = Alarm(code, message, since)
        log.error("event=audit-trouble code=%s total=%d", code, self._lost.total())


def _entry(decision: ReleaseDecision) -> ReleaseDecided:
    return ReleaseDecided(**decision.model_dump(exclude={"at", "figures"}))
