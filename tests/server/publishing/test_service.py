"""From an approved candidate in the registry to a release that is recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file
from sqlalchemy import text

from common.audit_entries import CandidateDecided
from common.database import open_database
from common.errors import ReleaseError, RoundFailed, StoreError
from common.folders import write_public
from common.moments import utc_now
from common.release import LatestRelease, ReleaseManifest
from server.publishing import repository
from server.publishing.publisher import ReleasePublisher
from server.publishing.service import follow_registry, keep_timestamp_fresh, publish_approved
from server.registry import rollouts
from server.registry.records import Candidate
from server.registry.registry import Registry
from tests.releases import TASK, Coordinator, approve, weights


def publish(coordinator: Coordinator, registry: Registry) -> tuple[int, ...]:
    return publish_approved(coordinator.publisher, registry, coordinator.settings.models)


def test_approved_candidates_are_published_once_and_recorded(
    coordinator: Coordinator, registry: Registry
) -> None:
    for seed in (1, 2):
        made = approve(coordinator, registry, seed, approved=False)
        registry.rollouts.approve(made.id, by="anna", champion_changed=True)
    assert publish(coordinator, registry) == (1, 2)
    assert publish(coordinator, registry) == ()
    assert [r.manifest for r in registry.releases()] == list(
        reversed(coordinator.publisher.releases())
    )


def test_nothing_that_the_gate_refused_or_left_waiting_is_published(
    coordinator: Coordinator, registry: Registry
) -> None:
    approve(coordinator, registry, 1, passed=False)
    approve(coordinator, registry, 2, approved=False)
    assert publish(coordinator, registry) == ()
    assert coordinator.publisher.releases() == ()


class DyingRegistry:
    """Fails where a killed coordinator would stop: published, not yet recorded."""

    def __init__(self, registry: Registry) -> None:
        self.approved_candidates = registry.approved_candidates
        self.still_approved = registry.still_approved

    def record_release(self, manifest: ReleaseManifest) -> None:
        raise StoreError("killed")


def test_a_release_that_was_not_recorded_is_recorded_later_under_its_version(
    coordinator: Coordinator, registry: Registry
) -> None:
    approve(coordinator, registry, 1)
    with pytest.raises(StoreError):
        publish_approved(
            coordinator.publisher, DyingRegistry(registry), coordinator.settings.models
        )
    assert registry.releases() == ()
    assert publish(coordinator, registry) == (1,)
    assert [r.version for r in registry.releases()] == [1]
    assert len(coordinator.publisher.releases()) == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [("absent", "model-missing"), ("damaged", "model-damaged"), ("other", "model-digest")],
)
def test_one_bad_candidate_does_not_hold_up_the_next(
    coordinator: Coordinator, registry: Registry, fault: str, code: str
) -> None:
    bad = approve(coordinator, registry, 1)
    good = approve(coordinator, registry, 2, approved=False)
    registry.rollouts.approve(good.id, by="anna", champion_changed=True)
    path = coordinator.settings.models / f"{bad.model_digest}.safetensors"
    if fault == "absent":
        path.unlink()
    elif fault == "damaged":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        save_file(weights(3), path)
    with pytest.raises(ReleaseError) as caught:
        publish(coordinator, registry)
    assert caught.value.code == code
    assert [r.candidate for r in registry.releases()] == ["candidate-2"]
    save_file(weights(1), path)
    assert publish(coordinator, registry) == (), "it was never compared with the one that is out"
    registry.rollouts.approve(bad.id, by="anna", champion_changed=True)
    assert publish(coordinator, registry) == (2,)


def full_disk(path: Path, data: bytes) -> None:
    """There is room for what is small."""
    if path.suffix == ".safetensors":
        raise StoreError(f"{path.name} cannot be written (No space left on device).")
    write_public(path, data)


@pytest.mark.parametrize("set_back", [timedelta(0), timedelta(hours=1)])
@pytest.mark.parametrize("by", ["policy", "carla"])
def test_what_could_not_be_published_before_a_rollback_does_not_undo_it(
    coordinator: Coordinator,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
    set_back: timedelta,
) -> None:
    """v2 serves; its descendant is approved, the disk is full; a clinician goes back to v1.

    Somebody may have set the clock back meanwhile.
    """
    made = unpublished(coordinator, registry, monkeypatch, by=by)
    with monkeypatch.context() as full:
        full.setattr(repository, "write_public", full_disk)
        full.setattr(rollouts, "utc_now", lambda: utc_now() - set_back)
        registry.rollouts.roll_back(1, by="anna", reason="misses cancers")
        assert publish(coordinator, registry) == (3,), "its weights lie in the repository already"
    assert publish(coordinator, registry) == ()
    assert coordinator.publisher.rollout(TASK) == LatestRelease(task=TASK, version=3)
    waiting = registry.candidate(made.id)
    assert (waiting.state, waiting.sites, waiting.decided_by) == ("waiting", None, None)
    assert waiting.reason is not None
    assert "Release 2, from which it was trained, was withdrawn" in waiting.reason
    lines = [line.entry() for line in registry.audit.lines(kinds=("candidate-decided",))]
    assert lines[-1] == CandidateDecided(
        candidate=made.id, model_digest=made.model_digest, decision="waiting", by="policy"
    )
    registry.audit_releases()
    assert len(list(registry.audit.lines(kinds=("candidate-decided",)))) == len(lines)
    with pytest.raises(RoundFailed, match="champion has changed"):
        registry.rollouts.approve(made.id, by="anna")
    registry.rollouts.approve(made.id, by="anna", champion_changed=True)
    assert publish(coordinator, registry) == (4,), "whoever approves it now knows"


@pytest.mark.parametrize("by", ["policy", "carla"])
def test_what_could_not_be_published_before_a_hold_waits(
    coordinator: Coordinator, registry: Registry, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """v2 serves; its descendant is approved, the disk is full; v2 is held."""
    made = unpublished(coordinator, registry, monkeypatch, by=by)
    registry.rollouts.hold(2, by="anna")
    assert publish(coordinator, registry) == ()
    waiting = registry.candidate(made.id)
    assert (waiting.state, waiting.sites, waiting.decided_by) == ("waiting", None, None)
    assert waiting.reason is not None
    assert "compared it with release 2; the current release is release 1" in waiting.reason
    with pytest.raises(RoundFailed, match="champion has changed"):
        registry.rollouts.approve(made.id, by="anna")
    registry.rollouts.approve(made.id, by="anna", champion_changed=True)
    assert publish(coordinator, registry) == (3,), "whoever approves it now knows"


def test_what_was_held_and_goes_on_is_the_champion_again(
    coordinator: Coordinator, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpublished(coordinator, registry, monkeypatch)
    registry.rollouts.hold(2, by="anna")
    registry.rollouts.roll_out(2, by="anna")
    assert publish(coordinator, registry) == (3,)


def test_what_was_approved_over_another_comes_after_it(
    coordinator: Coordinator, registry: Registry
) -> None:
    """The older candidate is approved second, knowingly: over the one that it must not precede."""
    approve(coordinator, registry, 1)
    publish(coordinator, registry)
    second, first = (approve(coordinator, registry, seed, approved=False) for seed in (2, 3))
    for made in (first, second):
        registry.rollouts.approve(made.id, by="anna", champion_changed=True)
    assert publish(coordinator, registry) == (2, 3)
    assert [registry.release(v).candidate for v in (2, 3)] == [first.id, second.id]


def test_two_that_were_approved_over_each_other_stop_nobody(
    coordinator: Coordinator, registry: Registry
) -> None:
    approve(coordinator, registry, 1)
    assert publish(coordinator, registry) == (1,)
    one = approve(coordinator, registry, 2, approved=False)
    other = approve(coordinator, registry, 3, approved=False)
    for candidate in (one, other):
        registry.rollouts.approve(candidate.id, by="anna", champion_changed=True)
    (coordinator.settings.models / f"{other.model_digest}.safetensors").unlink()
    registry.rollouts.hold(1, by="anna")
    with pytest.raises(ReleaseError, match="is missing"):
        publish(coordinator, registry)
    assert registry.candidate(one.id).state == "waiting"
    registry.rollouts.approve(one.id, by="anna", champion_changed=True)
    with pytest.raises(ReleaseError, match="is missing"):
        publish(coordinator, registry)
    assert registry.candidate(one.id).state == "waiting"


def test_an_approval_from_before_its_champion_was_kept_is_told_by_time(
    coordinator: Coordinator, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = unpublished(coordinator, registry, monkeypatch)
    with open_database(coordinator.settings.database).begin() as connection:
        connection.execute(text("UPDATE candidates SET approved_over = NULL"))
    assert registry.still_approved(made.id)
    registry.rollouts.roll_back(1, by="anna", reason="misses cancers")
    assert not registry.still_approved(made.id)


def unpublished(
    coordinator: Coordinator,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    *,
    by: str = "policy",
) -> Candidate:
    """Return an approved candidate, compared with release 2, for which there was no room."""
    for seed in (1, 2):
        approve(coordinator, registry, seed)
        publish(coordinator, registry)
    made = approve(coordinator, registry, 3, approved=by == "policy")
    if by != "policy":
        registry.rollouts.approve(made.id, by=by)
    with monkeypatch.context() as full:
        full.setattr(repository, "write_public", full_disk)
        with pytest.raises(StoreError):
            publish(coordinator, registry)
    return made


def test_what_was_committed_before_a_rollback_is_recorded_and_replaced(
    coordinator: Coordinator, registry: Registry
) -> None:
    """It has its version already: left to wait it would be at the sites, and nobody knew."""
    for seed in (1, 2):
        approve(coordinator, registry, seed)
        publish(coordinator, registry)
    made = approve(coordinator, registry, 3)
    models = coordinator.settings.models
    with pytest.raises(StoreError):
        publish_approved(coordinator.publisher, DyingRegistry(registry), models)
    registry.rollouts.roll_back(1, by="anna", reason="misses cancers")
    assert publish(coordinator, registry) == (3, 4)
    assert registry.candidate(made.id).state == "published"
    assert registry.release(4).manifest.lineage.restores == 1
    assert registry.rollouts.wanted(TASK).version == 4


def test_a_publisher_that_looked_before_another_does_not_undo_what_that_one_published(
    coordinator: Coordinator, registry: Registry
) -> None:
    """It has the list of approved candidates; meanwhile the other one lets the candidate wait."""
    for seed in (1, 2):
        approve(coordinator, registry, seed)
        publish(coordinator, registry)
    approve(coordinator, registry, 3)
    late = DyingRegistry(registry)
    looked = registry.approved_candidates()
    late.approved_candidates = lambda: looked
    registry.rollouts.roll_back(1, by="anna", reason="misses cancers")
    assert publish(coordinator, registry) == (3,)
    assert publish_approved(coordinator.publisher, late, coordinator.settings.models) == ()
    assert [release.version for release in coordinator.publisher.releases()] == [1, 2, 3]


def test_a_hold_is_not_signed_away_by_a_publisher_that_asked_before_it(
    coordinator: Coordinator, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service is about to sign; an approver holds the release, and that is signed first."""
    for seed in (1, 2):
        approve(coordinator, registry, seed)
        publish(coordinator, registry)
    models, kept = coordinator.settings.models, coordinator.publisher.roll_out

    def overtaken(*asked: Any) -> bool:
        monkeypatch.undo()
        registry.rollouts.hold(2, by="anna")
        follow_registry(coordinator.publisher, registry, models)
        return kept(*asked)

    monkeypatch.setattr(coordinator.publisher, "roll_out", overtaken)
    follow_registry(coordinator.publisher, registry, models)
    assert coordinator.publisher.rollout(TASK).offered("south") == 1
    assert coordinator.publisher.rollout(TASK) == registry.rollouts.wanted(TASK)


def test_the_timestamp_is_signed_anew_when_a_third_of_its_life_is_over(
    coordinator: Coordinator,
) -> None:
    third = timedelta(seconds=coordinator.settings.timestamp_seconds / 3)
    before = coordinator.publisher.timestamp_expires()
    for late, refreshed in [(-timedelta(minutes=1), False), (timedelta(minutes=1), True)]:
        moment = datetime.now(UTC) + third + late
        publisher = ReleasePublisher(coordinator.settings, clock=lambda moment=moment: moment)
        keep_timestamp_fresh(publisher, clock=lambda moment=moment: moment)
        assert (coordinator.publisher.timestamp_expires() > before) == refreshed
