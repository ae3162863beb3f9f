"""The timeline: what each site did in each round, in words and in a mark."""

from __future__ import annotations

from pathlib import Path

from server.pages.charts import Cell, timeline
from server.registry.records import Campaign
from tests.server.campaigns import Coordinator
from tests.server.rounds.buffered import buffered, ledgered


def cells(made: Coordinator, campaign: Campaign, site: str) -> list[Cell]:
    registry = made.registry
    rounds, told = registry.rounds(campaign.id), registry.contributions(campaign.id)
    drawn = timeline(made.sites, rounds, told)
    assert drawn is not None
    return list(next(row for row in drawn.rows if row.site == site).cells)


def test_buffered_rounds_say_how_many_updates_came_and_how_old_they_were(tmp_path: Path) -> None:
    made, _ = ledgered(tmp_path, 1.0, 3.5)
    campaign = buffered(made, rounds=2, size=4)
    made.run(campaign)
    first, second, _ = cells(made, campaign, "a")
    assert first.mark == "3"
    assert "accepted" in first.title
    assert "3 updates" in first.title
    assert "from models" in second.title
    assert "steps old" in second.title


def test_a_round_that_every_site_answered_once_says_no_more_than_before(tmp_path: Path) -> None:
    made, _ = ledgered(tmp_path, 1.0, 1.0)
    campaign = made.create(rounds=1)
    made.run(campaign)
    cell = cells(made, campaign, "a")[0]
    assert cell.mark == "✓"
    assert cell.title == "a, round 1 (train): accepted after 1.0 s"


def test_a_site_that_is_missing_is_explained(tmp_path: Path) -> None:
    made, behaviours = ledgered(tmp_path, 1.0, 1.0, 1.0)
    behaviours["c"].loses = (2,)
    campaign = made.create(rounds=3)
    made.run(campaign)
    cell = cells(made, campaign, "c")[1]
    assert cell.outcome == "refused"
    assert "(training-lost)" in cell.title
    assert "privacy is spent there" in cell.title
