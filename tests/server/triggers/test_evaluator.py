"""Triggers on a real registry: each fires once, whatever the clock, crashes and rivals do."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.database import open_database
from common.errors import InputRefused, NotFound, RoundFailed
from common.recipe import load_recipe
from server.triggers.creation import create_in_child
from server.triggers.evaluator import TriggerEvaluator
from server.triggers.rules import NewCasesRule, Rule, ScheduleRule
from server.triggers.store import Trigger, TriggerPlan, TriggerStore
from tests.fakes import FakeSite, toy_recipe
from tests.server.campaigns import Coordinator

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
DAILY = ScheduleRule(cron="30 11 * * *")


@dataclass
class Federation:
    """A coordinator's registry, its triggers, a clock, and campaigns that end when told."""

    coordinator: Coordinator
    store: TriggerStore = field(init=False)
    now: datetime = NOON
    fails: Exception | None = None

    def __post_init__(self) -> None:
        self.store = TriggerStore(open_database(self.coordinator.settings.database))

    @property
    def evaluator(self) -> TriggerEvaluator:
        return TriggerEvaluator(self.store, self.create, clock=lambda: self.now)

    def create(self, trigger: Trigger) -> str:
        if self.fails is not None:
            raise self.fails
        return self.coordinator.create(trigger.recipe).id

    def add(self, rule: Rule = DAILY, name: str = "monthly", **changes: object) -> Trigger:
        trigger = Trigger(
            name=name, rule=rule, recipe=toy_recipe(), plan=TriggerPlan(), starts=False,
            approved_by=None, created_at=self.now, looked_at=self.now, standing=None,
        )  # fmt: skip
        trigger = replace(trigger, **changes)  # type: ignore[arg-type]
        self.store.add(trigger)
        return trigger

    def end(self, campaign: str) -> None:
        self.coordinator.registry.moves.cancel(campaign)

    def later(self, **delta: float) -> tuple[str, ...]:
        self.now += timedelta(**delta)
        return self.evaluator.look()


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(Coordinator(tmp_path, [FakeSite("north"), FakeSite("south")]))


def test_a_schedule_fires_once_a_day_and_says_why(federation: Federation) -> None:
    federation.add()
    assert federation.evaluator.look() == ()
    (campaign,) = federation.later(days=1)
    assert federation.later(minutes=1) == ()
    (firing,) = federation.store.firings()
    assert (firing.state, firing.campaign) == ("fired", campaign)
    assert "2026-03-11 11:30" in firing.reason
    federation.end(campaign)
    assert len(federation.later(days=3)) == 1  # three were missed: one campaign


def test_a_clock_that_jumps_fires_nothing_twice(federation: Federation) -> None:
    federation.add()
    for campaign in federation.later(days=1):
        federation.end(campaign)
    assert federation.later(days=-1) == ()
    assert federation.later(days=1) == ()
    for campaign in federation.later(days=400):  # far ahead, and back again
        federation.end(campaign)
    assert federation.later(days=-400) == ()
    assert federation.later(minutes=1) == ()
    assert len(federation.later(days=1)) == 1
    slots = [firing.slot for firing in federation.store.firings()]
    assert len(slots) == len(set(slots)) == 3


def test_one_task_never_has_two_campaigns_at_once(federation: Federation) -> None:
    federation.add()
    federation.add(name="rival")
    federation.add(name="other", recipe=toy_recipe().model_copy(update={"name": "other"}))
    made = federation.later(days=1)
    assert len(made) == 2  # one a task
    standing = federation.store.get("rival").standing or ""
    assert f"campaign {made[0]} is created" in standing or "campaign" in standing
    assert "left out" in standing
    with pytest.raises(RoundFailed) as refused:
        federation.evaluator.fire("monthly")
    assert refused.value.code == "task-busy"


def test_reports_of_new_cases_wait_for_the_campaign_in_progress(federation: Federation) -> None:
    federation.add(NewCasesRule(cases=100), name="cases")
    federation.now = datetime.now(UTC) + timedelta(hours=1)
    running = federation.coordinator.create()
    federation.store.report("north", "toy", "new-cases", 200, now=federation.now)
    assert federation.evaluator.look() == ()
    assert "is created" in (federation.store.get("cases").standing or "")
    federation.end(running.id)
    assert len(federation.later(minutes=1)) == 1
    assert federation.store.get("cases").standing is None


def test_a_failure_is_on_record_and_not_repeated_every_minute(federation: Federation) -> None:
    federation.add()
    federation.fails = InputRefused("no", code="no-good")
    assert federation.later(days=1) == ()
    federation.fails = None
    assert federation.later(minutes=1) == ()
    (firing,) = federation.store.firings()
    assert (firing.state, firing.code) == ("failed", "no-good")
    assert len(federation.later(days=1)) == 1


@pytest.mark.parametrize("created", [True, False])
def test_a_firing_that_a_crash_cut_short_is_settled(federation: Federation, created: bool) -> None:
    federation.now = datetime.now(UTC)
    trigger = federation.add()
    assert federation.store.begin(trigger, "slot", "Because.", now=federation.now)
    campaign = federation.coordinator.create().id if created else None
    assert federation.later(minutes=1) == ()
    assert federation.store.firings()[0].state == "firing"
    federation.later(minutes=20)
    settled = [f for f in federation.store.firings() if f.slot == "slot"]
    assert settled[0].campaign == campaign
    assert settled[0].state == ("fired" if created else "failed")


@pytest.mark.parametrize("created", [True, False])
def test_a_firing_from_the_future_is_settled_at_once(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, created: bool
) -> None:
    """Cut short while the clock was a month ahead: the task is not busy until it is that late."""
    right, ahead = datetime.now(UTC), datetime.now(UTC) + timedelta(days=30)
    federation.now = right
    trigger = federation.add(NewCasesRule(cases=100))
    before = federation.coordinator.create().id
    federation.end(before)
    assert federation.store.begin(trigger, "slot", "Because.", now=ahead)
    campaign = None
    if created:
        with monkeypatch.context() as patch:
            patch.setattr("server.registry.registry.utc_now", lambda: ahead)
            campaign = federation.coordinator.create().id
        federation.end(campaign)
    made = federation.evaluator.fire("monthly")
    assert made not in (before, campaign)
    (settled,) = [f for f in federation.store.firings() if f.slot == "slot"]
    assert (settled.state, settled.campaign) == ("fired" if created else "failed", campaign)


def test_a_firing_from_just_ahead_may_still_go_on(federation: Federation) -> None:
    federation.now = datetime.now(UTC)
    trigger = federation.add(NewCasesRule(cases=100))
    soon = federation.now + timedelta(minutes=1)
    assert federation.store.begin(trigger, "slot", "Because.", now=soon)
    assert federation.evaluator.look() == ()
    assert federation.store.firings()[0].state == "firing"


def test_of_many_that_fire_at_once_one_does(federation: Federation) -> None:
    for name in ("one", "two", "three"):
        federation.add(name=name)
    federation.now += timedelta(days=1)
    made: list[str] = []
    barrier = threading.Barrier(4)

    def look() -> None:
        barrier.wait()
        made.extend(federation.evaluator.look())

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(federation.coordinator.registry.campaigns()) == 1


def test_triggers_are_added_once_and_removed(federation: Federation) -> None:
    federation.add()
    with pytest.raises(InputRefused, match="already"):
        federation.add()
    with pytest.raises(InputRefused) as refused:
        federation.add(name="starting", starts=True)
    assert refused.value.code == "trigger-unapproved"
    federation.store.remove("monthly")
    assert federation.store.all() == ()
    with pytest.raises(NotFound):
        federation.store.remove("monthly")


def test_a_child_process_creates_the_campaign_and_lets_it_go(federation: Federation) -> None:
    recipe = load_recipe("mammography").with_changes(model="test_resnet", image_size=32, rounds=2)
    trigger = federation.add(recipe=recipe, starts=True, approved_by="anna")
    campaign = create_in_child(federation.coordinator.settings, trigger)
    made = federation.coordinator.registry.campaign(campaign)
    assert (made.state, made.settings.rounds) == ("interrupted", 2)
    assert not made.settings.auto_approve


def test_a_child_that_fails_says_why(federation: Federation) -> None:
    trigger = federation.add(recipe=toy_recipe())  # whose network timm does not know
    with pytest.raises(Exception, match="linear") as failed:
        create_in_child(federation.coordinator.settings, trigger)
    assert getattr(failed.value, "code", None) == "model-unknown"


def test_the_service_does_not_load_torch_for_triggers() -> None:
    code = "import sys, server.triggers.creation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
