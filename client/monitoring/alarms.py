"""The alarms of monitoring: each stands from when it was first found until it is found no more."""

from __future__ import annotations

from datetime import UTC, datetime

from client.monitoring.drift import Kind, KindDrift
from client.monitoring.snapshot import Snapshot
from client.releases.watcher import Alarm

FAILED = "monitoring-failed"
PERFORMANCE = "performance-low"

WHAT: dict[Kind, str] = {
    "inputs": "Images of late look different from those of the holdout",
    "embeddings": "What the model sees in images of late is different from the holdout",
    "predictions": "The model's answers of late are mixed differently from those on the holdout",
}


class AlarmBook:
    """Which alarms stand, and since when."""

    def __init__(self) -> None:
        self._standing: tuple[Alarm, ...] = ()

    def alarms(self) -> tuple[Alarm, ...]:
        """Return them, oldest first."""
        return self._standing

    def found(self, snapshot: Snapshot) -> None:
        """Take in what a refresh found."""
        wanted = {f"drift-{kind.kind}": _drift(kind) for kind in snapshot.drifted}
        if snapshot.broken:
            wanted[PERFORMANCE] = _performance(snapshot)
        self._keep(wanted)

    def failed(self, code: str) -> None:
        """Take in that a refresh failed; what stood before goes on."""
        wanted = {alarm.code: alarm.message for alarm in self._standing}
        wanted[FAILED] = f"The site's own monitoring could not look at the answers ({code})."
        self._keep(wanted)

    def _keep(self, wanted: dict[str, str]) -> None:
        since = {alarm.code: alarm.since for alarm in self._standing}
        now = datetime.now(UTC)
        found = [Alarm(code, text, since.get(code, now)) for code, text in wanted.items()]
        self._standing = tuple(sorted(found, key=lambda alarm: alarm.since))


def _drift(kind: KindDrift) -> str:
    worst = kind.worst
    most = f", most of all {worst.name}" if worst is not None else ""
    size = "much" if kind.level == 2 else "somewhat"
    return f"{WHAT[kind.kind]} ({size}{most}; {kind.cases} images)."


def _performance(snapshot: Snapshot) -> str:
    parts = []
    for figure in snapshot.recent.figures if snapshot.recent is not None else ():
        if figure.name in snapshot.broken and figure.interval is not None:
            promised = snapshot.promise.of(figure.name)
            seen = f"{figure.interval.low:.2f} to {figure.interval.high:.2f}"
            parts.append(f"{figure.name} is {seen}, promised {promised:.2f}")
    return f"On confirmed cases the model is worse than promised: {'; '.join(parts)}."
