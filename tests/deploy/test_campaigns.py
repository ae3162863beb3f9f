from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ProcessError, RoundFailed
from deploy import campaigns, flower_run
from tests.fakes import FakeSite
from tests.server.campaigns import Coordinator


class Answers:
    """What looks at Flower's run bring: a state, or no answer at all."""

    def __init__(self, coordinator: Coordinator, campaign: str, *states: str | None) -> None:
        self.states = list(states)
        self.coordinator, self.campaign = coordinator, campaign

    def __call__(self, *_: object) -> str:
        state = self.states.pop(0) if self.states else "done"
        if state is None:
            raise ProcessError("`flwr list` did not answer.")
        if state == "done":
            self.coordinator.registry.finish_campaign(self.campaign)
        return "running"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Coordinator, str]:
    coordinator = Coordinator(tmp_path, [FakeSite("north")])
    campaign = coordinator.create().id
    coordinator.registry.start_campaign(campaign, flower_run=7)
    monkeypatch.setattr(campaigns, "RUN_CHECK_SECONDS", 0.0)
    monkeypatch.setattr(campaigns, "POLL_SECONDS", 0.001)
    return coordinator, campaign


def test_a_late_answer_ends_no_campaign(
    made: tuple[Coordinator, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator, campaign = made
    answers = Answers(coordinator, campaign, None, None, None, None, "running", None, None)
    monkeypatch.setattr(flower_run, "run_state", answers)
    assert campaigns.watch_campaign(coordinator.settings, campaign).state == "finished"


def test_a_superlink_that_is_gone_does(
    made: tuple[Coordinator, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator, campaign = made
    monkeypatch.setattr(flower_run, "run_state", Answers(coordinator, campaign, *[None] * 9))
    with pytest.raises(ProcessError):
        campaigns.watch_campaign(coordinator.settings, campaign)


def test_a_failed_campaign_raises_or_is_returned(made: tuple[Coordinator, str]) -> None:
    coordinator, campaign = made
    coordinator.registry.fail_campaign(campaign, "no quorum")
    with pytest.raises(RoundFailed, match="no quorum"):
        campaigns.watch_campaign(coordinator.settings, campaign)
    found = campaigns.watch_campaign(coordinator.settings, campaign, failing=False)
    assert found.failure == "no quorum"
