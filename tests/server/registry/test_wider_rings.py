"""A canary that was held against another release than the current one goes no further unasked."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.audit_entries import RolloutChanged
from common.errors import RoundFailed
from common.release import LatestRelease
from server.registry.records import Candidate
from server.registry.registry import Registry
from tests.releases import TASK, Coordinator, approve, register
from tests.server.registry.test_champions import publish


@pytest.fixture
def coordinator(tmp_path: Path, database_url: str) -> Coordinator:
    return Coordinator.create(tmp_path / "coordinator", database_url=database_url)


@pytest.fixture
def registry(registry: Registry) -> Registry:
    register(registry, "east", "north", "south")
    return registry


@pytest.fixture
def canaries(coordinator: Coordinator, registry: Registry) -> Registry:
    """Return a registry where v2 and v3, both compared with v1, are at one site each."""
    approve(coordinator, registry, 1)
    publish(coordinator, registry)
    for seed, site in ((2, "north"), (3, "south")):
        canary(coordinator, registry, seed, site)
    return registry


def canary(coordinator: Coordinator, registry: Registry, seed: int, site: str) -> Candidate:
    made = approve(coordinator, registry, seed, approved=False)
    registry.rollouts.approve(made.id, by="alice", sites=[site])
    publish(coordinator, registry)
    return made


def rollouts(registry: Registry) -> list[RolloutChanged]:
    found = [line.entry() for line in registry.audit.lines(kinds=("rollout",))]
    return [entry for entry in found if isinstance(entry, RolloutChanged)]


@pytest.mark.parametrize("ring", [None, ["east", "south"], ["north"]])
def test_the_second_of_two_canaries_goes_further_knowingly_or_not_at_all(
    coordinator: Coordinator, canaries: Registry, ring: list[str] | None
) -> None:
    canaries.rollouts.roll_out(2, by="bob", champion_changed=True)
    with pytest.raises(RoundFailed) as caught:
        canaries.rollouts.roll_out(3, by="bob", sites=ring)
    assert caught.value.code == "champion-changed"
    assert "compared it with release 1; the current release is release 2" in caught.value.what
    assert (canaries.release(3).state, canaries.release(3).sites) == ("canary", ("south",))
    canaries.rollouts.roll_out(3, by="bob", sites=ring, champion_changed=True)
    publish(coordinator, canaries)
    assert coordinator.publisher.rollout(TASK) == canaries.rollouts.wanted(TASK)
    assert [entry.champion_changed for entry in rollouts(canaries)] == [False, True]
    bodies = [line.body for line in canaries.audit.lines(kinds=("rollout",))]
    assert ["champion_changed" in body for body in bodies] == [False, True]
    canaries.audit_releases()
    assert len(rollouts(canaries)) == 2, "it is one decision"


def test_it_is_asked_of_a_held_one_and_not_for_fewer_sites(canaries: Registry) -> None:
    canaries.rollouts.roll_out(3, by="bob", sites=["east", "south"])
    canaries.rollouts.roll_out(2, by="bob")
    canaries.rollouts.roll_out(3, by="bob", sites=["south"])
    canaries.rollouts.hold(3, by="bob")
    with pytest.raises(RoundFailed) as caught:
        canaries.rollouts.roll_out(3, by="bob", sites=["south"])
    assert caught.value.code == "champion-changed"


def test_canaries_over_what_they_were_compared_with_are_not_asked_about(
    coordinator: Coordinator, registry: Registry
) -> None:
    """The first of all, its descendant over it, and the older one while a newer one is out."""
    canary(coordinator, registry, 1, "north")
    canary(coordinator, registry, 2, "south")
    for version in (1, 2):
        registry.rollouts.roll_out(version, by="bob", sites=["east", "north"])
        registry.rollouts.roll_out(version, by="bob")
        registry.rollouts.roll_out(version, by="bob")
    publish(coordinator, registry)
    assert coordinator.publisher.rollout(TASK) == LatestRelease(task=TASK, version=2)
    registry.rollouts.hold(2, by="bob")
    registry.rollouts.roll_out(2, by="bob")
    assert not any(entry.champion_changed for entry in rollouts(registry))


def test_what_was_approved_knowingly_over_the_current_release_is_not_asked_about_again(
    coordinator: Coordinator, registry: Registry
) -> None:
    first, second = (approve(coordinator, registry, seed, approved=False) for seed in (1, 2))
    registry.rollouts.approve(first.id, by="alice")
    registry.rollouts.approve(second.id, by="alice", sites=["north"], champion_changed=True)
    publish(coordinator, registry)
    assert registry.rollouts.roll_out(2, by="bob").state == "everywhere"


def test_a_rollback_that_was_held_goes_on_unasked(
    coordinator: Coordinator, registry: Registry
) -> None:
    for seed in (1, 2):
        approve(coordinator, registry, seed)
        publish(coordinator, registry)
    registry.rollouts.roll_back(1, by="anna", reason="misses cancers")
    publish(coordinator, registry)
    registry.rollouts.hold(3, by="anna")
    assert registry.rollouts.roll_out(3, by="anna").state == "everywhere"
