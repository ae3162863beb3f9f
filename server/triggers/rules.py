"""The rules of triggers, pure: what is known goes in, whether it is due and why comes out.

A rule that is due names a *slot*: the occurrence that it is due for. A trigger fires once for a
slot, so that neither a clock that was set back nor a second process fires it twice:

- a schedule's slot is the occurrence itself; of several missed ones, only the newest counts;
- for signals of sites it is the newest report that counted. Only reports made since the task's
  newest campaign was created, and since its last one finished, count: one report never starts two
  campaigns, and what was asked while a campaign trained on the cases starts no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, TypeAlias

from cronsim import CronSim, CronSimError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

SignalKind = Literal["new-cases", "drift"]
LONGEST_LOOK_BACK = timedelta(days=366)
"""Of a schedule: what was missed earlier than that is not looked for."""

CLOCK_SET_BACK = timedelta(hours=1)
"""A clock that lags a schedule's mark by more was set back, and the mark is set back with it."""


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScheduleRule(_Rule):
    """By the clock: a cron expression of five fields, in UTC, such as ``0 3 1 * *``."""

    kind: Literal["schedule"] = "schedule"
    cron: Annotated[str, Field(max_length=100)]

    @field_validator("cron")
    @classmethod
    def _readable(cls, value: str) -> str:
        if len(value.split()) != 5:
            raise ValueError("five fields are needed: minute, hour, day, month, weekday")
        try:
            next(CronSim(value, datetime(2024, 1, 1, tzinfo=UTC)))
        except CronSimError as error:
            raise ValueError(f"not a cron expression: {error}") from error
        except StopIteration as error:
            raise ValueError("no day on earth matches it") from error
        return value


class NewCasesRule(_Rule):
    """Enough newly confirmed cases over the sites that say so: the sum of their bands' floors."""

    kind: Literal["new-cases"] = "new-cases"
    cases: Annotated[int, Field(ge=1, le=10_000_000)]
    sites: Annotated[int, Field(ge=1)] = 1


class DriftRule(_Rule):
    """So many sites report drift of at least a level: 1 is a warning, 2 an alarm."""

    kind: Literal["drift"] = "drift"
    sites: Annotated[int, Field(ge=1)] = 1
    level: Annotated[int, Field(ge=1, le=2)] = 2


class HandRule(_Rule):
    """Never by itself."""

    kind: Literal["hand"] = "hand"


Rule: TypeAlias = Annotated[
    ScheduleRule | NewCasesRule | DriftRule | HandRule, Field(discriminator="kind")
]
RULES: TypeAdapter[Rule] = TypeAdapter(Rule)


@dataclass(frozen=True)
class Signal:
    """The last that a site reported: a band's floor of new cases, or a level of drift."""

    site: str
    kind: SignalKind
    level: int
    reported_at: datetime


@dataclass(frozen=True)
class Due:
    """A rule that is due: for which slot, and why, in words."""

    slot: str
    reason: str


def due(
    rule: Rule,
    *,
    now: datetime,
    looked_at: datetime,
    signals: Sequence[Signal],
    since: datetime | None,
) -> Due | None:
    """Tell whether a rule is due.

    Parameters
    ----------
    rule : Rule
        The trigger's.
    now, looked_at : datetime
        The present, and until when the schedule was looked at before; UTC.
    signals : sequence of Signal
        All that sites reported for the task.
    since : datetime or None
        Reports until then do not count: `TriggerStore.signals_since`.
    """
    if isinstance(rule, ScheduleRule):
        return _scheduled(rule, now, looked_at)
    if isinstance(rule, HandRule):
        return None
    kind = "new-cases" if isinstance(rule, NewCasesRule) else "drift"
    fresh = [s for s in signals if s.kind == kind and (since is None or s.reported_at > since)]
    return _enough_cases(rule, fresh) if isinstance(rule, NewCasesRule) else _drifted(rule, fresh)


def clock_was_set_back(*, now: datetime, looked_at: datetime) -> bool:
    """Tell whether the clock lags what was looked at by more than its ordinary corrections."""
    return now < looked_at - CLOCK_SET_BACK


def next_occurrence(rule: ScheduleRule, now: datetime) -> datetime:
    """Return when a schedule is due next, UTC."""
    return next(CronSim(rule.cron, now))


def _scheduled(rule: ScheduleRule, now: datetime, looked_at: datetime) -> Due | None:
    if now <= looked_at:
        return None  # a clock that was set back a little runs through these minutes again
    start = max(looked_at, now - LONGEST_LOOK_BACK)
    newest = next(CronSim(rule.cron, now + timedelta(seconds=1), reverse=True))
    if newest <= start:
        return None
    return Due(
        slot=f"{newest:%Y-%m-%dT%H:%MZ}",
        reason=f"Its schedule ({rule.cron}, UTC) came round at {newest:%Y-%m-%d %H:%M}.",
    )


def _enough_cases(rule: NewCasesRule, fresh: list[Signal]) -> Due | None:
    telling = [signal for signal in fresh if signal.level > 0]
    total = sum(signal.level for signal in telling)
    if total < rule.cases or len(telling) < rule.sites:
        return None
    return Due(
        slot=_newest(telling),
        reason=f"{len(telling)} sites report at least {total} newly confirmed cases in all; "
        f"{rule.cases} were asked for.",
    )


def _drifted(rule: DriftRule, fresh: list[Signal]) -> Due | None:
    telling = [signal for signal in fresh if signal.level >= rule.level]
    if len(telling) < rule.sites:
        return None
    names = ", ".join(sorted(signal.site for signal in telling))
    return Due(slot=_newest(telling), reason=f"Drift is reported by {names}.")


def _newest(signals: list[Signal]) -> str:
    return max(signal.reported_at for signal in signals).isoformat(timespec="microseconds")
