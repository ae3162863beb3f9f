"""Buffered campaigns that are cut off anywhere: no update lost, none taken or trained twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flwr.app import RecordDict

from common.audit import AuditLog
from common.errors import RoundFailed, StoreError
from common.folders import write_private
from common.plan import RoundPlan
from common.records import SiteReply
from server.model_store import ModelStore, write_tensors
from server.registry.champions import CHAMPION_ROUND
from server.registry.records import Campaign
from server.rounds.driver import campaign_folder
from tests.server.campaigns import Coordinator
from tests.server.registry.test_champions import record
from tests.server.rounds.buffered import Ledgered, accepted, buffered, ledgered, turns
from tests.server.test_resume import Killed, killed_at

ROUNDS = 3


def check(made: Coordinator, campaign: Campaign, behaviours: dict[str, Ledgered]) -> None:
    registry = made.registry
    assert registry.campaign(campaign.id).state == "finished"
    states = [r.state for r in registry.rounds(campaign.id) if r.purpose == "train"]
    assert states == ["finished"] * ROUNDS
    found = accepted(made, campaign)
    for name, behaviour in behaviours.items():
        own = turns(found, name)
        assert own == behaviour.trained == list(range(1, len(own) + 1)), name
        audited = [
            line.entry()
            for line in registry.audit.lines(kinds=("reply-taken",))
            if f'"site":"{name}"' in line.body and '"update_digest":null' not in line.body
        ]
        assert sorted({entry.round for entry in audited}) == own  # type: ignore[union-attr]
    folder = campaign_folder(made.settings, campaign.id)
    assert list(folder.glob("answers-*")) == []
    assert not (folder / "turns.json").exists()
    kept = {path.stem for path in made.settings.models.glob("*.safetensors")}
    (candidate,) = registry.candidates(campaign=campaign.id)
    assert kept == {campaign.initial_digest, candidate.model_digest}


def run_cut(folder: Path, write: int, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Run with a kill at the n-th write into the registry; return the model and the writes."""
    made, behaviours = ledgered(folder, 0.0, 0.0, 0.0)
    campaign = buffered(made, size=3, rounds=ROUNDS, epsilon=8.0)
    with killed_at(write, monkeypatch) as writes:
        try:
            candidate = made.run(campaign)
        except Killed:
            candidate = None
        total = writes()
    candidate = candidate or made.run(campaign)
    check(made, campaign, behaviours)
    return candidate.model_digest, total


@pytest.mark.parametrize("part", range(4))
def test_killed_at_any_write_it_ends_as_if_nothing_had_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    calm, total = run_cut(tmp_path / "calm", 10**6, monkeypatch)
    assert total > 20
    for write in range(2 + 2 * part, total + 1, 8):
        found, _ = run_cut(tmp_path / f"at-{write}", write, monkeypatch)
        assert found == calm, write


@contextmanager
def killed_at_file(nth: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Die at the n-th answer, checkpoint or audit line, by turns before and after it is on disk."""
    count = 0

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def write(*given: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count >= nth and nth % 2:
                raise Killed
            done = real(*given, **named)
            if count >= nth:
                raise Killed
            return done

        return write

    with monkeypatch.context() as patch:
        patch.setattr("server.rounds.kept_answers.write_private", dying(write_private))
        patch.setattr("server.rounds.checkpoints.write_tensors", dying(write_tensors))
        patch.setattr(AuditLog, "append", dying(AuditLog.append))
        yield lambda: count


@pytest.mark.parametrize("nth", [*range(10, 34, 5), *range(34, 46, 3)])
def test_killed_at_any_file_or_audit_line_nothing_is_lost_or_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    made, behaviours = ledgered(tmp_path, 0.0, 0.0, 0.0)
    campaign = buffered(made, size=3, rounds=ROUNDS)
    with killed_at_file(nth, monkeypatch) as writes:
        try:
            made.run(campaign)
        except Killed:
            assert writes() >= nth
    if made.registry.campaign(campaign.id).state != "finished":
        made.run(campaign)
    check(made, campaign, behaviours)


@pytest.mark.parametrize("nth", range(1, 12, 2))
def test_killed_while_a_turn_is_written_down_no_site_trains_it_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    made, behaviours = ledgered(tmp_path, 1.0, 1.0, 4.0)
    campaign = buffered(made, rounds=ROUNDS)
    count = 0

    def killed(path: Path, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == nth and count % 4 == 1:
            raise Killed  # before it is on disk
        write_private(path, data)
        if count == nth:
            raise Killed  # after it, and before the request is sent

    with monkeypatch.context() as patch:
        patch.setattr("server.rounds.turns.write_private", killed)
        with pytest.raises(Killed):
            made.run(campaign)
    made.run(campaign)
    check(made, campaign, behaviours)


def test_who_was_at_work_is_asked_about_the_same_model_again(tmp_path: Path) -> None:
    made, behaviours = ledgered(tmp_path, 1.0, 1.0, 30.0)
    campaign = buffered(made, rounds=8)
    honest = behaviours["a"]

    def killing(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if plan.round == 4 and len(honest.trained) == 3:
            made.sites["a"].behave = honest
            raise Killed
        return honest(reply, plan)

    made.sites["a"].behave = killing
    with pytest.raises(Killed):
        made.run(campaign)
    made.run(campaign)
    slow = [p for p in made.sites["c"].plans if p.purpose == "train" and p.round == 1]
    assert len(slow) == 2
    assert slow[0].base_digest == slow[1].base_digest == campaign.initial_digest
    assert slow[0].nonce != slow[1].nonce
    assert behaviours["c"].trained.count(1) == 1
    assert 1 in turns(accepted(made, campaign), "c")


def test_a_campaign_that_missed_its_quorum_goes_on_when_it_is_resumed(tmp_path: Path) -> None:
    made, behaviours = ledgered(tmp_path, 1.0, 1.0, 1.0)
    made.grid.offline = {102}
    campaign = buffered(made, rounds=ROUNDS, size=2, quorum=3, quorum_steps=1)
    made.registry.record_forecasts(campaign.id, ())
    with pytest.raises(RoundFailed):
        made.run(campaign)
    assert made.registry.campaign(campaign.id).state == "failed"
    made.grid.offline.clear()
    made.registry.moves.resume(campaign.id)
    made.run(campaign)
    check(made, campaign, behaviours)


def test_a_pause_takes_effect_after_the_step_and_nobody_trains_twice(tmp_path: Path) -> None:
    made, behaviours = ledgered(tmp_path, 1.0, 1.0, 9.0)
    campaign = buffered(made, rounds=ROUNDS)
    honest = behaviours["a"]

    def pausing(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if plan.round == 2 and len(honest.trained) == 1:
            made.registry.moves.pause(campaign.id)
        return honest(reply, plan)

    made.sites["a"].behave = pausing
    assert made.run_any(campaign) is None
    assert made.registry.campaign(campaign.id).state == "paused"
    assert 1 <= len(made.registry.rounds(campaign.id)) < ROUNDS
    made.registry.moves.resume(campaign.id)
    made.run(campaign)
    check(made, campaign, behaviours)


def test_a_cancelled_campaign_ends_at_its_next_write(tmp_path: Path) -> None:
    made, behaviours = ledgered(tmp_path, 1.0, 1.0)
    campaign = buffered(made, rounds=ROUNDS)
    honest = behaviours["a"]

    def cancelling(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        if plan.round == 2:
            made.registry.moves.cancel(campaign.id)
        return honest(reply, plan)

    made.sites["a"].behave = cancelling
    with pytest.raises(RoundFailed) as caught:
        made.run(campaign)
    assert caught.value.code == "campaign-lost"
    assert made.registry.candidates(campaign=campaign.id) == ()


def test_the_champion_is_scored_and_neither_lost_nor_taken_for_a_turn(tmp_path: Path) -> None:
    """A campaign with another first model than the release's has that one scored as round 0."""
    made, behaviours = ledgered(tmp_path, 1.0, 1.0, 1.0)
    first = made.run(buffered(made, rounds=ROUNDS))
    record(made, first, 1)
    for behaviour in behaviours.values():
        behaviour.trained.clear()
        behaviour.newest = None
    campaign = buffered(made, rounds=ROUNDS)
    assert campaign.initial_digest != first.model_digest
    made.run(campaign)
    told = made.registry.contributions(campaign.id, number=CHAMPION_ROUND)
    assert {c.site for c in told if c.outcome == "accepted"} == {"a", "b", "c"}
    for name, behaviour in behaviours.items():
        assert behaviour.trained[0] == 1, name
        own = turns(accepted(made, campaign), name)
        assert own == behaviour.trained == list(range(1, len(own) + 1)), name
    assert first.model_digest in ModelStore(made.settings.models)


def test_a_damaged_account_of_turns_is_no_reason_to_train_anew(tmp_path: Path) -> None:
    made, behaviours = ledgered(tmp_path, 1.0, 1.0)
    campaign = buffered(made, rounds=ROUNDS)
    made.sites["a"].behave = lambda *_: (_ for _ in ()).throw(Killed)
    with pytest.raises(Killed):
        made.run(campaign)
    path = campaign_folder(made.settings, campaign.id) / "turns.json"
    assert path.stat().st_mode & 0o777 == 0o600
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(StoreError) as caught:
        made.run(campaign)
    assert caught.value.code == "turns-damaged"
    assert made.registry.campaign(campaign.id).state == "interrupted"
    path.write_bytes(whole)
    made.sites["a"].behave = behaviours["a"]
    made.run(campaign)
    check(made, campaign, behaviours)
    assert campaign.initial_digest in ModelStore(made.settings.models)
