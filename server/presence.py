"""Which sites asked for releases lately, and which version each said that it serves.

In memory alone: after a restart of the service a site is known again within seconds, from its
next look at the timestamp. Nothing is decided by it; the coordinator's page shows it. Behind the
gateway a site's name comes from its certificate, not from what it says.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
MOST_SITES = 4096


@dataclass(frozen=True)
class Seen:
    """A site's last request: when (UTC), and the version it served then, None where it had none."""

    at: datetime
    release: int | None


class Presence:
    """Remembers the last request of each site; safe in several threads."""

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, Seen] = OrderedDict()

    def note(self, site: str | None, release: str | None) -> None:
        """Remember what a request's headers said; what makes no sense is passed over."""
        if site is None or not NAME.fullmatch(site):
            return
        said = release is not None and release.isascii() and release.isdigit()
        version = int(release or 0) if said and len(release or "") < 10 else 0
        with self._lock:
            self._seen[site] = Seen(self._clock(), version or None)
            self._seen.move_to_end(site)
            while len(self._seen) > MOST_SITES:
                self._seen.popitem(last=False)

    def all(self) -> Mapping[str, Seen]:
        """Return what is known, by site."""
        with self._lock:
            return dict(self._seen)
