"""A rollback's weights: sites have them from the signed repository, whatever data/models lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import save_file

from common.errors import ReleaseError
from server.publishing.service import publish_approved, roll_back
from server.registry.registry import Registry
from tests.releases import Coordinator, approve, weights


@pytest.fixture
def lost(coordinator: Coordinator, registry: Registry) -> Path:
    """Return where data/models has the second of three releases' weights."""
    for seed in (1, 2, 3):
        made = approve(coordinator, registry, seed)
        publish(coordinator, registry)
        if seed == 2:
            path = coordinator.settings.models / f"{made.model_digest}.safetensors"
    return path


def publish(coordinator: Coordinator, registry: Registry) -> tuple[int, ...]:
    return publish_approved(coordinator.publisher, registry, coordinator.settings.models)


def back(coordinator: Coordinator, registry: Registry) -> None:
    models = coordinator.settings.models
    roll_back(coordinator.publisher, registry, models, 2, by="anna", reason="misses cancers")


def spoil(path: Path, fault: str) -> None:
    if fault == "absent":
        path.unlink()
    elif fault == "damaged":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        save_file(weights(7), path)


@pytest.mark.parametrize("fault", ["absent", "damaged", "other"])
@pytest.mark.parametrize("late", [False, True])
def test_a_rollback_is_published_from_the_signed_repository(
    coordinator: Coordinator, registry: Registry, lost: Path, fault: str, late: bool
) -> None:
    if late:
        back(coordinator, registry)
    spoil(lost, fault)
    if not late:
        back(coordinator, registry)
    assert publish(coordinator, registry) == (4,)
    made = registry.release(4)
    assert (made.model_digest, made.manifest.lineage.restores) == (lost.stem, 2)
    assert registry.release(3).state == "withdrawn"


def test_a_rollback_is_published_though_the_repositorys_own_file_is_gone(
    coordinator: Coordinator, registry: Registry, lost: Path
) -> None:
    (target,) = coordinator.targets.glob(f"*{lost.stem}*")
    whole = target.read_bytes()
    target.unlink()
    back(coordinator, registry)
    assert publish(coordinator, registry) == (4,)
    assert target.read_bytes() == whole, "sites may fetch it again"


@pytest.mark.parametrize("fault", ["absent", "damaged", "other"])
def test_nothing_is_withdrawn_for_weights_that_are_nowhere(
    coordinator: Coordinator, registry: Registry, lost: Path, fault: str
) -> None:
    (target,) = coordinator.targets.glob(f"*{lost.stem}*")
    target.write_bytes(target.read_bytes()[:-10])
    spoil(lost, fault)
    with pytest.raises(ReleaseError) as caught:
        back(coordinator, registry)
    assert caught.value.code == "weights-lost"
    assert [release.state for release in registry.releases()] == 3 * ["everywhere"]
    assert registry.approved_candidates() == ()
    models = coordinator.settings.models
    roll_back(coordinator.publisher, registry, models, 1, by="anna", reason="misses cancers")
    assert publish(coordinator, registry) == (4,), "another way back is open"
