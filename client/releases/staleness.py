"""What becomes of a model for which the coordinator has not vouched for long.

A site that cannot reach its coordinator cannot know whether its release was withdrawn. After
``stale_after`` that is an alarm. After ``refuse_after``, if the hospital set one, the service
answers no more; by default it goes on for ever: the model is as good as on the day when it was
accepted, the release before it is no better vouched for, and clinicians who rely on an answer
would lose it for an outage of the network. Who thinks otherwise sets a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from client.inference.engine import InferenceEngine, ModelHolder
from client.releases.alarms import Alarm
from client.releases.policy import ReleasePolicy
from common.errors import ReleaseError

HOUR = 3600.0


def _now() -> datetime:
    return datetime.now(UTC)


class Staleness:
    """How long ago the coordinator vouched for the release, against the site's policy.

    Parameters
    ----------
    vouched : callable
        Returns when it last did; None where that is not known, which counts as the moment when
        the service started.
    policy : callable
        Returns the site's release policy as it was last readable.
    clock : callable, optional
        Returns the present as an aware datetime.
    """

    def __init__(
        self,
        vouched: Callable[[], datetime | None],
        policy: Callable[[], ReleasePolicy],
        *,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._vouched = vouched
        self._policy = policy
        self._clock = clock
        self._started = clock()

    @property
    def seconds(self) -> float:
        """Age of the newest vouching, in seconds; 0 where a clock says that it lies ahead."""
        since = self._vouched() or self._started
        return max(0.0, (self._clock() - since).total_seconds())

    @property
    def refuses(self) -> bool:
        """Whether the service is to answer no more."""
        limit = self._policy().refuse_after
        return limit is not None and self.seconds > limit

    def check(self) -> None:
        """Raise ReleaseError with code ``model-stale`` where the service is to answer no more."""
        if self.refuses:
            raise ReleaseError(
                f"The coordinator has not vouched for the model for {self.seconds / HOUR:.0f} h.",
                meaning="This site's policy has no answers given then; cases can be stored.",
                action="Restore the connection to the coordinator, or change refuse_after in "
                "policy.toml.",
                code="model-stale",
            )

    def alarms(self) -> tuple[Alarm, ...]:
        """Return the alarm, if it is time for one."""
        seconds, policy = self.seconds, self._policy()
        if seconds <= policy.stale_after:
            return ()
        what = f"The coordinator has not vouched for the model for {seconds / HOUR:.0f} h."
        if self.refuses:
            then = "No answers are given."
        elif policy.refuse_after is None:
            then = "It goes on answering."
        else:
            left = (policy.refuse_after - seconds) / HOUR
            then = f"It goes on answering for {left:.0f} h."
        return (Alarm("model-stale", f"{what} {then}", self._vouched() or self._started),)


class CheckedHolder(ModelHolder):
    """A holder that gives no engine for an answer while the model is too stale to give one."""

    def __init__(self) -> None:
        super().__init__()
        self.check: Callable[[], None] = lambda: None

    def require(self) -> InferenceEngine:
        """Return the engine that answers now; ReleaseError ``no-model`` or ``model-stale``."""
        engine = super().require()
        self.check()
        return engine
