"""Guessers wait, and shut nobody out who signed in from where they are before."""

from __future__ import annotations

import pytest

from common.accounts.throttle import (
    FREE_BY_ACCOUNT,
    FREE_BY_ADDRESS,
    KNOWN_SECONDS,
    MOST_KEYS,
    Throttle,
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
