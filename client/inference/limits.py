"""How much the service computes at once, and how long it lets others wait."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchLimits:
    """What waits, and how long.

    Attributes
    ----------
    lanes : int, default 1
        Threads; on a CPU one a core, each network call being of one thread.
    batch : int, default 8
        Most images in one network call.
    wait : float, default 0.002
        Seconds that an image may wait for company.
    queue : int, default 64
        Images waiting; one more is refused.
    queue_seconds : float, default 10
        An image that has waited longer is not computed any more.
    """

    lanes: int = 1
    batch: int = 8
    wait: float = 0.002
    queue: int = 64
    queue_seconds: float = 10.0
