"""That programs' keys end soon, so that hospital IT hears of it before a program is refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from client.access.keys import WARN, Keys
from client.releases.alarms import Alarm


@dataclass
class KeyEndings:
    """How many keys ended, or will within `WARN`, when it was last looked; no name of theirs."""

    keys: Keys
    number: int = 0
    since: datetime | None = None

    def look(self) -> None:
        """Count them; raises StoreError where the database is away."""
        self.number = self.keys.ending()
        self.since = (self.since or datetime.now(UTC)) if self.number else None

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what hospital IT should look at."""
        if self.since is None:
            return ()
        message = f"Keys of programs that ended, or will within {WARN.days} days: {self.number}."
        return (Alarm("key-ending", message, self.since),)
