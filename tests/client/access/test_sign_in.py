"""Signing in and out: cookies, foreign pages, guessing, and what ends a session."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import text

from client.access.people import People
from client.access.roles import Role
from client.api.sign_in import safe_target
from common.accounts import passwords
from common.accounts.throttle import FREE_BY_ACCOUNT
from common.audit_entries import AccountChanged
from common.database import open_database
from tests.client.access.conftest import OWN, PASSWORD, GuardedSite
from tests.client.serving import picture


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_hasher", passwords.PasswordHasher(1, 64, 1))
    monkeypatch.setattr(passwords, "_made", [])


@pytest.fixture
def house(guarded: GuardedSite) -> GuardedSite:
    guarded.site.services.access.people.add("dr-house", [Role.clinician], password=PASSWORD)
    return guarded


def cookie_of(answer: httpx.Response) -> dict[str, str]:
    header = answer.headers["set-cookie"]
    found = re.match(r"([^=]+)=([^;]+);", header)
    assert found is not None
    return {"cookie": f"{found[1]}={found[2]}"}


def test_a_person_signs_in_works_and_signs_out(house: GuardedSite) -> None:
    answer = house.sign_in()
    assert (answer.status_code, answer.headers["location"]) == (303, "/model")
    newest = house.site.services.access.audit.newest("account")
    assert newest is not None
    assert newest.entry() == AccountChanged(account="dr-house", change="signed-in", by="dr-house")
    header = answer.headers["set-cookie"].lower()
    assert "httponly" in header
    assert "samesite=strict" in header
    session = cookie_of(answer)
    site = house.site
    assert site.call("GET", "/model", headers=session).status_code == 200
    stored = site.call(
        "POST", "/cases", files={"image": ("x.png", picture())}, headers=session | OWN
    )
    assert stored.status_code == 201
    assert site.call("GET", "/metrics", headers=session).status_code == 403
    assert site.call("POST", "/sign-out", headers=session | OWN).status_code == 303
    assert site.call("GET", "/model", headers=session).status_code == 401


def test_over_tls_the_cookie_goes_nowhere_else(house: GuardedSite) -> None:
    form = {"name": "dr-house", "password": PASSWORD}
    answer = house.site.call("POST", "/sign-in", data=form, headers={"origin": "https://127.0.0.1"})
    header = answer.headers["set-cookie"]
    assert header.startswith("__Host-wardround-session=")
    assert "secure" in header.lower()
    assert "domain" not in header.lower()
    session = cookie_of(answer)
    assert house.site.call("GET", "/model", headers=session).status_code == 200


def test_over_tls_a_cookie_that_anybody_could_set_opens_nothing(house: GuardedSite) -> None:
    planted = cookie_of(house.sign_in())
    assert planted["cookie"].startswith("wardround-session=")
    assert house.site.call("GET", "/model", headers=planted).status_code == 200
    assert house.site.call("GET", "https://127.0.0.1/model", headers=planted).status_code == 401
    proxied = planted | {"x-forwarded-proto": "https"}
    assert house.site.call("GET", "/model", headers=proxied).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1"},
        {"sec-fetch-site": "none"},
    ],
)
def test_a_session_changes_nothing_for_a_foreign_page(
    house: GuardedSite, headers: dict[str, str]
) -> None:
    session = cookie_of(house.sign_in())
    files = {"image": ("x.png", picture())}
    answer = house.site.call("POST", "/cases", files=files, headers=session | headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "cross-origin")
    assert house.site.call("POST", "/sign-out", headers=session | headers).status_code == 403
    form = {"name": "dr-house", "password": PASSWORD}
    assert house.site.call("POST", "/sign-in", data=form, headers=headers).status_code == 403
    assert house.site.services.store.counts("dermoscopy").waiting == 0


def test_a_wrong_name_and_a_wrong_password_look_alike_and_are_slowed_down(
    house: GuardedSite,
) -> None:
    wrong = house.sign_in(password="not this one at all")
    nobody = house.sign_in(name="dr-wilson")
    assert wrong.status_code == nobody.status_code == 401
    assert wrong.text == nobody.text
    statuses = [house.sign_in(password=f"guess {n}").status_code for n in range(20)]
    assert statuses[-1] == 429
    assert statuses.count(401) <= FREE_BY_ACCOUNT
    even = house.sign_in()
    assert even.status_code == 429, "the right one must wait as well"
    assert int(even.headers["Retry-After"]) >= 1


def test_browsers_are_led_to_the_form_and_scripts_are_told(house: GuardedSite) -> None:
    page = house.site.call("GET", "/", headers={"accept": "text/html,*/*"})
    assert (page.status_code, page.headers["location"]) == (303, "/sign-in?next=%2F")
    assert house.site.call("GET", "/", headers={"accept": "application/json"}).status_code == 401
    form = house.site.call("GET", "/sign-in?next=/model")
    assert 'name="next" value="/model"' in form.text
    assert "<script" not in form.text
    assert "style=" not in form.text


def test_the_form_says_how_to_make_the_first_user(house: GuardedSite) -> None:
    access = house.site.services.access
    assert "wardround site user add" not in house.site.call("GET", "/sign-in").text
    access.people.remove("dr-house")
    for role in Role:
        access.keys.remove(f"{role}-key")
    assert "wardround site user add" in house.site.call("GET", "/sign-in").text
    assert house.sign_in().status_code == 401, "there is no password that works before one is made"


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example", "/\\evil.example", "/a//b", "evil", "/a\nb", ""],
)
def test_nobody_is_sent_elsewhere(target: str) -> None:
    assert safe_target(target) == "/"


def test_what_ends_a_session(house: GuardedSite) -> None:
    people, site = house.site.services.access.people, house.site

    def alive(session: dict[str, str]) -> bool:
        return site.call("GET", "/model", headers=session).status_code == 200

    first = cookie_of(house.sign_in())
    second = cookie_of(
        site.call(
            "POST", "/sign-in", data={"name": "dr-house", "password": PASSWORD}, headers=OWN | first
        )
    )
    assert (alive(first), alive(second)) == (False, True), "a new sign-in replaces the old session"
    people.set_password("dr-house", "another horse battery")
    assert not alive(second)
    third = cookie_of(house.sign_in(password="another horse battery"))
    assert alive(third)
    people.remove("dr-house")
    assert not alive(third)


def new_password(people: People) -> None:
    people.set_password("dr-house", "another horse battery")


def away_and_back(people: People) -> None:
    people.remove("dr-house")
    people.add("dr-house", [Role.clinician], password=PASSWORD)


@pytest.mark.parametrize("change", [new_password, away_and_back])
def test_what_ends_sessions_ends_a_sign_in_whose_password_is_being_checked(
    house: GuardedSite, monkeypatch: pytest.MonkeyPatch, change: Callable[[People], None]
) -> None:
    access = house.site.services.access

    def slow(_known: str | None, password: str) -> bool:
        change(access.people)
        return password == PASSWORD

    with monkeypatch.context() as waiting:
        waiting.setattr("client.access.people.matches", slow)
        answer = house.sign_in()
    assert answer.status_code == 401
    assert "name or the password is wrong" in answer.text
    assert "set-cookie" not in answer.headers
    assert access.people.alive() == set()
    assert access.audit.newest("account") is None


def test_idle_and_old_sessions_end(house: GuardedSite) -> None:
    people = house.site.services.access.people
    now, (dr_house,) = people._clock(), people.all()
    idle, life = timedelta(minutes=30), timedelta(hours=12)
    secret = people.open_session(dr_house, life=life)
    for minutes, alive in ((29, True), (58, True), (89, False)):
        people._clock = lambda minutes=minutes: now + timedelta(minutes=minutes)  # type: ignore[misc]
        assert (people.caller(secret, idle=idle) is not None) == alive, minutes
    people._clock = lambda: now
    secret = people.open_session(dr_house, life=life)
    people._clock = lambda: now + life
    assert people.caller(secret, idle=timedelta(days=9)) is None


def test_the_database_gives_nothing_away(house: GuardedSite) -> None:
    secret = cookie_of(house.sign_in())["cookie"].partition("=")[2]
    key = house.keys[Role.it]
    engine = open_database(house.site.services.settings.database)
    with engine.connect() as connection:
        rows = [
            str(connection.execute(text(f"SELECT * FROM {table}")).all())
            for table in ("site_accounts", "site_sessions", "site_keys")
        ]
    engine.dispose()
    for row in rows:
        assert secret not in row
        assert key not in row
        assert key.removeprefix("wrk_") not in row
        assert PASSWORD not in row
    assert "argon2id" in rows[0]
