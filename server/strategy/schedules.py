"""Learning-rate schedules over a campaign's rounds, as factors of the rate in the recipe."""

from __future__ import annotations

import math
from typing import Literal, assert_never

Schedule = Literal["constant", "one_cycle", "cosine_restarts"]

WARM_UP = 0.3
START_DIVISOR = 25.0
END_DIVISOR = 25.0 * 1e4
RESTART_CYCLES = 3


def factor(schedule: Schedule, *, number: int, rounds: int) -> float:
    """Return the factor, in [0, 1], for a round.

    Parameters
    ----------
    schedule : {"constant", "one_cycle", "cosine_restarts"}
        ``one_cycle`` is that of Smith and Topin 2017 (arXiv:1708.07120) with torch's defaults:
        from 1/25 up over 30 % of the rounds, then down to nearly 0, on cosines.
        ``cosine_restarts`` is SGDR (Loshchilov and Hutter 2016, arXiv:1608.03983): three cycles,
        each twice as long as the one before.
    number : int
        The round, from 1.
    rounds : int
        Of the whole campaign.
    """
    position = min(max(number, 1), rounds) - 1
    if schedule == "constant":
        return 1.0
    if schedule == "one_cycle":
        return _one_cycle(position, rounds)
    if schedule == "cosine_restarts":
        return _cosine_restarts(position, rounds)
    assert_never(schedule)


def _one_cycle(position: int, rounds: int) -> float:
    # Of one to three rounds, none is left to warm up in: torch's formula would begin at the end.
    peak = max(0.0, WARM_UP * rounds - 1)
    if position <= peak:
        return _cosine(1 / START_DIVISOR, 1.0, position / peak if peak > 0 else 1.0)
    return _cosine(1.0, 1 / END_DIVISOR, (position - peak) / (rounds - 1 - peak))


def _cosine_restarts(position: int, rounds: int) -> float:
    length = max(1, math.ceil(rounds / (2**RESTART_CYCLES - 1)))
    while position >= length:
        position -= length
        length *= 2
    return _cosine(1.0, 0.0, position / length)


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, fraction))) / 2
