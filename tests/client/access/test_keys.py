"""Programs' keys, and names: shown once, revoked at once, one name one caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from client.access import keys as keys_module
from client.access import names
from client.access import people as people_module
from client.access.endings import KeyEndings
from client.access.keys import LIFE, WARN, Keys
from client.access.names import digest_of
from client.access.people import People
from client.access.roles import Role
from client.cases.store import MIGRATIONS
from common.accounts.identity import Identity, SignInRefused
from common.database import migrate, open_database
from common.errors import InputRefused, NotFound
from tests.client.access.conftest import GuardedSite


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_database(database_url)
    migrate(opened, MIGRATIONS)
    yield opened
    opened.dispose()


class Clock:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_a_key_is_its_secret_alone_and_its_use_a_day(engine: Engine) -> None:
    clock = Clock()
    keys = Keys(engine, clock=clock)
    secret = keys.add("pacs", [Role.clinician, Role.it])
    assert len(secret) >= 43
    found = keys.caller(secret)
    assert found is not None
    assert (found.name, found.roles) == ("pacs", {Role.clinician, Role.it})
    for other in (secret[:-1], secret + "x", secret.upper(), "", "pacs", "\ud800"):
        assert keys.caller(other) is None
    assert keys.all()[0].last_used == date(2026, 3, 1)
    clock.now = clock.now.replace(hour=23)
    keys.caller(secret)
    assert keys.all()[0].last_used == date(2026, 3, 1)
    keys.remove("pacs")
    assert keys.caller(secret) is None
    with pytest.raises(NotFound):
        keys.remove("pacs")


def test_a_key_ends_and_hospital_it_hears_of_it_before(engine: Engine) -> None:
    clock = Clock()
    keys = Keys(engine, clock=clock)
    endings = KeyEndings(keys)
    secret = keys.add("pacs", [Role.clinician])
    endless = keys.add("receiver", [Role.clinician], life=None)
    assert {key.name: key.ends_at for key in keys.all()} == {
        "pacs": clock.now + LIFE,
        "receiver": None,
    }
    begun = clock.now
    for moment, may, told in (
        (begun, True, False),
        (begun + LIFE - WARN - timedelta(seconds=1), True, False),
        (begun + LIFE - WARN, True, True),
        (begun + LIFE - timedelta(seconds=1), True, True),
        (begun + LIFE, False, True),
    ):
        clock.now = moment
        assert (keys.caller(secret) is not None) == may
        assert (digest_of(secret) in keys.alive()) == may
        assert keys.caller(endless) is not None
        endings.look()
        assert [alarm.code for alarm in endings.alarms()] == ["key-ending"] * told
    assert "pacs" not in endings.alarms()[0].message
    keys.remove("pacs")
    endings.look()
    assert endings.alarms() == ()


def test_a_user_and_a_key_never_share_a_name(engine: Engine) -> None:
    keys, people = Keys(engine), People(engine)
    keys.add("pacs", [Role.it])
    people.add("anna", [Role.auditor], password="correct horse battery")
    for make in (
        lambda name: keys.add(name, [Role.it]),
        lambda name: people.add(name, [Role.it], password="correct horse battery"),
    ):
        for name in ("pacs", "anna"):
            with pytest.raises(InputRefused) as refused:
                make(name)
            assert refused.value.code == "account-exists"
        for name in ("local", "Anna", "a", "x" * 64, "a b", "console-root", ""):
            with pytest.raises(InputRefused) as refused:
                make(name)
            assert refused.value.code == "account-name"
    with pytest.raises(InputRefused) as refused:
        keys.add("nothing", [])
    assert refused.value.code == "account-role"
    with pytest.raises(InputRefused) as refused:
        people.add("weak", [Role.it], password="short")
    assert refused.value.code == "password-weak"


def test_not_even_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(session: Session, name: str) -> None:
        names.check_new(session, name)
        time.sleep(0.2)

    for module in (keys_module, people_module):
        monkeypatch.setattr(module, "check_new", slowly)
    keys, people = Keys(engine), People(engine)

    def add(make: Callable[[], object]) -> str:
        try:
            make()
        except InputRefused as refused:
            return refused.code
        return "made"

    makers = (
        lambda: keys.add("anna", [Role.it]),
        lambda: people.add("anna", [Role.it], password="correct horse battery"),
    )
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(add, makers)) == ["account-exists", "made"]


def test_a_provider_gives_roles_and_takes_them_away(engine: Engine) -> None:
    people = People(engine)
    who = Identity("https://login.example", "42", "Dr. House")
    person = people.admit(who, frozenset({Role.clinician}))
    name = person.name
    assert name.startswith("dr.-house.")
    assert people.admit(who, frozenset({Role.it})).name == name
    assert people.all()[0].roles == {Role.it}
    assert not people.verify(name, "")
    with pytest.raises(InputRefused, match="identity provider"):
        people.set_password(name, "correct horse battery")
    begun = people.admit(who, frozenset({Role.it}))
    with pytest.raises(SignInRefused):
        people.admit(who, frozenset())
    with pytest.raises(SignInRefused, match="changed"):
        people.open_session(begun, life=timedelta(hours=1))
    twin = people.admit(Identity("https://login.example", "43", "Dr. House"), frozenset({Role.it}))
    assert twin.name != name


def test_a_revoked_key_is_refused_by_the_running_service(guarded: GuardedSite) -> None:
    assert guarded.call("GET", "/model", Role.it).status_code == 200
    Keys(open_database(guarded.site.services.settings.database)).remove("it-key")
    assert guarded.call("GET", "/model", Role.it).status_code == 401


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer nonsense", "bearer \x00", "wrk_x"]
)
def test_what_is_no_key_is_401_and_never_falls_back(guarded: GuardedSite, header: str) -> None:
    headers = {"authorization": header}
    assert guarded.site.call("GET", "/model", headers=headers).status_code == 401


def test_callers_are_slowed_down_apart(guarded: GuardedSite) -> None:
    limits = guarded.site.services.access.limits
    assert limits is not None
    limits._burst, limits._rate = 3.0, 0.001  # on a busy machine a token is soon there again
    statuses = [guarded.call("GET", "/model", Role.it).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    answer = guarded.call("GET", "/model", Role.it)
    assert int(answer.headers["retry-after"]) >= 1
    assert guarded.call("GET", "/model", Role.auditor).status_code == 200
    wrong = {"authorization": "Bearer wrong"}
    statuses = [guarded.site.call("GET", "/model", headers=wrong).status_code for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429], "guesses count against the address"
    assert all(use.open == 0 for use in limits._uses.values())
