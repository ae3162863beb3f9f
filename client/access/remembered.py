"""Letting in whom the database let in a while ago, while the database is away.

A hospital's readers must not lose their answers because a database is being restarted. So whoever
was let in during the last hours still is, with the roles that they had then, as long as the
database cannot be asked; it decides again as soon as it can. Nobody new is let in meanwhile.

Who signed out, was removed or had a key revoked is forgotten within `SWEEP_SECONDS` while it
answers; and a browser that was idle for too long is not let in again, as with the database, nor
is a key or a session whose time has come.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

from client.access.caller import Caller
from client.access.names import digest_of
from common.errors import StoreError
from common.moments import utc_now

REMEMBERED_SECONDS = 8 * 3600.0
MOST = 1000
ANSWER_SECONDS = 2.0
TROUBLE_SECONDS = 5.0
SWEEP_SECONDS = 60.0


@dataclass
class _Entry:
    """Who was let in, when the database last said so, when they last asked, when it ends."""

    caller: Caller
    since: float
    used: float
    idle: float
    ends: float


class Remembered:
    """Callers by the digest of their secret.

    Parameters
    ----------
    threads : Executor
        Where the database is asked.
    alive : callable
        Returns the digests (`client.access.names.digest_of`) of all secrets that still count;
        asks the database.
    seconds : float
        For how long somebody is remembered.
    clock : callable, optional
        Returns seconds; `time.monotonic`.
    moment : callable, optional
        Returns the moment, aware.
    """

    def __init__(
        self,
        threads: Executor,
        alive: Callable[[], Collection[str]],
        *,
        seconds: float = REMEMBERED_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        moment: Callable[[], datetime] = utc_now,
    ) -> None:
        self._threads = threads
        self._alive = alive
        self._seconds = seconds
        self._clock = clock
        self._moment = moment
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Entry] = OrderedDict()
        self._trouble_until = 0.0
        self._swept = clock()

    def forget(self, secret: str) -> None:
        """Let nobody in by this secret while the database is away."""
        with self._lock:
            self._known.pop(digest_of(secret), None)

    async def ask(
        self, secret: str, look: Callable[[], Caller | None], *, idle: float = math.inf
    ) -> Caller | None:
        """Return whose secret it is, by the database, or by memory while that is away.

        Parameters
        ----------
        secret : str
            A key, or a session's.
        look : callable
            Asks the database; runs in a thread.
        idle : float
            Seconds after which somebody who did not ask is not let in by memory.

        Raises
        ------
        StoreError
            If the database cannot be asked, and nobody is remembered.
        """
        digest = digest_of(secret)
        if self._clock() < self._trouble_until:
            known = self._recall(digest)
            if known is not None:
                return known
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self._threads, self._noted, digest, look, idle)
        done, _ = await asyncio.wait({asked}, timeout=ANSWER_SECONDS)
        try:
            if not done and self._recall(digest) is None:
                return await asked  # nothing to fall back on: as long as it takes
            if done:
                return asked.result()
        except StoreError:
            self._in_trouble()
            known = self._recall(digest)
            if known is None:
                raise
            return known
        self._in_trouble()
        asked.add_done_callback(lambda late: late.exception())  # nobody waits for it any more
        return self._recall(digest)

    def _noted(self, digest: str, look: Callable[[], Caller | None], idle: float) -> Caller | None:
        found = look()
        now = self._clock()
        with self._lock:
            self._known.pop(digest, None)
            if found is not None:
                self._known[digest] = _Entry(found, now, now, idle, now + self._left(found))
                while len(self._known) > MOST:
                    self._known.popitem(last=False)
            due = now - self._swept >= SWEEP_SECONDS
            if due:
                self._swept = now
        if due:
            self._sweep()
        return found

    def _left(self, found: Caller) -> float:
        if found.ends_at is None:
            return math.inf
        return (found.ends_at - self._moment()).total_seconds()

    def _sweep(self) -> None:
        with self._lock:
            before = set(self._known)  # who comes in meanwhile was asked about just now
        try:
            gone = before.difference(self._alive())
        except StoreError:
            return  # the next one sweeps
        with self._lock:
            for digest in gone:
                self._known.pop(digest, None)

    def _recall(self, digest: str) -> Caller | None:
        now = self._clock()
        with self._lock:
            known = self._known.get(digest)
            if known is None or now >= min(known.since + self._seconds, known.ends):
                return None
            if now - known.used > known.idle:
                return None
            known.used = now
            return known.caller

    def _in_trouble(self) -> None:
        self._trouble_until = self._clock() + TROUBLE_SECONDS
