"""Letting in whom the database let in a while ago, while the database is away.

A hospital's readers must not lose their answers because a database is being restarted. So whoever
was let in during the last hours still is, with the roles that they had then, as long as the
database cannot be asked; it decides again as soon as it can. Nobody new is let in meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor

from client.access.caller import Caller
from common.errors import StoreError

REMEMBERED_SECONDS = 8 * 3600.0
MOST = 1000
ANSWER_SECONDS = 2.0
TROUBLE_SECONDS = 5.0


class Remembered:
    """Callers by the digest of their secret.

    Parameters
    ----------
    threads : Executor
        Where the database is asked.
    seconds : float
        For how long somebody is remembered.
    clock : callable, optional
        Returns seconds; `time.monotonic`.
    """

    def __init__(
        self,
        threads: Executor,
        *,
        seconds: float = REMEMBERED_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threads = threads
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()
        self._trouble_until = 0.0

    async def ask(self, secret: str, look: Callable[[], Caller | None]) -> Caller | None:
        """Return whose secret it is, by the database, or by memory while that is away.

        Parameters
        ----------
        secret : str
            A key, or a session's.
        look : callable
            Asks the database; runs in a thread.

        Raises
        ------
        StoreError
            If the database cannot be asked, and nobody is remembered.
        """
        digest = hashlib.sha256(secret.encode()).digest()
        if self._clock() < self._trouble_until:
            known = self._recall(digest)
            if known is not None:
                return known
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self._threads, self._noted, digest, look)
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

    def _noted(self, digest: bytes, look: Callable[[], Caller | None]) -> Caller | None:
        found = look()
        with self._lock:
            self._known.pop(digest, None)
            if found is not None:
                self._known[digest] = (found, self._clock())
                while len(self._known) > MOST:
                    self._known.popitem(last=False)
        return found

    def _recall(self, digest: bytes) -> Caller | None:
        with self._lock:
            caller, since = self._known.get(digest, (None, 0.0))
        return caller if self._clock() - since < self._seconds else None

    def _in_trouble(self) -> None:
        self._trouble_until = self._clock() + TROUBLE_SECONDS
