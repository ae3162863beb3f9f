"""Fetching new images from a PACS, again and again: asked for, fetched, taken in as if sent."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Protocol

from client.dicom.cursor import PullCursor
from client.dicom.web import Listed
from common.errors import Busy, InputRefused, ProcessError, WardroundError

log = logging.getLogger(__name__)

STORED = "stored"
_FORGIVEN = 5
"""Failures of single images after which a poll ends: the PACS is not well."""
_ATTEMPTS = 3
"""After so many polls an image that the PACS does not give is given up."""
_OF_ONE_IMAGE = frozenset(
    f"dicomweb-{code}" for code in ("too-large", "too-slow", "malformed", "not-given")
)


class Source(Protocol):
    """A PACS; `client.dicom.web.DicomwebSource` is, and a fake."""

    def listed(self, modalities: Collection[str] | None, *, today: date) -> Iterator[Listed]:
        """Yield what it has."""

    def fetch(self, listed: Listed) -> bytes:
        """Return a file."""


@dataclass(frozen=True)
class Pulled:
    """What one poll did: images taken in, refused for good, left for the next one, known."""

    stored: int = 0
    refused: int = 0
    failed: int = 0
    known: int = 0


class Puller:
    """Polls a PACS in a thread of its own, or once.

    Parameters
    ----------
    source : Source
    cursor : PullCursor
    take : callable
        Takes a Part 10 file in, durably.
    id_of : callable
        Keyed id of a SOP Instance UID.
    modalities : collection of str or None
        That the task takes.
    poll_seconds : float
    """

    def __init__(
        self,
        source: Source,
        cursor: PullCursor,
        *,
        take: Callable[[bytes], None],
        id_of: Callable[[str], str],
        modalities: Collection[str] | None,
        poll_seconds: float,
    ) -> None:
        self._source, self._cursor = source, cursor
        self._take, self._id_of, self._modalities = take, id_of, modalities
        self._poll_seconds = poll_seconds
        self._attempts: Counter[str] = Counter()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dicomweb-pull", daemon=True)

    def start(self) -> None:
        """Begin to poll."""
        self._thread.start()

    def stop(self) -> None:
        """End after the image in hand."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def poll(self) -> Pulled:
        """Fetch once what is new.

        Raises
        ------
        ProcessError, Busy, StoreError
            If the PACS, another process or the disk is in the way; what was taken in by then
            stays so, and the rest comes at the next poll.
        """
        stored = refused = failed = known = 0
        today = datetime.now(UTC).date()
        with self._cursor.open() as cursor:
            for listed in self._source.listed(self._modalities, today=today):
                if self._stopped.is_set() or failed >= _FORGIVEN:
                    break
                identifier = self._id_of(listed.instance)
                if cursor.knows(identifier):
                    known += 1
                    continue
                code = self._one(listed, identifier)
                if code is None:
                    failed += 1
                    continue
                cursor.note(identifier, code)
                stored, refused = stored + (code == STORED), refused + (code != STORED)
        done = Pulled(stored, refused, failed, known)
        if stored or refused or failed:
            counts = (stored, refused, failed)
            log.info("event=dicomweb-pulled stored=%d refused=%d failed=%d", *counts)
        return done

    def _one(self, listed: Listed, identifier: str) -> str | None:
        """Return what came of an image; None if it is to be tried again."""
        try:
            self._take(self._source.fetch(listed))
        except InputRefused as refusal:
            log.info("event=dicomweb-refused code=%s", refusal.code)
            return refusal.code
        except ProcessError as error:
            if error.code not in _OF_ONE_IMAGE:
                raise
            log.warning("event=dicomweb-image-failed code=%s", error.code)
            self._attempts[identifier] += 1
            if self._attempts[identifier] < _ATTEMPTS:
                return None
            del self._attempts[identifier]
            return error.code
        except Busy as error:
            log.warning("event=dicomweb-image-waits code=%s", error.code)
            return None
        return STORED

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.poll()
            except WardroundError as error:
                log.warning("event=dicomweb-poll-failed code=%s", error.code)
            except Exception as error:  # the thread must live; texts may quote a patient
                log.error("event=dicomweb-poll-failed type=%s", type(error).__name__)
            self._stopped.wait(self._poll_seconds)
