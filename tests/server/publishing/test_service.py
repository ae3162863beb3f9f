"""From an approved candidate in the registry to a release that is recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from safetensors.numpy import save_file

from common.errors import ReleaseError, StoreError
from common.release import ReleaseManifest
from server.publishing.publisher import ReleasePublisher
from server.publishing.service import keep_timestamp_fresh, publish_approved
from server.registry.registry import Registry
from tests.releases import Coordinator, approve, weights


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
    assert publish(coordinator, registry) == (2,)


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
