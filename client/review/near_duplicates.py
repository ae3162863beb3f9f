"""Which stored images look like a new one, by the perceptual hashes that the cases hold.

The hashes are kept in memory, 32 bytes a case, and only new rows are read: a hundred thousand
cases are compared in about ten milliseconds.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from client.cases.accepted_image import likeness_words
from client.cases.tables import CaseRow

_WORDS = 4


@dataclass(frozen=True)
class NearDuplicate:
    """A stored case that looks like another. ``distance``: differing bits of 256."""

    case_id: str
    patient: str
    distance: int


@dataclass
class _Known:
    ids: list[str] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    words: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, _WORDS), np.uint64))
    seen: set[str] = field(default_factory=set)
    newest: datetime | None = None


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
        if not self._bits:
            return []
        with self._lock:
            known = self._refreshed(session, task)
            word = likeness_words([likeness])[0]
            distances = np.bitwise_count(known.words ^ word).sum(axis=1, dtype=np.int64)
            near = [
                NearDuplicate(known.ids[i], known.patients[i], int(distances[i]))
                for i in np.flatnonzero(distances <= self._bits)
                if known.ids[i] != of
            ]
        near.sort(key=lambda one: (one.distance, one.case_id))
        live = _live(session, [one.case_id for one in near[:_MOST]])
        return [one for one in near[:_MOST] if one.case_id in live]

    def _refreshed(self, session: Session, task: str) -> _Known:
        """Read the rows that came since the last look; rows of one moment are told apart by id."""
        known = self._tasks.setdefault(task, _Known())
        query = select(CaseRow.id, CaseRow.patient, CaseRow.likeness, CaseRow.created_at)
        query = query.where(CaseRow.task == task)
        if known.newest is not None:
            query = query.where(CaseRow.created_at >= known.newest)
        rows = [
            r for r in session.execute(query.order_by(CaseRow.created_at)) if r[0] not in known.seen
        ]
        if rows:
            known.ids += [row[0] for row in rows]
            known.seen.update(row[0] for row in rows)
            known.patients += [row[1] for row in rows]
            known.words = np.concatenate([known.words, likeness_words([row[2] for row in rows])])
            known.newest = rows[-1][3]
        return known


_MOST = 400


def _live(session: Session, ids: list[str]) -> set[str]:
    query = select(CaseRow.id).where(CaseRow.id.in_(ids), CaseRow.status != "withdrawn")
    return set(session.scalars(query))
