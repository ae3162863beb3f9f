"""Notes that no request waits for: when a key or a session was last used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from common.errors import StoreError

log = logging.getLogger(__name__)

AGAIN_AFTER = timedelta(seconds=30)
"""A write to a locked database may wait as long as that; not every request shall."""


class Bookkeeping:
    """Writes that shut nobody out where the disk is full or the database takes nothing."""

    def __init__(self) -> None:
        self._again_at: datetime | None = None

    def note(self, write: Callable[[], None], *, now: datetime) -> bool:
        """Tell whether it was written; after a failure nothing is tried for `AGAIN_AFTER`."""
        if self._again_at is not None and now < self._again_at:
            return False
        try:
            write()
        except StoreError as error:
            self._again_at = now + AGAIN_AFTER
            log.warning("event=use-unnoted code=%s", error.code)
            return False
        self._again_at = None
        return True
