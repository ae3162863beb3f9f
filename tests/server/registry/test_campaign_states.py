"""What may happen to a campaign: the rules, and their transactions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from common.audit_entries import CampaignMoved
from common.database import migrate, open_database, sqlite_url
from common.errors import RoundFailed, StoreError
from server.registry.campaign_states import ENDED, TRANSITIONS, after
from server.registry.records import CampaignSettings, Contribution, TrainablePhase
from server.registry.registry import MIGRATIONS, Registry
from tests.fakes import TRAINABLE, toy_recipe

DIGEST = "ab" * 32
SETTINGS = CampaignSettings(
    rounds=3,
    epsilon=8.0,
    quorum=2,
    phases=(TrainablePhase(first_round=1, scope="all", names=TRAINABLE),),
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path / "registry.db")


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    made = opened(url)
    yield made
    made.close()


def opened(url: str) -> Registry:
    engine = open_database(url)
    migrate(engine, MIGRATIONS)
    return Registry(engine)


def created(registry: Registry) -> str:
    return registry.add_campaign(toy_recipe(), SETTINGS, initial_digest=DIGEST).id


def test_every_state_can_be_reached_and_left_but_the_final_ones() -> None:
    reached = {to for moves in TRANSITIONS.values() for to in moves.values()}
    assert reached | {"created"} == set(TRANSITIONS)
    final = {state for state, moves in TRANSITIONS.items() if not moves}
    assert final == {"finished", "cancelled"} <= ENDED


def test_a_refusal_names_the_state_and_what_to_do() -> None:
    with pytest.raises(RoundFailed) as caught:
        after("finished", "resume", campaign="c1")
    assert caught.value.code == "campaign-state"
    assert "is finished" in caught.value.what
    assert "new campaign" in caught.value.action


def test_a_campaign_goes_on_under_a_new_epoch_and_each_move_is_audited(registry: Registry) -> None:
    campaign = created(registry)
    moves = registry.moves
    moves.take(campaign, flower_run=1)
    moves.interrupt(campaign, "killed", code="driver-gone")
    moves.take(campaign, flower_run=2)
    moves.pause(campaign)
    moves.settle(campaign)
    moves.resume(campaign)
    moves.take(campaign, flower_run=3)
    moves.finish(campaign)
    entries = [line.entry() for line in registry.audit.lines()]
    assert [(e.action, e.state, e.epoch) for e in entries if isinstance(e, CampaignMoved)] == [
        ("take", "running", 1),
        ("interrupt", "interrupted", 1),
        ("take", "running", 2),
        ("pause", "pausing", 2),
        ("settle", "paused", 2),
        ("resume", "interrupted", 2),
        ("take", "running", 3),
        ("finish", "finished", 3),
    ]
    assert registry.campaign(campaign).failure is None


def test_whoever_lost_a_campaign_writes_nothing_into_it_any_more(
    registry: Registry, url: str
) -> None:
    campaign = created(registry)
    old, new = opened(url), opened(url)
    old.start_campaign(campaign)
    old.start_round(campaign, 1, purpose="train", base_digest=DIGEST)
    new.moves.interrupt(campaign, "slow")
    new.start_campaign(campaign)
    contribution = Contribution(campaign, 1, "north", 1, "accepted")
    for write in (
        lambda: old.record_contribution(contribution),
        lambda: old.end_round(campaign, 1),
        lambda: old.start_round(campaign, 2, purpose="train", base_digest=DIGEST),
        lambda: old.record_forecasts(campaign, ()),
        lambda: old.note_deviations(campaign, 1, {}),
        lambda: old.finish_campaign(campaign),
    ):
        with pytest.raises(RoundFailed) as caught:
            write()
        assert caught.value.code == "campaign-lost"
    new.record_contribution(contribution)
    assert [c.site for c in registry.contributions(campaign)] == ["north"]
    old.close()
    new.close()


def test_a_cancelled_campaign_takes_no_more_writes(registry: Registry, url: str) -> None:
    campaign = created(registry)
    driver = opened(url)
    driver.start_campaign(campaign)
    driver.start_round(campaign, 1, purpose="train", base_digest=DIGEST)
    registry.moves.cancel(campaign)
    with pytest.raises(RoundFailed, match="not driven"):
        driver.end_round(campaign, 1)
    assert [r.state for r in registry.rounds(campaign)] == ["failed"]
    driver.close()


def test_a_round_goes_on_from_the_same_model_only(registry: Registry) -> None:
    campaign = created(registry)
    registry.start_campaign(campaign)
    registry.start_round(campaign, 1, purpose="train", base_digest=DIGEST)
    registry.start_round(campaign, 1, purpose="train", base_digest=DIGEST)
    with pytest.raises(StoreError):
        registry.start_round(campaign, 1, purpose="train", base_digest="cd" * 32)
    registry.end_round(campaign, 1)
    with pytest.raises(StoreError):
        registry.start_round(campaign, 1, purpose="train", base_digest=DIGEST)


def test_a_finished_round_ends_the_count_of_launches(registry: Registry) -> None:
    campaign = created(registry)
    registry.moves.note_launch(campaign)
    registry.start_campaign(campaign)
    registry.moves.note_launch(campaign)
    assert registry.campaign(campaign).launches == 2
    registry.start_round(campaign, 1, purpose="train", base_digest=DIGEST)
    registry.end_round(campaign, 1)
    assert registry.campaign(campaign).launches == 0


def test_a_finished_scoring_does_not_end_the_count_of_launches(registry: Registry) -> None:
    campaign = created(registry)
    registry.moves.note_launch(campaign)
    registry.start_campaign(campaign)
    registry.start_round(campaign, 2, purpose="evaluate", base_digest=DIGEST)
    registry.end_round(campaign, 2)
    assert registry.campaign(campaign).launches == 1


def test_campaigns_of_the_version_before_come_along(url: str) -> None:
    engine = open_database(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        recipe, settings = toy_recipe().model_dump_json(), SETTINGS.model_dump_json()
        columns = "id, task, recipe, settings, state, initial_digest, created_at"
        connection.execute(
            text(f"INSERT INTO campaigns ({columns}) VALUES ('c1', 'toy', :r, :s, 'finished', "
                 f"'{DIGEST}', '2026-01-01 00:00:00')"),
            {"r": recipe, "s": settings},
        )  # fmt: skip
        connection.execute(
            text("INSERT INTO rounds (campaign, number, purpose, state, base_digest, started_at) "
                 f"VALUES ('c1', 1, 'train', 'finished', '{DIGEST}', '2026-01-01 00:00:00')")
        )  # fmt: skip
    engine.dispose()
    registry = opened(url)
    assert [(c.id, c.state, c.epoch) for c in registry.campaigns()] == [("c1", "finished", 0)]
    assert len(registry.rounds("c1")) == 1
    campaign = created(registry)
    assert registry.moves.pause(campaign).state == "paused"
    registry.close()
