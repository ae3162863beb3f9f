"""A campaign whose coordinator is killed with -9 while sites train; the long one is `make soak`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak.chaos import EPSILON, SERVERAPP, federation, run

pytestmark = pytest.mark.journey

SITES = ("north", "south")
KILLED = (SERVERAPP, "superlink", "superexec", "coordinator")


def test_a_campaign_goes_on_whatever_is_killed_at_the_coordinator(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = 20_261_121
    with federation(tmp_path / "here", SITES) as made:
        made.start()
        made.wait_ready()
        outcome = run(made, rounds=3, kills=4, seed=seed, targets=KILLED, pause=(1.0, 5.0))
    record_property("kills", outcome.kills)
    record_property("seconds", round(outcome.seconds, 1))
    assert outcome.faults == [], outcome
    assert outcome.kills, "the campaign was over before anything was killed"
    assert outcome.drivers > 1, "its ServerApp was never killed"
    # Each round was reserved exactly once (`examine`): the epsilon is that of three rounds.
    assert set(outcome.epsilon) == set(SITES)
    assert all(0.9 * EPSILON < spent <= EPSILON for spent in outcome.epsilon.values())
