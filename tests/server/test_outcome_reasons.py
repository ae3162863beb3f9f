"""No code stands in the record that nobody can explain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server import rounds
from server.outcome_reasons import OUTCOME_REASONS
from server.rounds.replies import FLOWER_ERRORS
from tests.server.rounds.buffered import ledgered


def test_every_outcome_has_words() -> None:
    found = {"site-failed", *FLOWER_ERRORS.values()}
    for path in Path(rounds.__path__[0]).glob("*.py"):
        text = path.read_text("utf-8")
        found |= set(re.findall(r'UpdateRefused\([^()]*code="([a-z-]+)"', text))
        found |= set(re.findall(r'Answer\(\s*"(?:late|absent|failed)", "([a-z-]+)"', text))
        found |= set(re.findall(r'outcome="failed", code="([a-z-]+)"', text))
    assert len(found) > 20
    assert sorted(found - OUTCOME_REASONS.keys()) == []


def test_a_training_that_was_cut_off_is_named_and_the_site_joins_the_next_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from deploy.commands.registry import show_campaign

    made, behaviours = ledgered(tmp_path, 1.0, 1.0, 1.0)
    behaviours["c"].loses = (2,)
    campaign = made.create(rounds=3)
    made.run(campaign)
    told = [c for c in made.registry.contributions(campaign.id) if c.site == "c" and c.round < 4]
    assert [(c.round, c.outcome, c.code) for c in told] == [
        (1, "accepted", None),
        (2, "refused", "training-lost"),
        (3, "accepted", None),
    ]
    assert behaviours["c"].trained == [1, 2, 3], "no round twice"
    show_campaign(campaign.id, made.settings.folder)
    shown = " ".join(capsys.readouterr().out.split())
    assert "training-lost: The site began to train this round and was cut off" in shown
