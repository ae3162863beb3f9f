"""A site's service killed with -9 while it works: nothing acknowledged is lost, and it is back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.site import run

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]
KILLS = 8


def test_nothing_acknowledged_is_lost_to_kills(tmp_path: Path) -> None:
    outcome = run(tmp_path, kills=KILLS, seed=7)
    assert outcome.faults == []
    assert outcome.kills == KILLS
    assert outcome.cases > KILLS, outcome.line()
    assert outcome.confirmed > 0
    assert outcome.predictions > 0
    assert outcome.unaudited <= KILLS, "at most the one that a kill cut off each time"
    assert len(outcome.swaps_seen) > 1, outcome.line()
