from __future__ import annotations

import pytest

from client.access.limits import MOST_CALLERS, Limits, TooMany


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(clock: Clock) -> Limits:
    return Limits(per_minute=60, burst=3, at_once=2, clock=clock)


def taken(limits: Limits, caller: str, tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            limits.take(caller)
        except TooMany:
            continue
        count += 1
    return count


def test_a_burst_then_the_rate(limits: Limits, clock: Clock) -> None:
    assert taken(limits, "a", 10) == 3
    clock.now += 2
    assert taken(limits, "a", 10) == 2
    clock.now += 1000
    assert taken(limits, "a", 10) == 3


def test_one_caller_does_not_shut_out_another(limits: Limits) -> None:
    taken(limits, "script", 100)
    limits.take("clinician")


def test_the_wait_that_is_named_is_enough(limits: Limits, clock: Clock) -> None:
    taken(limits, "a", 3)
    clock.now += 0.25
    with pytest.raises(TooMany) as refused:
        limits.take("a")
    clock.now += refused.value.retry_seconds
    limits.take("a")


def test_places_are_given_back(limits: Limits) -> None:
    limits.begin("a")
    limits.begin("a")
    with pytest.raises(TooMany):
        limits.begin("a")
    limits.begin("b")
    limits.end("a")
    limits.begin("a")


def test_many_addresses_do_not_fill_the_memory(limits: Limits) -> None:
    limits.begin("held")
    for number in range(MOST_CALLERS + 100):
        limits.take(f"address {number}")
    assert len(limits._uses) <= MOST_CALLERS + 1
    limits.begin("held")
    with pytest.raises(TooMany):
        limits.begin("held")
