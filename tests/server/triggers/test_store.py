"""The triggers' store on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from common.database import migrate, open_database
from common.errors import InputRefused, NotFound, RoundFailed
from common.moments import utc_now
from common.records import Forecast, SiteStatus
from server.registry.records import CampaignSettings, SiteForecast, TrainablePhase
from server.registry.registry import MIGRATIONS, Registry
from server.triggers.rules import NewCasesRule, Signal
from server.triggers.store import Trigger, TriggerPlan, TriggerStore
from tests.fakes import toy_recipe

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
TRIGGER = Trigger(
    name="more", rule=NewCasesRule(cases=10), recipe=toy_recipe(), plan=TriggerPlan(rounds=4),
    starts=False, approved_by=None, created_at=NOON, looked_at=NOON, standing=None,
)  # fmt: skip
SETTINGS = CampaignSettings(
    rounds=1, epsilon=None, quorum=2, round_deadline_seconds=10.0,
    phases=(TrainablePhase(first_round=1, scope="all", names=("w",)),),
)  # fmt: skip


@dataclass(frozen=True)
class Kept:
    registry: Registry
    store: TriggerStore

    def campaign(self, **settings: object) -> str:
        changed = SETTINGS.model_copy(update=settings)
        return self.registry.add_campaign(toy_recipe(), changed, initial_digest="d" * 64).id


@pytest.fixture
def kept(database_url: str) -> Iterator[Kept]:
    engine = open_database(database_url)
    migrate(engine, MIGRATIONS)
    registry = Registry(engine)
    yield Kept(registry, TriggerStore(engine))
    registry.close()


def test_a_trigger_comes_back_as_it_was_put(kept: Kept) -> None:
    kept.store.add(TRIGGER)
    assert kept.store.all() == (TRIGGER,)
    assert kept.store.get("more") == TRIGGER
    with pytest.raises(InputRefused, match="already"):
        kept.store.add(TRIGGER)
    with pytest.raises(InputRefused, match="person"):
        kept.store.add(replace(TRIGGER, name="other", starts=True))
    later = NOON + timedelta(hours=1)
    kept.store.mark("more", looked_at=later, standing="It waits.")
    assert kept.store.get("more") == replace(TRIGGER, looked_at=later, standing="It waits.")
    kept.store.remove("more")
    with pytest.raises(NotFound):
        kept.store.get("more")


def test_a_firing_is_one_for_its_slot_and_one_for_its_task(kept: Kept) -> None:
    kept.store.add(TRIGGER)
    other = replace(TRIGGER, name="other")
    kept.store.add(other)
    assert kept.store.begin(TRIGGER, "slot", "Because.", now=NOON)
    assert not kept.store.begin(TRIGGER, "slot", "Because.", now=NOON)
    with pytest.raises(RoundFailed, match="more is firing"):
        kept.store.begin(other, "slot", "Because.", now=NOON)
    kept.store.end("more", "slot", campaign="made")
    (firing,) = kept.store.firings("more")
    assert (firing.state, firing.campaign, firing.fired_at) == ("fired", "made", NOON)
    campaign = kept.campaign()
    with pytest.raises(RoundFailed, match=campaign):
        kept.store.begin(other, "slot", "Because.", now=NOON)


def test_of_many_that_begin_at_once_one_does(kept: Kept) -> None:
    for number in range(4):
        kept.store.add(replace(TRIGGER, name=f"trigger-{number}"))
    begun: list[str] = []
    ready = threading.Barrier(4)

    def begin(trigger: Trigger) -> None:
        ready.wait()
        try:
            if kept.store.begin(trigger, "slot", "Because.", now=NOON):
                begun.append(trigger.name)
        except RoundFailed:
            pass

    threads = [threading.Thread(target=begin, args=(t,)) for t in kept.store.all()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1
    assert [firing.trigger for firing in kept.store.firings()] == begun


def test_what_sites_tell_is_kept_where_they_were_only_asked(kept: Kept) -> None:
    kept.registry.register_site("north", node_id=1, public_key="key")
    trains, asks = kept.campaign(), kept.campaign(only_preflight=True)
    for campaign, floor in ((asks, 20), (trains, 50)):
        told = Forecast(
            site="north", campaign=campaign, nonce="a" * 64, rounds=1, affordable=True,
            status=SiteStatus(new_cases=floor, drift=1),
        )  # fmt: skip
        kept.registry.record_forecasts(campaign, (SiteForecast("north", forecast=told),))
    found = {s.kind: s for s in kept.store.signals("toy")}
    assert {kind: signal.level for kind, signal in found.items()} == {"new-cases": 20, "drift": 1}
    assert isinstance(found["drift"], Signal)
    assert found["drift"].reported_at.tzinfo is not None
    assert kept.store.signals("other") == ()
    newest, poll = kept.store.newest_campaign("toy"), kept.store.newest_poll("toy")
    assert newest is not None
    assert poll is not None
    assert (newest[0], poll[0]) == (trains, asks)
    now = utc_now()
    assert kept.store.is_busy("toy", now=now)
    for campaign in (trains, asks):
        kept.registry.moves.cancel(campaign)
    assert not kept.store.is_busy("toy", now=now)


def test_a_question_that_was_left_where_it_was_created_keeps_nobody_waiting(kept: Kept) -> None:
    """A person's whose command was killed, or a poll's from before creating it was one write."""
    left, now = kept.campaign(only_preflight=True), utc_now()
    days = timedelta(days=30)
    for paused in (False, True):
        if paused:
            kept.registry.moves.pause(left)
        assert kept.store.is_busy("toy", now=now + timedelta(minutes=5))
        assert not kept.store.is_busy("toy", now=now + timedelta(minutes=20))
        assert not kept.store.is_busy("toy", now=now - days), "the clock was set back"
    kept.registry.moves.resume(left)
    assert kept.store.is_busy("toy", now=now + days), "it goes on"
    kept.registry.moves.cancel(left)
    kept.campaign()
    assert kept.store.is_busy("toy", now=now + days), "one that trains is a person's to start"


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (SiteStatus(drift=1, prediction_drift=2), 2),
        (SiteStatus(drift=2, prediction_drift=0), 2),
        (SiteStatus(prediction_drift=0), 0),
    ],
)
def test_drift_of_cases_and_of_answers_is_one_signal(
    kept: Kept, status: SiteStatus, level: int
) -> None:
    kept.registry.register_site("north", node_id=1, public_key="key")
    asks = kept.campaign(only_preflight=True)
    told = Forecast(
        site="north", campaign=asks, nonce="a" * 64, rounds=1, affordable=True, status=status
    )
    kept.registry.record_forecasts(asks, (SiteForecast("north", forecast=told),))
    assert [(s.kind, s.level) for s in kept.store.signals("toy")] == [("drift", level)]


def test_reports_are_of_trained_cases_until_a_campaign_s_end(kept: Kept) -> None:
    assert kept.store.signals_since("toy") is None
    first = kept.campaign()
    assert kept.store.signals_since("toy") == kept.registry.campaign(first).created_at
    kept.registry.start_campaign(first)
    kept.registry.finish_campaign(first)
    finished = kept.store.signals_since("toy")
    assert finished == kept.registry.campaign(first).finished_at
    asks = kept.campaign(only_preflight=True)
    kept.registry.start_campaign(asks)
    kept.registry.finish_campaign(asks)
    assert kept.store.signals_since("toy") == finished
    second = kept.campaign()
    kept.registry.fail_campaign(second, "the quorum was missed")
    assert kept.store.signals_since("toy") == kept.registry.campaign(second).created_at
    assert kept.store.signals_since("other") is None
