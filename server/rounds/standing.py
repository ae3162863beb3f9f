"""How each site stands in one buffered step: how often it failed, and whether it may be asked."""

from __future__ import annotations

from collections.abc import Iterable

from server.registry.records import Contribution
from server.rounds.exchange import PAUSE_SECONDS


class Standing:
    """One step's account of sites; the next step begins with a new one.

    Parameters
    ----------
    told : iterable of Contribution
        What the registry holds of this step already.
    attempts : int
        Failures after which a site is left out of the step.
    """

    def __init__(self, told: Iterable[Contribution], *, attempts: int) -> None:
        self._numbers: dict[str, int] = {}
        for contribution in told:
            known = self._numbers.get(contribution.site, 0)
            self._numbers[contribution.site] = max(known, contribution.attempt)
        self._attempts = attempts
        self._failures: dict[str, int] = {}
        self._rests: dict[str, float] = {}
        self._out: set[str] = set()
        self.faults: dict[str, str] = {}

    def next_number(self, site: str) -> int:
        """Return the number of a site's next record in this step, from 1."""
        self._numbers[site] = self._numbers.get(site, 0) + 1
        return self._numbers[site]

    def failures(self, site: str) -> int:
        """Return how often it failed to answer in this step."""
        return self._failures.get(site, 0)

    def succeeded(self, site: str) -> None:
        """Note an accepted update."""
        self._failures.pop(site, None)
        self.faults.pop(site, None)

    def failed(self, site: str, code: str, *, now: float) -> None:
        """Note that no answer came; after too many of those the site is left out."""
        self.faults[site] = code
        count = self._failures[site] = self.failures(site) + 1
        if count >= self._attempts:
            self._out.add(site)
        self._rests[site] = now + PAUSE_SECONDS[min(count, len(PAUSE_SECONDS)) - 1]

    def leave_out(self, site: str, code: str) -> None:
        """Note that it is not to be asked again in this step."""
        self.faults[site] = code
        self._out.add(site)

    def is_out(self, site: str) -> bool:
        """Tell whether it is left out of this step."""
        return site in self._out

    def rests(self, site: str, *, now: float) -> bool:
        """Tell whether it failed just now, and is to be asked later."""
        return self._rests.get(site, 0.0) > now
