"""When a trigger is due, as a pure rule of what is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from server.triggers.rules import (
    RULES,
    DriftRule,
    HandRule,
    NewCasesRule,
    ScheduleRule,
    Signal,
    due,
    next_occurrence,
)

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
DAILY = ScheduleRule(cron="30 11 * * *")
moments = st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))


def scheduled(now: datetime, looked_at: datetime, rule: ScheduleRule = DAILY) -> str | None:
    found = due(rule, now=now, looked_at=looked_at, signals=(), since=None)
    return None if found is None else found.slot


def test_a_schedule_is_due_once_it_comes_round() -> None:
    before = NOON - timedelta(hours=1)
    assert scheduled(NOON, before) == "2026-03-10T11:30Z"
    assert scheduled(before, before - timedelta(minutes=29)) is None
    assert scheduled(NOON, NOON - timedelta(minutes=5)) is None


def test_many_missed_occurrences_are_one() -> None:
    assert scheduled(NOON, NOON - timedelta(days=40)) == "2026-03-10T11:30Z"


@given(moments, moments)
def test_a_clock_that_goes_back_makes_nothing_due(now: datetime, looked_at: datetime) -> None:
    slot = scheduled(now, looked_at)
    if now <= looked_at:
        assert slot is None
    elif slot is not None:
        assert looked_at < datetime.strptime(slot, "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC) <= now


@given(moments, st.lists(st.integers(-5000, 5000), max_size=30))
def test_whatever_the_clock_does_no_slot_is_due_twice_after_its_mark(
    start: datetime, jumps: list[int]
) -> None:
    now, looked_at, fired = start, start, list[str]()
    for minutes in jumps:
        now = now + timedelta(minutes=minutes)
        slot = scheduled(now, looked_at)
        if slot is not None:
            fired.append(slot)
            looked_at = now
    assert len(fired) == len(set(fired))


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "61 * * * *", "0 0 30 2 *", "@daily", "* * * * * *", "a b c d e"]
)
def test_what_is_no_schedule_is_refused(cron: str) -> None:
    with pytest.raises(ValidationError):
        ScheduleRule(cron=cron)


def test_the_next_occurrence_is_told() -> None:
    assert next_occurrence(DAILY, NOON) == datetime(2026, 3, 11, 11, 30, tzinfo=UTC)


def cases(site: str, level: int, hours: float = 0.0) -> Signal:
    return Signal(site, "new-cases", level, NOON - timedelta(hours=hours))


def test_new_cases_are_summed_over_the_sites_that_tell() -> None:
    rule = NewCasesRule(cases=300, sites=2)
    told = [cases("north", 200), cases("south", 100), cases("west", 0)]
    found = due(rule, now=NOON, looked_at=NOON, signals=told, since=None)
    assert found is not None
    assert "2 sites report at least 300" in found.reason
    short = [cases("north", 200), cases("south", 50)]
    assert due(rule, now=NOON, looked_at=NOON, signals=short, since=None) is None
    alone = [cases("north", 500)]
    assert due(rule, now=NOON, looked_at=NOON, signals=alone, since=None) is None


def test_reports_from_before_the_newest_campaign_count_no_more() -> None:
    rule = NewCasesRule(cases=100)
    told = [cases("north", 200, hours=2)]
    assert due(rule, now=NOON, looked_at=NOON, signals=told, since=NOON) is None
    assert due(rule, now=NOON, looked_at=NOON, signals=told, since=NOON - timedelta(hours=3))


def test_drift_counts_sites_at_the_level_and_no_other_kind() -> None:
    rule = DriftRule(sites=2)
    told = [Signal("north", "drift", 2, NOON), Signal("south", "drift", 1, NOON), cases("w", 500)]
    assert due(rule, now=NOON, looked_at=NOON, signals=told, since=None) is None
    told.append(Signal("west", "drift", 2, NOON))
    found = due(rule, now=NOON, looked_at=NOON, signals=told, since=None)
    assert found is not None
    assert found.reason == "Drift is reported by north, west."


def test_a_trigger_by_hand_is_never_due() -> None:
    assert due(HandRule(), now=NOON, looked_at=NOON, signals=[cases("n", 9)], since=None) is None


def test_rules_come_back_from_json() -> None:
    for rule in (DAILY, NewCasesRule(cases=5), DriftRule(), HandRule()):
        assert RULES.validate_json(rule.model_dump_json()) == rule
