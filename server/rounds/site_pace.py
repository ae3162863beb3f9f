"""How long each site may take: as it has taken before, and some more, not the longest wait for all.

A site's seconds, from plan to answer, hold its training and its link; 0 stand for an answer that
was trained earlier, and are passed over. One that is slow is waited
for as it is slow; one that hangs, and used to be quick, is not waited for until the campaign's
own deadline.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from server.registry.records import Contribution

FLOOR_SECONDS = 120.0
"""A quick site's allowance: a backup or a busy disk must not cut it off, for privacy is spent."""
MULTIPLE = 4.0
"""Times the longest of a site's last answers."""
REMEMBERED = 5
"""Answers of a site that count."""


class SitePace:
    """Deadlines by site, from what is in the registry of a campaign's training rounds.

    Parameters
    ----------
    contributions : iterable of Contribution
        The campaign's, in order.
    maximum : float
        The campaign's ``round_deadline_seconds``.
    alike : bool, default True
        Whether the exchange asks for the same work as the rounds did. Scoring whole holdouts
        after rounds that scored nothing is other work: only sites that were silent in their
        last round have a deadline of their own then.
    since : int, default 1
        The first round of the phase: rounds in which fewer parameters moved were quicker.
    """

    def __init__(
        self,
        contributions: Iterable[Contribution],
        *,
        maximum: float,
        alike: bool = True,
        since: int = 1,
    ) -> None:
        self._maximum = maximum
        self._alike = alike
        seconds: dict[str, list[float]] = defaultdict(list)
        self._silent: set[str] = set()
        for c in contributions:
            if c.round < 1:
                continue
            if c.outcome == "accepted":
                self._silent.discard(c.site)
                if c.seconds > 0 and c.round >= since:
                    seconds[c.site].append(c.seconds)
            elif c.outcome == "late":
                self._silent.add(c.site)
        self._longest = {site: max(found[-REMEMBERED:]) for site, found in seconds.items()}

    def allowed(self, site: str, attempt: int) -> float:
        """Return the seconds that a site may take from now on.

        One of which nothing is known gets the campaign's maximum, but for one that was silent
        in its last round: it gets what the slowest of the others would. Later attempts give more.
        """
        if not self._alike and site not in self._silent:
            return self._maximum
        known = self._longest.get(site)
        if known is None and site in self._silent and self._longest:
            known = max(self._longest.values())
        if known is None:
            return self._maximum
        return min(self._maximum, max(FLOOR_SECONDS, MULTIPLE * known) * attempt)
