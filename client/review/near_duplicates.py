"""Which stored images look like a new one, by the perceptual hashes that the cases hold.

The hashes are kept in memory, 32 bytes a case, and each row is read once. Comparing takes no lock
of the database, so that a batch is compared before its transaction, and in it only with what came
meanwhile. Beside 60,000 cases a batch of 256 costs 45 ms of one core before its transaction and
9 ms in it, a single image 3 ms, and the first look, which reads all of them, 0.3 s (SQLite).
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from client.cases.accepted_image import likeness_words
from client.cases.tables import CaseRow

_WORDS = 4
_MOST = 400
_QUERY_SIZE = 400  # SQLite takes at most 999 parameters where it is old

Image: TypeAlias = tuple[str, str]
"""A task, and the perceptual hash of an image (64 hex digits)."""


@dataclass(frozen=True)
class NearDuplicate:
    """A stored case that looks like another. ``distance``: differing bits of 256."""

    case_id: str
    patient: str
    distance: int


@dataclass(frozen=True)
class Beside:
    """An image beside the first ``compared`` cases of its task.

    ``near`` are the places and distances of those that look like it, nearest first, 400 at most.
    """

    compared: int
    near: tuple[tuple[int, int], ...]


Compared: TypeAlias = Mapping[Image, Beside]


@dataclass
class _Known:
    """The cases of a task that were read, in that order; only ever added to.

    ``columns`` are the hashes' words, shape (4, n). ``since`` is the newest moment among the rows
    that were read last.
    """

    ids: list[str] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    columns: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((_WORDS, 0), np.uint64))
    seen: set[str] = field(default_factory=set)
    since: datetime | None = None

    def take(self, session: Session, query: Select[str, str, str, datetime]) -> None:
        """Add the rows of a query that are not here yet."""
        rows = [row for row in session.execute(query) if row[0] not in self.seen]
        if rows:
            words = likeness_words([row[2] for row in rows])
            columns = np.concatenate([self.columns, words.T], axis=1)
            self.seen.update(row[0] for row in rows)
            self.since = max(row[3] for row in rows)
            self.ids += [row[0] for row in rows]
            self.patients += [row[1] for row in rows]
            self.columns = columns  # last: who finds a place in them finds its id


class NearDuplicates:
    """Finds look-alikes among the cases of a task; withdrawn ones are left out.

    Parameters
    ----------
    bits : int
        In how many of 256 bits two hashes may differ; 0 finds nothing.
    """

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._lock = threading.Lock()
        self._tasks: dict[str, _Known] = {}

    def compare(
        self, session: Session, images: Collection[Image], before: Compared | None = None
    ) -> Compared:
        """Compare images with the stored cases, or with those that came after a comparison.

        Parameters
        ----------
        session : Session
            That has written no case yet: what is rolled back must not be known here.
        images : collection of Image
        before : Compared, optional
            An earlier answer; what it has compared is not compared again.
        """
        if not self._bits:
            return {}
        known = {task: self._refreshed(session, task) for task in {task for task, _ in images}}
        earlier = before or {}
        return {
            image: self._beside(known[image[0]], image[1], earlier.get(image, Beside(0, ())))
            for image in images
        }

    def among(
        self, session: Session, cases: Sequence[CaseRow], compared: Compared
    ) -> Iterator[list[NearDuplicate]]:
        """Yield for each new case what looks like it, nearest first: stored, or new as well.

        Parameters
        ----------
        session : Session
        cases : sequence of CaseRow
            The new cases, none of which is stored yet.
        compared : Compared
            Their images', as of now.
        """
        if not self._bits or not cases:
            yield from ([] for _ in cases)
            return
        gone = _withdrawn(session, compared)
        words = likeness_words([case.likeness for case in cases]).T
        for case, word in zip(cases, words.T, strict=True):
            near = self._stored(case.task, compared[case.task, case.likeness], gone)
            distances = _distances(words, word)
            near += [
                NearDuplicate(cases[i].id, cases[i].patient, int(distances[i]))
                for i in np.flatnonzero(distances <= self._bits).tolist()
                if cases[i] is not case and cases[i].task == case.task
            ]
            yield sorted(near, key=lambda one: one.distance)

    def find(self, session: Session, task: str, likeness: str, *, of: str) -> list[NearDuplicate]:
        """Return the live cases that look like an image, nearest first.

        Parameters
        ----------
        session : Session
        task : str
        likeness : str
            The image's perceptual hash, 64 hex digits.
        of : str
            The image's own case, which is not compared with itself.
        """
        compared = self.compare(session, [(task, likeness)])
        if not compared:
            return []
        gone = _withdrawn(session, compared)
        return self._stored(task, compared[task, likeness], {*gone, of})

    def _stored(self, task: str, beside: Beside, without: Collection[str]) -> list[NearDuplicate]:
        known = self._tasks[task]
        return [
            NearDuplicate(known.ids[place], known.patients[place], distance)
            for place, distance in beside.near
            if known.ids[place] not in without
        ]

    def _beside(self, known: _Known, likeness: str, before: Beside) -> Beside:
        columns = known.columns[:, before.compared :]
        distances = _distances(columns, likeness_words([likeness])[0])
        places = np.flatnonzero(distances <= self._bits)
        places = places[np.argsort(distances[places], kind="stable")[:_MOST]]
        new = zip((places + before.compared).tolist(), distances[places].tolist(), strict=True)
        near = sorted((*before.near, *new), key=lambda one: one[1])
        return Beside(before.compared + columns.shape[1], tuple(near[:_MOST]))

    def _refreshed(self, session: Session, task: str) -> _Known:
        """Read the rows that came since the last look.

        No row is ever deleted, so that their number tells whether all are here. Where those with
        a later moment are not all that came (a clock was set back, another machine's is slow), the
        ids say which are missing.
        """
        with self._lock:
            known = self._tasks.setdefault(task, _Known())
            total = session.scalar(select(func.count()).where(CaseRow.task == task)) or 0
            if total > len(known.ids):
                query = select(CaseRow.id, CaseRow.patient, CaseRow.likeness, CaseRow.created_at)
                query = query.where(CaseRow.task == task).order_by(CaseRow.created_at)
                newer = (
                    query if known.since is None else query.where(CaseRow.created_at >= known.since)
                )
                known.take(session, newer)
                if total > len(known.ids):
                    for part in _missing(session, task, known.seen):
                        known.take(session, query.where(CaseRow.id.in_(part)))
            return known


def _distances(columns: NDArray[np.uint64], word: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Count the differing bits of hashes, shape (4, n), and one, shape (4,)."""
    found = np.zeros(columns.shape[1], np.uint16)
    for column, part in zip(columns, word, strict=True):
        found += np.bitwise_count(column ^ part)
    return found


def _missing(session: Session, task: str, seen: Collection[str]) -> Iterable[list[str]]:
    every = session.scalars(select(CaseRow.id).where(CaseRow.task == task))
    ids = [one for one in every if one not in seen]
    return (ids[start : start + _QUERY_SIZE] for start in range(0, len(ids), _QUERY_SIZE))


def _withdrawn(session: Session, compared: Compared) -> set[str]:
    """Return the withdrawn cases, where there is anything that they must be left out of."""
    tasks = {task for (task, _), beside in compared.items() if beside.near}
    if not tasks:
        return set()
    query = select(CaseRow.id).where(CaseRow.task.in_(tasks), CaseRow.status == "withdrawn")
    return set(session.scalars(query))
