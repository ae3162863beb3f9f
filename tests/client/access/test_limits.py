from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from client.access.limits import MOST_CALLERS, Limits, TooMany
from client.access.settings import AccountSettings
from client.settings import SiteSettings
from common.accounts import passwords
from tests.client.access.conftest import OWN, GuardedSite
from tests.client.serving import FakeReleases, served_site


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


def guesses(site: GuardedSite, name: str, seen_as: str, tries: int) -> list[int]:
    form = {"name": name, "password": "wrong wrong wrong", "next": "/"}
    headers = OWN | {"x-forwarded-for": seen_as}
    return [
        site.site.call("POST", "/sign-in", data=form, headers=headers).status_code
        for _ in range(tries)
    ]


@pytest.fixture
def proxied(settings: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[GuardedSite]:
    monkeypatch.setattr(passwords, "_hasher", passwords.PasswordHasher(1, 64, 1))
    monkeypatch.setattr(passwords, "_made", [])
    accounts = AccountSettings.model_validate({"proxies": ["127.0.0.1"], "burst": 40})
    with served_site(settings.model_copy(update={"accounts": accounts}), FakeReleases()) as made:
        yield GuardedSite(made, {})


def test_behind_a_proxy_that_is_named_nobody_shuts_out_the_others(proxied: GuardedSite) -> None:
    proxied.site.services.access.throttle._clock = lambda: 0.0  # waits do not end meanwhile
    attackers = [guesses(proxied, f"name{n}", "10.9.9.9, 203.0.113.5", 1)[0] for n in range(60)]
    assert attackers[-1] == 429
    assert guesses(proxied, "anna", "203.0.113.6", 1) == [401], "the form is there for others"
    ready = proxied.site.call("GET", "/health/live", headers={"x-forwarded-for": "203.0.113.6"})
    assert ready.status_code == 200
    assert guesses(proxied, "bert", "203.0.113.6, 203.0.113.5", 1) == [429], "who lies is counted"


def test_what_a_stranger_says_of_its_address_counts_for_nothing(
    guarded: GuardedSite, caplog: pytest.LogCaptureFixture
) -> None:
    limits = guarded.site.services.access.limits
    assert limits is not None
    limits._burst, limits._rate = 3.0, 0.001
    caplog.set_level(logging.WARNING)
    statuses = [
        guarded.site.call("GET", "/health/live", headers={"x-forwarded-for": f"10.0.0.{n}"})
        for n in range(5)
    ]
    assert [answer.status_code for answer in statuses] == [200, 200, 200, 429, 429]
    told = [r.getMessage() for r in caplog.records if "proxy-not-trusted" in r.getMessage()]
    assert len(told) == 1
    assert "10.0.0" not in told[0]
