"""Fetching new images from a PACS, again and again: asked for, fetched, taken in as if sent."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
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
"""After so many polls an image that the PACS does not give is given up. Polls of a PACS that gave
nothing at all, before they ended, do not count: an outage costs no image."""
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


@dataclass
class _Poll:
    """One poll under way; ``failures`` are the ids and codes of what the PACS did not give."""

    cursor: PullCursor
    stored: int = 0
    refused: int = 0
    waiting: int = 0
    known: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return len(self.failures) + self.waiting >= _FORGIVEN

    @property
    def was_of_a_sick_pacs(self) -> bool:
        return len(self.failures) >= _FORGIVEN and not self.stored + self.refused


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
            If the PACS, the decoder, another process or the disk is in the way; what was taken in
            by then stays so, and the rest comes at the next poll.
        """
        with self._cursor.open() as cursor:
            poll = _Poll(cursor)
            for listed, identifier in self._in_turn(poll):
                self._one(poll, listed, identifier)
            given_up = self._given_up(poll)
        failed = len(poll.failures) - given_up + poll.waiting
        done = Pulled(poll.stored, poll.refused + given_up, failed, poll.known)
        if done.stored or done.refused or done.failed:
            counts = (done.stored, done.refused, done.failed)
            log.info("event=dicomweb-pulled stored=%d refused=%d failed=%d", *counts)
        return done

    def _in_turn(self, poll: _Poll) -> Iterator[tuple[Listed, str]]:
        """Yield what is not dealt with yet; what failed before comes last, and holds up nothing."""
        today = datetime.now(UTC).date()
        again: list[tuple[Listed, str]] = []
        for listed in self._source.listed(self._modalities, today=today):
            if self._stopped.is_set() or poll.is_over:
                return
            identifier = self._id_of(listed.instance)
            if poll.cursor.knows(identifier):
                poll.known += 1
            elif identifier in self._attempts:
                again.append((listed, identifier))
            else:
                yield listed, identifier
        for one in again:
            if self._stopped.is_set() or poll.is_over:
                return
            yield one

    def _one(self, poll: _Poll, listed: Listed, identifier: str) -> None:
        """Fetch an image and take it in; what is wrong with it alone is counted."""
        try:
            self._take(self._source.fetch(listed))
        except InputRefused as refusal:
            log.info("event=dicomweb-refused code=%s", refusal.code)
            poll.cursor.note(identifier, refusal.code)
            poll.refused += 1
        except ProcessError as error:
            if error.code not in _OF_ONE_IMAGE:
                raise
            log.warning("event=dicomweb-image-failed code=%s", error.code)
            poll.failures[identifier] = error.code
            self._attempts.setdefault(identifier, 0)
        except Busy as error:
            log.warning("event=dicomweb-image-waits code=%s", error.code)
            poll.waiting += 1
        else:
            poll.cursor.note(identifier, STORED)
            poll.stored += 1

    def _given_up(self, poll: _Poll) -> int:
        """Count a poll against what failed in it; return how many images are tried no more."""
        if poll.was_of_a_sick_pacs:
            return 0
        given_up = 0
        for identifier, code in poll.failures.items():
            self._attempts[identifier] += 1
            if self._attempts[identifier] >= _ATTEMPTS:
                poll.cursor.note(identifier, code)
                del self._attempts[identifier]
                given_up += 1
        return given_up

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.poll()
            except WardroundError as error:
                log.warning("event=dicomweb-poll-failed code=%s", error.code)
            except Exception as error:  # the thread must live; texts may quote a patient
                log.error("event=dicomweb-poll-failed type=%s", type(error).__name__)
            self._stopped.wait(self._poll_seconds)
