"""A trigger's campaign is created and goes, whatever is killed in between."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from common.audit_entries import CampaignMoved
from common.database import open_database
from common.moments import utc_now
from common.recipe import Recipe
from deploy.keeper import Keeper
from server.settings import CoordinatorSettings
from server.triggers.creation import create_poll, create_triggered
from server.triggers.polling import StatusPolls
from server.triggers.rules import NewCasesRule
from server.triggers.store import Trigger, TriggerPlan, TriggerStore
from tests.fakes import FakeSite, toy_recipe
from tests.server.campaigns import Coordinator
from tests.server.test_resume import Killed, killed_at


def recipe() -> Recipe:
    data = toy_recipe(rounds=2).model_dump()
    data["model"] = {"architecture": "test_resnet"}
    data["image"]["size"] = 32
    return Recipe.model_validate(data)


class Made:
    """A coordinator with a trigger that starts campaigns, a keeper, and what it launched."""

    def __init__(self, folder: Path) -> None:
        self.coordinator = Coordinator(folder, [FakeSite("north"), FakeSite("south")])
        self.registry, self.settings = self.coordinator.registry, self.coordinator.settings
        self.store, self.now = TriggerStore(open_database(self.settings.database)), utc_now()
        self.trigger = Trigger(
            name="more", rule=NewCasesRule(cases=10), recipe=recipe(), plan=TriggerPlan(),
            starts=True, approved_by="anna", created_at=self.now, looked_at=self.now, standing=None,
        )  # fmt: skip
        self.store.add(self.trigger)
        self.launched: list[str] = []
        self.keeper = Keeper(self.settings, self.registry, start=self.start)
        self.polls = StatusPolls(self.store, self.ask, clock=lambda: self.now)

    def start(self, _settings: CoordinatorSettings, campaign: str) -> int:
        self.launched.append(campaign)
        return len(self.launched)

    def ask(self, trigger: Trigger) -> str:
        return create_poll(self.settings, self.registry, trigger)


def test_a_kill_at_any_write_of_a_poll_leads_to_a_launched_or_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for write in range(1, 10):
        made = Made(tmp_path / f"at-{write}")
        with killed_at(write, monkeypatch) as writes:
            with suppress(Killed):
                made.ask(made.trigger)
            total = writes()
        made.keeper.look()
        made.now += timedelta(days=1, minutes=1)
        first = list(made.launched)
        assert first or made.polls.look(), f"killed at write {write}, nobody is asked any more"
        made.keeper.look()
        assert len(made.launched) == 1
        if total < write:
            assert first, "nothing was killed"
            return
    raise AssertionError("creating a poll takes more writes than were killed")


@pytest.mark.parametrize("starts", [True, False])
def test_a_triggered_campaign_goes_at_once_or_waits_to_be_started(
    tmp_path: Path, starts: bool
) -> None:
    made = Made(tmp_path)
    trigger = replace(made.trigger, starts=starts)
    campaign = create_triggered(made.settings, made.registry, trigger)
    made.keeper.look()
    assert made.launched == ([campaign] if starts else [])
    state = "interrupted" if starts else "created"
    assert made.registry.campaign(campaign).state == state
    moves = [line.entry() for line in made.registry.audit.lines(kinds=("campaign-moved",))]
    assert [(m.action, m.state, m.epoch) for m in moves if isinstance(m, CampaignMoved)] == (
        [("resume", "interrupted", 0)] if starts else []
    )
