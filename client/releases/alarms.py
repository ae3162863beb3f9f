"""What hospital IT should look at, and what of it follows from decisions about releases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from client.releases.decisions import POLICY, ReleaseDecision, SiteReleases


@dataclass(frozen=True)
class Alarm:
    """Something that hospital IT should look at; ``code`` is stable."""

    code: str
    message: str
    since: datetime


def decision_alarms(state: SiteReleases) -> list[Alarm]:
    """Return what waits for a person, or is not as it should be, of a site's releases."""
    if state.damaged:
        message = "The file of decisions about releases is damaged; held ones are decided anew."
        return [Alarm("release-decisions-damaged", message, datetime.now(UTC))]
    serving = 0 if state.serving is None else state.serving.version
    newer = {d.version: d for d in state.decisions if d.version > serving}
    if not newer:
        return []
    alarm = _alarm(newer[max(newer)], serving)
    return [] if alarm is None else [alarm]


def _alarm(newest: ReleaseDecision, serving: int) -> Alarm | None:
    version = newest.version
    if newest.verdict == "held":
        message = (
            f"Release {version} waits for a person ({newest.reason}); release {serving} answers. "
            "Look at the figures, then `wardround site release accept` or `refuse`."
        )
        return Alarm("release-held", message, newest.at)
    if newest.verdict == "refused" and newest.by == POLICY:
        message = f"Release {version} was refused by the policy ({newest.reason})."
        return Alarm("release-refused", message, newest.at)
    if newest.verdict == "rolled-back":
        message = f"This site went back to release {serving}; release {version} is not used."
        return Alarm("release-rolled-back", message, newest.at)
    return None
