"""When a buffer may become a step: enough updates, of enough different sites. No I/O.

- A step takes ``size`` updates.
- No step is one site's alone, where the quorum asks for more than one: the difference of two
  models would be that site's update. Where updates are aggregated robustly, *every* step holds a
  quorum of different sites: there is no majority in less.
- Any ``window`` steps in a row hold updates of a quorum of different sites, and so do all steps
  together where they are fewer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from server.registry.records import Campaign


@dataclass(frozen=True)
class BufferRule:
    """What a step needs.

    Attributes
    ----------
    size : int
        Updates.
    quorum : int
        Different sites in any ``window`` steps in a row.
    each : int
        Different sites in each step.
    steps : int
        Of the whole campaign.
    max_staleness : int
        Steps that an update's base may be old.
    """

    size: int
    quorum: int
    each: int
    window: int
    steps: int
    max_staleness: int

    @classmethod
    def of(cls, campaign: Campaign) -> BufferRule:
        """Return a campaign's rule; its rounds must be buffered."""
        settings = campaign.settings
        assert settings.buffer is not None
        robust = campaign.aggregation.name != "mean"
        return cls(
            size=settings.buffer.size,
            quorum=settings.quorum,
            each=settings.quorum if robust else min(2, settings.quorum),
            window=settings.buffer.quorum_steps,
            steps=settings.rounds,
            max_staleness=settings.buffer.max_staleness,
        )

    def lacking(self, step: int, sites: Collection[str], earlier: Sequence[Collection[str]]) -> int:
        """Return how many different sites are missing.

        Parameters
        ----------
        step : int
            That the buffer is to become, from 1.
        sites : collection of str
            Whose updates are in the buffer.
        earlier : sequence of collection of str
            Whose updates were in the steps before, the newest last.
        """
        here = set(sites)
        missing = self.each - len(here)
        if step >= self.window or step == self.steps:
            before = earlier[-(self.window - 1) :] if self.window > 1 else ()
            missing = max(missing, self.quorum - len(here.union(*before)))
        return max(0, missing)

    def complete(self, step: int, sites: Sequence[str], earlier: Sequence[Collection[str]]) -> bool:
        """Tell whether the updates of these sites, each named once an update, make a step."""
        return len(sites) >= self.size and self.lacking(step, sites, earlier) == 0

    def held(self, earlier: Sequence[Collection[str]]) -> bool:
        """Tell whether the steps that were taken hold a quorum, should they be the last."""
        return len(set().union(*earlier[-self.window :])) >= self.quorum
