"""A candidate that was compared with a release which is not the champion any more."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from common.audit_entries import CandidateDecided
from common.errors import RoundFailed
from common.release import ModelFile, model_target
from server.publishing.service import follow_registry
from server.registry.records import Candidate
from server.registry.registry import Registry
from tests.fakes import FakeSite
from tests.releases import Coordinator, approve, draft
from tests.server.campaigns import Coordinator as Running


def publish(coordinator: Coordinator, registry: Registry) -> None:
    follow_registry(coordinator.publisher, registry, coordinator.settings.models)


def decided(registry: Registry) -> list[CandidateDecided]:
    found = [line.entry() for line in registry.audit.lines(kinds=("candidate-decided",))]
    return [entry for entry in found if isinstance(entry, CandidateDecided)]


def unwritten(broken: pytest.MonkeyPatch, registry: Registry) -> None:
    """Have decisions without their lines, as a crash left them before they were one write."""
    broken.setattr(registry.audit, "append_in", lambda *_: (None,))
    broken.setattr(registry.audit, "remember", lambda _: None)


def record(running: Running, candidate: Candidate, version: int) -> None:
    name = model_target(candidate.model_digest)
    file = ModelFile(name=name, sha256="cd" * 32, bytes=10)
    running.registry.record_release(candidate.draft.released(version, file))


def test_a_rollback_is_not_undone_by_a_campaign_that_was_running(tmp_path: Path) -> None:
    """K starts from v2; v2 is withdrawn, v1 comes back as v3; K's candidate is better than v2."""
    running = Running(tmp_path, [FakeSite("north"), FakeSite("south")])
    first = running.run(running.create(rounds=1))
    record(running, first, 1)
    template = running.registry.campaign(first.campaign)

    def begun(base: Candidate, release: int) -> Candidate:
        campaign = running.registry.add_campaign(
            template.recipe,
            template.settings,
            initial_digest=base.model_digest,
            base_release=release,
        )
        if release == 2:
            back = running.registry.rollouts.roll_back(1, by="anna", reason="worse at north")
            record(running, back, 3)
        return running.run(campaign)

    second = begun(first, 1)
    assert second.state == "approved"
    record(running, second, 2)
    third = begun(second, 2)
    assert all(check.passed for check in third.draft.gate), "better than what it started from"
    assert (third.state, third.decided_by) == ("waiting", None)
    assert third.reason is not None
    assert "compared it with release 2; the current release is release 3" in third.reason
    assert "Release 2, from which it was trained, was withdrawn" in third.reason
    with pytest.raises(RoundFailed) as caught:
        running.registry.rollouts.approve(third.id, by="anna")
    assert caught.value.code == "champion-changed"
    assert running.registry.approved_candidates() == ()
    known = running.registry.rollouts.approve(third.id, by="anna", champion_changed=True)
    assert (known.state, known.decided_by) == ("approved", "anna")
    assert known.reason is not None
    assert known.reason.startswith("Approved although the champion had changed")
    assert decided(running.registry)[-1] == CandidateDecided(
        candidate=third.id,
        model_digest=third.model_digest,
        decision="approved",
        by="anna",
        champion_changed=True,
    )


def test_the_log_says_which_approvals_knew_of_a_changed_champion(
    coordinator: Coordinator, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a crash once kept the line out; a line from before this was kept stays alone."""
    approve(coordinator, registry, 1)
    publish(coordinator, registry)
    plain, changed, cut_off, older, refused = (
        approve(coordinator, registry, seed, approved=False) for seed in (2, 3, 4, 5, 6)
    )
    registry.rollouts.approve(plain.id, by="anna", champion_changed=True)
    publish(coordinator, registry)
    registry.rollouts.refuse(refused.id, by="anna", reason="worse")
    registry.rollouts.approve(changed.id, by="anna", champion_changed=True)
    with monkeypatch.context() as broken:
        unwritten(broken, registry)
        for candidate in (cut_off, older):
            registry.rollouts.approve(candidate.id, by="anna", champion_changed=True)
    registry.audit.append(
        CandidateDecided(
            candidate=older.id, model_digest=older.model_digest, decision="approved", by="anna"
        )
    )
    for _ in range(2):
        registry.audit_releases()
    assert [(entry.candidate, entry.champion_changed) for entry in decided(registry)] == [
        (plain.id, False),
        (refused.id, False),
        (changed.id, True),
        (older.id, False),
        (cut_off.id, True),
    ]
    bodies = [line.body for line in registry.audit.lines(kinds=("candidate-decided",))]
    assert ["champion_changed" in body for body in bodies] == [False, False, True, False, True]


def test_a_champion_that_was_scored_first_may_change_too(tmp_path: Path) -> None:
    """Campaigns that start from no release score the champion in round 0, or there is none yet."""
    running = Running(tmp_path, [FakeSite("north"), FakeSite("south")])
    waiting = running.run(running.create(rounds=2, auto_approve=False))
    record(running, running.run(running.create(rounds=2)), 1)
    with pytest.raises(RoundFailed, match="with none; the current release is release 1"):
        running.registry.rollouts.approve(waiting.id, by="anna")
    same = running.create(rounds=4)
    found = running.run(same)
    assert found.state == "approved", "round 0 scored release 1, which is the champion still"


def test_of_two_campaigns_at_once_one_is_released_by_itself(
    coordinator: Coordinator, registry: Registry
) -> None:
    """Before the first one's candidate is published, and after."""
    approve(coordinator, registry, 1)
    publish(coordinator, registry)
    second = approve(coordinator, registry, 2)
    early = approve(coordinator, registry, 3)
    assert (second.state, early.state) == ("approved", "waiting")
    assert early.reason is not None
    assert "about to be published" in early.reason
    publish(coordinator, registry)
    assert [r.version for r in registry.releases()] == [2, 1]
    with pytest.raises(RoundFailed, match="with release 1; the current release is release 2"):
        registry.rollouts.approve(early.id, by="anna")
    registry.rollouts.roll_back(1, by="anna", reason="worse")
    assert registry.rollouts.champion_change(registry.candidate(early.id)) is None, (
        "release 1's weights are the champion's again, and these it was compared with"
    )
    publish(coordinator, registry)
    assert registry.rollouts.approve(early.id, by="anna").reason is None


def test_a_held_release_is_no_champion_for_its_descendants(
    coordinator: Coordinator, registry: Registry
) -> None:
    for seed in (1, 2):
        approve(coordinator, registry, seed)
        publish(coordinator, registry)
    made = draft(3)
    waiting = approve(coordinator, registry, 3, approved=False)
    assert (waiting.model_digest, waiting.reason) == (made.model_digest, None)
    registry.rollouts.hold(2, by="anna")
    with pytest.raises(RoundFailed) as caught:
        registry.rollouts.approve(waiting.id, by="anna")
    assert caught.value.code == "champion-changed"


def test_two_candidates_at_the_same_moment(coordinator: Coordinator, registry: Registry) -> None:
    """Whoever is second sees the first, whatever the threads do."""
    approve(coordinator, registry, 1)
    publish(coordinator, registry)
    start, states = threading.Barrier(4), []

    def add(seed: int) -> None:
        start.wait()
        states.append(approve(coordinator, registry, seed).state)

    threads = [threading.Thread(target=add, args=(seed,)) for seed in (2, 3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(states) == ["approved", "waiting", "waiting", "waiting"]
