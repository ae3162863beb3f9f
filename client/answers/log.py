"""Keeping the model's answers without holding them up.

An answer waits in memory, at most half a second, for the one thread that writes; whoever reads
sees it there already. kill -9 loses what waited: the audit log, which is written before an answer
is given, still says that it was. While the database cannot be written the newest answers are kept
in memory, a bounded number of them; what is lost on top is counted and raises an alarm.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, delete, select

from client.answers.answered import Answered
from client.answers.rows import as_answer, as_row
from client.answers.tables import AnswerRow
from client.cases.tables import CaseRow
from client.cases.transactions import Transactions
from client.releases.alarms import Alarm
from common.errors import StoreError

log = logging.getLogger(__name__)

MAXIMUM_WAITING = 10_000
FLUSH_SECONDS = 0.5
RETRY_SECONDS = 5.0
PRUNE_SECONDS = 24 * 3600.0
PRUNED_AT_ONCE = 5_000
STOP_SECONDS = 5.0
_WRITE_LOCK = 0x414E5357


class AnswerLog:
    """The answers of one site's model, in the site's database, which is up to date.

    Parameters
    ----------
    engine : Engine
        The site's database.
    keep_days : int
        How long answers are kept; those of stored cases are kept as long as their case.

    Attributes
    ----------
    lost : int
        Answers of this process that could not be written.
    """

    def __init__(self, engine: Engine, *, keep_days: int = 365) -> None:
        self._transactions = Transactions(engine, _WRITE_LOCK)
        self._keep = timedelta(days=keep_days)
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._waiting: list[Answered] = []
        self._closing = False
        self._alarm: Alarm | None = None
        self._thread: threading.Thread | None = None
        self.lost = 0

    def start(self) -> None:
        """Start the thread that writes and, once a day, removes old answers."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        else:
            self.flush()

    def record(self, answer: Answered) -> None:
        """Keep an answer. Returns at once and never raises; it is written within half a second."""
        with self._changed:
            self._waiting.append(answer)
            surplus = len(self._waiting) - MAXIMUM_WAITING
            if surplus > 0:
                del self._waiting[:surplus]
                self.lost += surplus

    def flush(self) -> bool:
        """Write what waits now; tell whether nothing waits any more."""
        with self._writing:
            with self._changed:
                batch = list(self._waiting)
            if not batch:
                return True
            try:
                with self._transactions.writing() as session:
                    session.add_all([as_row(answer) for answer in batch])
            except Exception as error:  # the thread must outlive any one failure
                self._raise_alarm(error)
                return False
            with self._changed:
                # By identity: meanwhile the oldest may have been dropped, and new ones come.
                written = {id(answer) for answer in batch}
                self._waiting = [a for a in self._waiting if id(a) not in written]
            self._alarm = None
            return True

    def answers(
        self,
        task: str,
        *,
        since: datetime,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> tuple[Answered, ...]:
        """Return a task's answers given from ``since`` to before ``until``, oldest first.

        Parameters
        ----------
        task : str
        since, until : datetime
            UTC; without ``until`` up to now.
        limit : int, optional
            Only the newest so many.

        Raises
        ------
        StoreError
            If the database cannot be read.
        """
        waiting = self._unwritten()
        query = select(AnswerRow).where(AnswerRow.task == task, AnswerRow.answered_at >= since)
        if until is not None:
            query = query.where(AnswerRow.answered_at < until)
        query = query.order_by(AnswerRow.answered_at.desc(), AnswerRow.sequence.desc())
        with self._transactions.reading() as session:
            stored = [as_answer(row) for row in session.scalars(query.limit(limit))]
        fresh = [
            a
            for a in waiting
            if a.task == task
            and since <= a.answered_at
            and (until is None or a.answered_at < until)
        ]
        found = _together(stored[::-1], fresh)
        return found if limit is None else found[max(0, len(found) - limit) :]

    def for_pixels(self, digest: str) -> tuple[Answered, ...]:
        """Return what was answered about one image, oldest first. Raises as `answers`."""
        return self.for_many([digest])

    def for_many(self, digests: Sequence[str]) -> tuple[Answered, ...]:
        """Return what was answered about some images (at most a few hundred), oldest first."""
        wanted = frozenset(digests)
        waiting = self._unwritten()
        query = select(AnswerRow).where(AnswerRow.pixels.in_(sorted(wanted)))
        query = query.order_by(AnswerRow.answered_at, AnswerRow.sequence)
        with self._transactions.reading() as session:
            stored = [as_answer(row) for row in session.scalars(query)]
        return _together(stored, [a for a in waiting if a.pixels in wanted])

    def prune(self, *, now: datetime | None = None) -> int:
        """Remove answers older than they are to be kept; return how many.

        Those of cases that the site still holds stay: the outcomes are made of them.

        Raises
        ------
        StoreError
            If the database cannot be written.
        """
        before = (now or datetime.now(UTC)) - self._keep
        held = select(CaseRow.pixels).where(CaseRow.status != "withdrawn")
        old = (
            select(AnswerRow.sequence)
            .where(AnswerRow.answered_at < before, AnswerRow.pixels.not_in(held))
            .order_by(AnswerRow.sequence)
            .limit(PRUNED_AT_ONCE)
        )
        removed = 0
        while True:
            with self._transactions.writing() as session:
                some = list(session.scalars(old))
                if some:
                    session.execute(delete(AnswerRow).where(AnswerRow.sequence.in_(old)))
            removed += len(some)
            if len(some) < PRUNED_AT_ONCE:
                return removed

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what is wrong with the log now."""
        alarm = self._alarm
        return () if alarm is None else (alarm,)

    def _unwritten(self) -> list[Answered]:
        with self._changed:
            return list(self._waiting)

    def _run(self) -> None:
        prune_at = datetime.now(UTC)
        pause = FLUSH_SECONDS
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing, timeout=pause)
                closing = self._closing
            written = self.flush()
            if closing:
                return
            pause = FLUSH_SECONDS if written else RETRY_SECONDS
            if datetime.now(UTC) >= prune_at:
                prune_at = datetime.now(UTC) + timedelta(seconds=PRUNE_SECONDS)
                self._prune_quietly()

    def _prune_quietly(self) -> None:
        try:
            removed = self.prune()
        except Exception as error:  # as in flush; tomorrow is another day
            self._raise_alarm(error)
        else:
            log.info("event=answers-pruned count=%d", removed)

    def _raise_alarm(self, error: Exception) -> None:
        said = str(error) if isinstance(error, StoreError) else f"({type(error).__name__})"
        since = self._alarm.since if self._alarm is not None else datetime.now(UTC)
        message = (
            f"The model's answers cannot be kept for review; they are given all the same. {said}"
        )
        self._alarm = Alarm("answers-unavailable", message, since)
        log.error("event=answers-trouble lost=%d", self.lost)


def _together(stored: list[Answered], waiting: list[Answered]) -> tuple[Answered, ...]:
    """Join both, once each: an answer may have been written between the two looks."""
    known = dict.fromkeys(stored)
    known.update(dict.fromkeys(waiting))
    return tuple(sorted(known, key=lambda answer: answer.answered_at))
