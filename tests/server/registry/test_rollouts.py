"""Decisions on candidates and releases: rings, hold, rollback, and who is on record for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.audit_entries import CandidateDecided, RolledBack, RolloutChanged
from common.errors import InputRefused, NotFound, RoundFailed
from common.release import LatestRelease, LimitedRelease
from server.publishing.service import follow_registry
from server.registry.registry import Registry
from tests.releases import TASK, Coordinator, approve, draft
from tests.server.registry.test_champions import unwritten


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator.create(tmp_path / "coordinator")


@pytest.fixture
def registry(coordinator: Coordinator) -> Iterator[Registry]:
    opened = Registry.open(coordinator.settings)
    for number, name in enumerate(("north", "south")):
        opened.register_site(name, node_id=number + 1, public_key="key")
    yield opened
    opened.close()


class Killed(BaseException):
    """As a kill -9 is, nothing catches it."""


def killed(*_: object) -> None:
    raise Killed


def publish(coordinator: Coordinator, registry: Registry) -> None:
    follow_registry(coordinator.publisher, registry, coordinator.settings.models)


def signed(coordinator: Coordinator) -> LatestRelease:
    return coordinator.publisher.rollout(TASK)


def entries(registry: Registry, *kinds: str) -> list[object]:
    return [line.entry() for line in registry.audit.lines(kinds=kinds)]


def released(
    coordinator: Coordinator, registry: Registry, seed: int, sites: tuple[str, ...] | None = None
) -> None:
    waiting = approve(coordinator, registry, seed, approved=False)
    registry.rollouts.approve(waiting.id, by="alice", sites=sites)
    publish(coordinator, registry)


def test_approved_for_a_canary_then_for_all(coordinator: Coordinator, registry: Registry) -> None:
    released(coordinator, registry, 1)
    released(coordinator, registry, 2, ("north",))
    assert signed(coordinator) == LatestRelease(
        task=TASK, version=1, limited=(LimitedRelease(version=2, sites=("north",)),)
    )
    assert (registry.release(2).state, registry.release(2).sites) == ("canary", ("north",))
    champion = registry.champion(TASK)
    assert champion is not None
    assert champion.version == 1
    registry.rollouts.roll_out(2, by="bob")
    publish(coordinator, registry)
    assert signed(coordinator) == LatestRelease(task=TASK, version=2)
    found = registry.release(2)
    assert (found.state, found.sites, found.changed_by) == ("everywhere", None, "bob")
    decided = entries(registry, "candidate-decided")
    assert [(e.by, e.decision, e.sites) for e in decided if isinstance(e, CandidateDecided)] == [
        ("alice", "approved", None),
        ("alice", "approved", ("north",)),
    ]
    assert entries(registry, "rollout") == [RolloutChanged(version=2, state="everywhere", by="bob")]


def test_a_held_release_is_signed_as_held_and_may_go_on(
    coordinator: Coordinator, registry: Registry
) -> None:
    released(coordinator, registry, 1)
    released(coordinator, registry, 2)
    registry.rollouts.hold(2, by="bob")
    publish(coordinator, registry)
    assert signed(coordinator).version == 1
    assert signed(coordinator).limited == (LimitedRelease(version=2, held=True),)
    champion = registry.champion(TASK)
    assert champion is not None
    assert champion.version == 1
    registry.rollouts.roll_out(2, by="bob", sites=["south"])
    publish(coordinator, registry)
    assert signed(coordinator).limited == (LimitedRelease(version=2, sites=("south",)),)


def test_a_rollback_is_old_weights_under_a_higher_version_for_all(
    coordinator: Coordinator, registry: Registry
) -> None:
    released(coordinator, registry, 1)
    released(coordinator, registry, 2)
    released(coordinator, registry, 3, ("north",))
    candidate = registry.rollouts.roll_back(1, by="bob", reason="sensitivity fell at north")
    assert registry.rollouts.wanted(TASK).newest == 3, "nothing is forgotten before it is published"
    assert registry.rollouts.wanted(TASK).offered("south") == 1
    publish(coordinator, registry)
    assert signed(coordinator) == LatestRelease(task=TASK, version=4)
    made = registry.release(4)
    assert made.model_digest == draft(1).model_digest
    lineage = made.manifest.lineage
    assert (lineage.restores, lineage.replaces) == (1, 3)
    assert [registry.release(v).state for v in (1, 2, 3)] == ["everywhere"] + 2 * ["withdrawn"]
    (entry,) = entries(registry, "rolled-back")
    assert entry == RolledBack(replaces=3, restores=1, candidate=candidate.id, by="bob")
    assert registry.candidate(candidate.id).reason == "sensitivity fell at north"
    publish(coordinator, registry)
    assert len(registry.releases()) == 4


def test_a_rollback_survives_a_crash_before_it_is_published(
    coordinator: Coordinator, registry: Registry
) -> None:
    released(coordinator, registry, 1)
    released(coordinator, registry, 2)
    registry.rollouts.roll_back(1, by="bob", reason="worse")
    again = Registry.open(coordinator.settings)
    publish(coordinator, again)
    assert again.release(3).manifest.lineage.restores == 1
    again.close()


def test_a_second_rollback_waits_until_the_first_is_published(
    coordinator: Coordinator, registry: Registry
) -> None:
    """Two approvers act on one alarm: that is one release, not two."""
    for seed in (1, 2, 3):
        released(coordinator, registry, seed)
    start, codes = threading.Barrier(2), []

    def roll_back(by: str) -> None:
        start.wait()
        try:
            registry.rollouts.roll_back(1, by=by, reason="sensitivity fell")
            codes.append("done")
        except RoundFailed as error:
            codes.append(error.code)

    threads = [threading.Thread(target=roll_back, args=(name,)) for name in ("anna", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(codes) == ["done", "rollback-pending"]
    publish(coordinator, registry)
    assert [r.version for r in registry.releases()] == [4, 3, 2, 1]
    with pytest.raises(RoundFailed) as caught:
        registry.rollouts.roll_back(1, by="bob", reason="again")
    assert caught.value.code == "rollback-nowhere"


def test_a_rollback_and_its_lines_in_the_log_are_one_transaction(
    coordinator: Coordinator, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        released(coordinator, registry, seed)

    with monkeypatch.context() as broken:  # whatever comes after the commit
        broken.setattr(registry.audit, "append", killed)
        broken.setattr(registry.audit, "remember", killed)
        with pytest.raises(Killed):
            registry.rollouts.roll_back(1, by="bob", reason="worse")
    (made,) = registry.approved_candidates()
    again = Registry.open(coordinator.settings)
    again.audit_releases()
    assert entries(again, "rolled-back") == [
        RolledBack(replaces=2, restores=1, candidate=made.id, by="bob")
    ]
    assert entries(again, "rollout") == [
        RolloutChanged(version=2, state="withdrawn", by="bob", sites=None)
    ]
    again.close()


@pytest.mark.parametrize("target", [1, 2, 3])
def test_there_is_not_always_a_way_back(
    coordinator: Coordinator, registry: Registry, target: int
) -> None:
    released(coordinator, registry, 1)
    released(coordinator, registry, 2)
    registry.rollouts.roll_back(1, by="bob", reason="worse")
    publish(coordinator, registry)
    with pytest.raises(RoundFailed) as caught:
        registry.rollouts.roll_back(target, by="bob", reason="worse")
    assert caught.value.code == "rollback-nowhere"


def test_what_cannot_be_decided_is_refused(coordinator: Coordinator, registry: Registry) -> None:
    worse = approve(coordinator, registry, 1, passed=False, approved=False)
    assert (worse.state, worse.decided_by) == ("refused", "gate")
    for decide in (
        lambda: registry.rollouts.approve(worse.id, by="alice"),
        lambda: registry.rollouts.refuse(worse.id, by="alice", reason="again"),
    ):
        with pytest.raises(RoundFailed) as caught:
            decide()
        assert caught.value.code == "candidate-decided"
    waiting = approve(coordinator, registry, 2, approved=False)
    for sites in ([], ["nowhere"], ["north", "nowhere"]):
        with pytest.raises(InputRefused):
            registry.rollouts.approve(waiting.id, by="alice", sites=sites)
    with pytest.raises(InputRefused):
        registry.rollouts.refuse(waiting.id, by="alice", reason="  ")
    with pytest.raises(NotFound):
        registry.rollouts.approve("nobody", by="alice")
    with pytest.raises(NotFound):
        registry.rollouts.roll_back(9, by="alice", reason="worse")
    assert registry.candidate(waiting.id).state == "waiting"
    refused = registry.rollouts.refuse(waiting.id, by="alice", reason="worse on\nskin")
    assert (refused.state, refused.reason, refused.decided_by) == (
        "refused",
        "worse on skin",
        "alice",
    )


def test_what_is_behind_or_withdrawn_is_not_rolled_out(
    coordinator: Coordinator, registry: Registry
) -> None:
    for seed in (1, 2):
        released(coordinator, registry, seed)
    for change in (registry.rollouts.roll_out, registry.rollouts.hold):
        with pytest.raises(RoundFailed) as caught:
            change(1, by="bob")
        assert caught.value.code == "release-superseded"
    registry.rollouts.roll_back(1, by="bob", reason="worse")
    with pytest.raises(RoundFailed) as caught:
        registry.rollouts.roll_out(2, by="bob")
    assert caught.value.code == "release-withdrawn"


@pytest.mark.parametrize("decision", ["approved", "refused", "rolled-out", "held"])
def test_a_decision_and_its_line_are_one_transaction(
    coordinator: Coordinator, registry: Registry, monkeypatch: pytest.MonkeyPatch, decision: str
) -> None:
    """Also one that was taken before, whose older line is in the log already."""
    released(coordinator, registry, 1)
    waiting = approve(coordinator, registry, 2, approved=False)
    rollouts = registry.rollouts
    rollouts.roll_out(1, by="anna")
    rollouts.hold(1, by="anna")
    if decision == "held":
        rollouts.roll_out(1, by="anna")
    taken: dict[str, Callable[[], object]] = {
        "approved": lambda: rollouts.approve(
            waiting.id, by="anna", sites=["north"], champion_changed=True
        ),
        "refused": lambda: rollouts.refuse(waiting.id, by="anna", reason="worse"),
        "rolled-out": lambda: rollouts.roll_out(1, by="anna"),
        "held": lambda: rollouts.hold(1, by="anna"),
    }
    with monkeypatch.context() as broken:  # whatever comes after the commit
        broken.setattr(registry.audit, "append", killed)
        broken.setattr(registry.audit, "remember", killed)
        with pytest.raises(Killed):
            taken[decision]()
    made = registry.candidate(waiting.id).state, registry.release(1).state
    newest = entries(registry, "candidate-decided", "rollout")[-1]
    if isinstance(newest, CandidateDecided):
        assert made[0] == newest.decision == decision
    else:
        assert isinstance(newest, RolloutChanged)
        assert made[1] == newest.state == {"rolled-out": "everywhere"}.get(decision, decision)


def test_decisions_that_a_crash_kept_from_the_log_are_written_later(
    coordinator: Coordinator, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    released(coordinator, registry, 1)
    waiting = approve(coordinator, registry, 2, approved=False)
    with monkeypatch.context() as broken:
        unwritten(broken, registry)
        registry.rollouts.approve(waiting.id, by="alice", sites=["north"])
        registry.rollouts.hold(1, by="bob")
    before = len(entries(registry))
    registry.audit_releases()
    assert len(entries(registry)) == before + 2
    registry.audit_releases()
    assert len(entries(registry)) == before + 2


def test_without_a_person_the_first_ring_of_the_settings_is_taken(
    coordinator: Coordinator, registry: Registry
) -> None:
    settings = coordinator.settings.model_copy(update={"canary_sites": ("south",)})
    opened = Registry.open(settings)
    made = approve(coordinator, opened, 1)
    assert (made.state, made.sites, made.decided_by) == ("approved", ("south",), "policy")
    opened.close()
