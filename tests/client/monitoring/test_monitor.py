"""The monitor looks when it may, says what it found, and outlives what goes wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from client.answers.answered import Answered
from client.cases.store import MIGRATIONS
from client.monitoring import monitor as module
from client.monitoring.monitor import Monitor
from client.monitoring.promise import Promise, promise_of
from client.monitoring.reference import DriftReference
from client.monitoring.settings import MonitoringSettings
from common.database import migrate, open_database
from common.errors import StoreError
from tests.client.monitoring.outcomes import drawn
from tests.client.monitoring.samples import CLASSES, MODEL, answers, reference

NOW = datetime.now(UTC)
SETTINGS = MonitoringSettings(window=200, fewest=100)


@dataclass
class FakeAnswers:
    """An answer log in memory."""

    kept: list[Answered] = field(default_factory=list)
    trouble: Exception | None = None
    looks: int = 0

    def answers(self, task: str, *, since: datetime, limit: int) -> tuple[Answered, ...]:
        assert task == "toy"
        self.looks += 1
        if self.trouble is not None:
            raise self.trouble
        return tuple(a for a in self.kept if a.answered_at >= since)[-limit:]


def engine(drift: DriftReference | None, **changes: Any) -> Any:
    """What the monitor reads of an engine."""
    recipe = SimpleNamespace(
        name="toy", classes=CLASSES, decision=SimpleNamespace(positive_classes=("malignant",))
    )
    operating = SimpleNamespace(sensitivity=0.95, specificity=0.5)
    metrics = SimpleNamespace(
        candidate=SimpleNamespace(macro_auroc=0.7), operating=operating, calibration_error=0.5
    )
    profile = SimpleNamespace(drift=drift, operating_point=None)
    whole = {
        "digest": MODEL.digest, "head_digest": None, "version": 1, "recipe": recipe,
        "manifest": SimpleNamespace(metrics=metrics), "profile": profile,
    }  # fmt: skip
    return SimpleNamespace(**(whole | changes))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    found = open_database(f"sqlite:///{tmp_path / 'site.db'}")
    migrate(found, MIGRATIONS)
    yield found
    found.dispose()


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text("minimum_cell = 10\n")
    return path


@pytest.fixture
def watched(database: Engine, policy: Path) -> Any:
    holder: Any = SimpleNamespace(current=engine(reference(100)))
    log: Any = FakeAnswers()
    monitor = Monitor(SETTINGS, holder=holder, answers=log, database=database, policy=policy)
    return SimpleNamespace(monitor=monitor, holder=holder, log=log, policy=policy)


def codes(monitor: Monitor) -> list[str]:
    return [alarm.code for alarm in monitor.alarms()]


def recent(count: int, minutes_ago: int, **moved: Any) -> list[Answered]:
    return answers(count, begun=NOW - timedelta(minutes=minutes_ago), **moved)


def test_drift_raises_an_alarm_that_stands_until_it_is_over(watched: Any) -> None:
    watched.log.kept = recent(150, 900)
    watched.monitor.refresh()
    assert codes(watched.monitor) == []
    assert watched.monitor.snapshot.drift.reference_patients == 100
    watched.log.kept += recent(150, 700, seed=2, sharpness=0.6, logit=4.0)
    watched.monitor.refresh()
    assert sorted(codes(watched.monitor)) == ["drift-inputs", "drift-predictions"]
    first = watched.monitor.alarms()
    assert "sharpness" in next(a.message for a in first if a.code == "drift-inputs")
    watched.log.kept += recent(60, 500, seed=3, sharpness=0.6)
    watched.monitor.refresh()
    since = {alarm.code: alarm.since for alarm in first}
    for alarm in watched.monitor.alarms():
        assert alarm.since == since.get(alarm.code, alarm.since)
    watched.log.kept += recent(250, 300, seed=4)
    watched.monitor.refresh()
    assert codes(watched.monitor) == []


def test_it_looks_again_only_when_a_quarter_of_the_window_is_new(watched: Any) -> None:
    watched.log.kept = recent(150, 900)
    watched.monitor.refresh()
    first = watched.monitor.snapshot.drift
    watched.log.kept += recent(49, 400, seed=2, sharpness=1.0)
    watched.monitor.refresh()
    assert watched.monitor.snapshot.drift is first
    watched.log.kept += recent(1, 300, seed=3)
    watched.monitor.refresh()
    assert watched.monitor.snapshot.drift is not first


def test_a_new_reference_or_a_day_is_reason_to_look(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.log.kept = recent(150, 900)
    watched.monitor.refresh()
    first = watched.monitor.snapshot.drift
    watched.holder.current = engine(reference(60, seed=9))
    watched.monitor.refresh()
    assert watched.monitor.snapshot.drift.reference_patients == 60
    second = watched.monitor.snapshot.drift
    watched.monitor.refresh()
    assert watched.monitor.snapshot.drift is second is not first
    monkeypatch.setattr(module, "LOOK_AFTER", timedelta(0))
    watched.monitor.refresh()
    assert watched.monitor.snapshot.drift is not second


def test_without_a_model_or_a_reference_nothing_is_made_up(watched: Any) -> None:
    watched.log.kept = recent(300, 900, sharpness=1.0)
    watched.holder.current = engine(None)
    watched.monitor.refresh()
    assert watched.monitor.snapshot.drift.kinds == ()
    watched.holder.current = engine(None, profile=None)
    watched.monitor.refresh()
    assert watched.monitor.snapshot.drift.reference_patients is None
    watched.holder.current = None
    watched.monitor.refresh()
    assert watched.monitor.snapshot.version is None
    assert codes(watched.monitor) == []


def test_a_broken_promise_is_an_alarm_with_its_figures(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = drawn(300, 0.7, 0.7)
    mine = [SimpleNamespace(**{**vars(o), "model_digest": MODEL.digest}) for o in outcomes]
    monkeypatch.setattr(module, "confirmed_outcomes", lambda *_, **__: tuple(mine))
    watched.monitor.refresh()
    assert codes(watched.monitor) == ["performance-low"]
    (alarm,) = watched.monitor.alarms()
    assert "sensitivity is 0.6" in alarm.message
    assert "promised 0.95" in alarm.message
    assert "specificity" not in alarm.message
    others = [SimpleNamespace(**{**vars(o), "model_digest": "9" * 64}) for o in outcomes]
    monkeypatch.setattr(module, "confirmed_outcomes", lambda *_, **__: tuple(others))
    watched.monitor.refresh()
    assert codes(watched.monitor) == []  # another model's answers: months show them, no alarm
    assert len(watched.monitor.snapshot.months) > 0


def test_without_a_policy_no_confirmed_case_is_told_of(
    watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [
        SimpleNamespace(**{**vars(o), "model_digest": MODEL.digest}) for o in drawn(300, 0.7, 0.7)
    ]
    monkeypatch.setattr(module, "confirmed_outcomes", lambda *_, **__: tuple(mine))
    for content in (None, "minimum_cell = 'none'\n", "minimum_cell = 1000\n"):
        if content is None:
            watched.policy.unlink()
        else:
            watched.policy.write_text(content)
        watched.monitor.refresh()
        found = watched.monitor.snapshot
        assert found.recent is None or all(f.interval is None for f in found.recent.figures)
        assert all(f.interval is None for month in found.months for f in month.figures)
        assert found.fairness.groups == ()
    assert codes(watched.monitor) == []


def test_trouble_is_an_alarm_and_hides_none_that_stood(watched: Any) -> None:
    watched.log.kept = recent(150, 900, sharpness=0.6)
    watched.monitor.refresh()
    watched.log.trouble = StoreError("gone", code="store-unavailable")
    watched.monitor.refresh()
    assert sorted(codes(watched.monitor)) == ["drift-inputs", "monitoring-failed"]
    assert watched.monitor.failures == 1
    watched.log.trouble = RuntimeError("with a patient's name")
    watched.monitor.refresh()
    assert not any("patient's" in alarm.message for alarm in watched.monitor.alarms())
    watched.log.trouble = None
    watched.monitor.refresh()
    assert codes(watched.monitor) == ["drift-inputs"]


def test_the_thread_refreshes_and_stops(watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_SECONDS", 0.01)
    before = threading.active_count()
    watched.monitor.start()
    deadline = time.monotonic() + 20
    while watched.monitor.snapshot is None and time.monotonic() < deadline:
        time.sleep(0.01)
    watched.monitor.stop()
    assert watched.monitor.snapshot is not None
    assert threading.active_count() == before


def test_the_promise_is_the_site_s_own_where_it_has_one() -> None:
    assert promise_of(engine(None)) == Promise(0.95, 0.5, 0.7, 0.5)
    point = SimpleNamespace(wanted_sensitivity=0.98, specificity=SimpleNamespace(low=0.4))
    own = SimpleNamespace(drift=None, operating_point=point)
    assert promise_of(engine(None, profile=own)) == Promise(0.98, 0.4, 0.7, 0.5)
    assert promise_of(engine(None, head_digest="c" * 64)) == Promise()
    bare = SimpleNamespace(
        metrics=SimpleNamespace(
            candidate=SimpleNamespace(macro_auroc=None), operating=None, calibration_error=None
        )
    )
    assert promise_of(engine(None, manifest=bare)) == Promise()
