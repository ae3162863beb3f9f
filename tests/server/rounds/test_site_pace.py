"""Deadlines by site, out of what is on record."""

from __future__ import annotations

from server.registry.records import Contribution, Outcome
from server.rounds.site_pace import FLOOR_SECONDS, MULTIPLE, SitePace

LONGEST = 3600.0


def told(site: str, number: int, seconds: float, outcome: Outcome = "accepted") -> Contribution:
    return Contribution("c", number, site, 1, outcome, seconds=seconds)


SLOW = [told("slow", n, 100.0) for n in (1, 2, 3)]
QUICK = [told("quick", n, 1.0) for n in (1, 2, 3)]


def test_each_site_is_waited_for_as_it_was() -> None:
    pace = SitePace([*SLOW, *QUICK], maximum=LONGEST)
    assert pace.allowed("slow", 1) == MULTIPLE * 100
    assert pace.allowed("quick", 1) == FLOOR_SECONDS
    assert pace.allowed("slow", 2) == 2 * MULTIPLE * 100
    assert pace.allowed("new", 1) == LONGEST
    assert SitePace(SLOW, maximum=90).allowed("slow", 5) == 90


def test_a_silent_site_gets_what_the_slowest_other_would() -> None:
    hung = told("hung", 3, 0.0, "late")
    pace = SitePace([*SLOW, *QUICK, hung], maximum=LONGEST)
    assert pace.allowed("hung", 1) == MULTIPLE * 100
    assert SitePace([hung], maximum=LONGEST).allowed("hung", 1) == LONGEST


def test_quick_rounds_say_nothing_of_scoring_a_whole_holdout() -> None:
    hung = told("hung", 3, 0.0, "late")
    pace = SitePace([*SLOW, *QUICK, hung], maximum=LONGEST, alike=False)
    assert pace.allowed("quick", 1) == pace.allowed("slow", 1) == LONGEST
    assert pace.allowed("hung", 1) == MULTIPLE * 100
