"""Guessers wait, and shut nobody out who signed in from where they are before."""

from __future__ import annotations

import pytest

from common.accounts.throttle import (
    FREE_BY_ACCOUNT,
    FREE_BY_ADDRESS,
    KNOWN_SECONDS,
    LONGEST_WAIT_SECONDS,
    MOST_KEYS,
    Throttle,
    _Tries,
)
from common.errors import Busy, TooMany


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def guess(throttle: Throttle, account: str, address: str, tries: int) -> None:
    for _ in range(tries):
        try:
            throttle.attempt(account, address)
        except Busy:
            return


def test_strangers_do_not_shut_an_owner_out_at_their_own_place() -> None:
    clock = Clock()
    throttle = Throttle(clock=clock)
    throttle.attempt("anna", "ward")
    throttle.succeeded("anna", "ward")
    guess(throttle, "anna", "elsewhere", 50)
    with pytest.raises(Busy):
        throttle.attempt("anna", "home")
    throttle.attempt("anna", "ward")
    clock.now = KNOWN_SECONDS + 1
    guess(throttle, "anna", "elsewhere", 50)
    with pytest.raises(Busy):
        throttle.attempt("anna", "ward")


def test_who_guesses_beside_an_owner_behind_one_address_does_not_either() -> None:
    throttle = Throttle(clock=Clock())
    throttle.succeeded("anna", "proxy")
    for number in range(FREE_BY_ADDRESS + 5):
        guess(throttle, f"name{number}", "proxy", 1)
    with pytest.raises(Busy):
        throttle.attempt("bert", "proxy")
    throttle.attempt("anna", "proxy")


def test_a_known_place_has_no_more_guesses_than_another() -> None:
    throttle = Throttle(clock=Clock())
    throttle.succeeded("anna", "ward")
    for _ in range(FREE_BY_ACCOUNT):
        throttle.attempt("anna", "ward")
    with pytest.raises(Busy):
        throttle.attempt("anna", "ward")


def test_the_memory_of_successes_is_bounded() -> None:
    throttle = Throttle(clock=Clock())
    for number in range(MOST_KEYS + 10):
        throttle.succeeded("anna", str(number))
    assert len(throttle._succeeded) == MOST_KEYS


def test_nobody_is_told_to_wait_no_time() -> None:
    clock = Clock()
    throttle = Throttle(clock=clock)
    guess(throttle, "anna", "ward", FREE_BY_ACCOUNT)
    clock.now = 0.7
    with pytest.raises(Busy) as caught:
        throttle.attempt("anna", "ward")
    assert "Wait 1 s" in caught.value.line()


def test_who_must_wait_is_told_for_how_long() -> None:
    clock = Clock()
    throttle = Throttle(clock=clock)
    for number in range(4):
        for _ in range(FREE_BY_ACCOUNT if number == 0 else 1):
            throttle.attempt("anna", "ward")
        with pytest.raises(TooMany) as told:
            throttle.attempt("anna", "ward")
        assert told.value.retry_seconds == 2.0**number
        clock.now += told.value.retry_seconds


def guess_until_the_longest_wait(throttle: Throttle, clock: Clock, tries: int) -> TooMany:
    """Guess at anna, as soon as it is allowed each time; return why one try more was refused."""
    for _ in range(tries):
        try:
            throttle.attempt("anna", "ward")
        except TooMany as told:
            clock.now += told.retry_seconds
            throttle.attempt("anna", "ward")
    with pytest.raises(TooMany) as last:
        throttle.attempt("anna", "ward")
    return last.value


def test_the_wait_stays_the_longest_however_many_tries_there_were() -> None:
    told = guess_until_the_longest_wait(Throttle(clock=(clock := Clock())), clock, tries=1200)
    assert told.retry_seconds == LONGEST_WAIT_SECONDS


def test_refused_tries_push_out_nobodys_count() -> None:
    clock = Clock()
    throttle = Throttle(clock=clock)
    guess_until_the_longest_wait(throttle, clock, tries=20)
    guess(throttle, "bert", "elsewhere", 50)
    before = set(throttle._tries)
    for number in range(MOST_KEYS + 1):
        guess(throttle, "bert", f"from{number}", 1)
    for number in range(MOST_KEYS + 1):
        guess(throttle, f"name{number}", "ward", 1)
    assert set(throttle._tries) == before
    with pytest.raises(TooMany):
        throttle.attempt("anna", "home")


def test_tries_from_many_addresses_push_out_no_count_that_waits() -> None:
    clock = Clock()
    throttle = Throttle(clock=clock)
    guess_until_the_longest_wait(throttle, clock, tries=20)
    for number in range(MOST_KEYS + 1):
        throttle.attempt(f"name{number}", f"from{number}")
    assert len(throttle._tries) == MOST_KEYS
    with pytest.raises(TooMany):
        throttle.attempt("anna", "home")


def test_where_all_wait_the_one_whose_wait_ends_first_makes_room() -> None:
    throttle = Throttle(clock=Clock())
    for number in range(MOST_KEYS):
        throttle._tries["account", f"name{number}"] = _Tries(until=900.0 - number / MOST_KEYS)
    throttle.attempt("other", "home")
    assert len(throttle._tries) == MOST_KEYS
    assert {("account", "other"), ("address", "home"), ("account", "name0")} <= set(throttle._tries)
    assert not {("account", f"name{MOST_KEYS - n}") for n in (1, 2)} & set(throttle._tries)
