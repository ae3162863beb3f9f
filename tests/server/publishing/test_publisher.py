"""Publishing: monotonic, repeatable, and signed anew in time."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from common.errors import NotFound, ReleaseError, StoreError
from server.publishing import publisher
from server.publishing.publisher import ReleasePublisher
from tests.releases import Coordinator, draft, weights
from tests.server.publishing.onlooker import Onlooker


def test_a_new_repository_is_valid_and_empty(coordinator: Coordinator, onlooker: Onlooker) -> None:
    assert onlooker.newest() is None
    assert coordinator.publisher.releases() == ()


def test_initialising_again_changes_nothing(coordinator: Coordinator) -> None:
    before = (coordinator.metadata / "timestamp.json").read_bytes()
    root = ReleasePublisher(coordinator.settings).initialise()
    assert root == (coordinator.metadata / "1.root.json").read_bytes()
    assert (coordinator.metadata / "timestamp.json").read_bytes() == before


def test_releases_are_numbered_and_found(coordinator: Coordinator, onlooker: Onlooker) -> None:
    assert [coordinator.publish(1), coordinator.publish(2)] == [1, 2]
    newest = onlooker.newest()
    assert newest is not None
    assert newest.version == 2
    assert newest.model_digest == draft(2).model_digest
    assert [m.version for m in coordinator.publisher.releases()] == [1, 2]
    assert coordinator.publisher.manifest(2) == newest
    with pytest.raises(NotFound):
        coordinator.publisher.manifest(3)


def test_the_same_candidate_is_one_release(coordinator: Coordinator) -> None:
    assert coordinator.publish(1) == 1
    before = sorted(coordinator.metadata.iterdir())
    assert coordinator.publish(1) == 1
    assert sorted(coordinator.metadata.iterdir()) == before


def test_a_candidate_cannot_change_its_weights(coordinator: Coordinator) -> None:
    coordinator.publish(1, candidate="same")
    with pytest.raises(ReleaseError) as caught:
        coordinator.publish(2, candidate="same")
    assert caught.value.code == "candidate-differs"


def test_weights_of_another_model_are_refused(coordinator: Coordinator) -> None:
    with pytest.raises(ReleaseError) as caught:
        coordinator.publisher.publish(draft(1), weights(2))
    assert caught.value.code == "model-digest"
    assert coordinator.publisher.releases() == ()


def test_clinical_rollback_is_old_weights_under_a_higher_version(
    coordinator: Coordinator, onlooker: Onlooker
) -> None:
    coordinator.publish(1)
    coordinator.publish(2)
    assert coordinator.publish(1, candidate="back-to-1") == 3
    newest = onlooker.newest()
    assert newest is not None
    assert (newest.version, newest.model_digest) == (3, draft(1).model_digest)
    assert len(list(coordinator.targets.glob("*.safetensors"))) == 2


def test_each_task_has_a_newest_release_of_its_own(
    coordinator: Coordinator, onlooker: Onlooker
) -> None:
    coordinator.publish(1)
    coordinator.publish(2, task="dermoscopy")
    mine, other = onlooker.newest(), onlooker.newest("dermoscopy")
    assert mine is not None
    assert other is not None
    assert (mine.version, other.version) == (1, 2)


def test_damaged_target_files_are_written_again(
    coordinator: Coordinator, onlooker: Onlooker
) -> None:
    coordinator.publish(1)
    (model,) = coordinator.targets.glob("*.safetensors")
    model.write_bytes(b"half")
    coordinator.publish(1, candidate="again")
    assert onlooker.newest() is not None


def clocked(coordinator: Coordinator, days: float) -> ReleasePublisher:
    later = datetime.now(UTC) + timedelta(days=days)
    return ReleasePublisher(coordinator.settings, clock=lambda: later)


@pytest.mark.parametrize(
    ("days", "fresh"),
    [
        (0.5, {"timestamp"}),
        (16, {"timestamp", "snapshot"}),
        (190, {"timestamp", "snapshot", "targets"}),
    ],
)
def test_refreshing_signs_what_is_half_over(
    coordinator: Coordinator, days: float, fresh: set[str]
) -> None:
    def versions() -> dict[str, int]:
        state = coordinator.publisher._repository.load()
        return {s.type: s.version for s in (state.timestamp, state.snapshot, state.targets)}

    before = versions()
    expires = clocked(coordinator, days).refresh_timestamp()
    assert {kind for kind, version in versions().items() if version > before[kind]} == fresh
    life = timedelta(seconds=coordinator.settings.timestamp_seconds)
    assert abs(expires - datetime.now(UTC) - timedelta(days=days) - life) < timedelta(minutes=1)


def test_a_refresh_is_due_after_a_third_of_the_life(coordinator: Coordinator) -> None:
    due = coordinator.publisher.refresh_due() - datetime.now(UTC)
    third = timedelta(seconds=coordinator.settings.timestamp_seconds / 3)
    assert abs(due - third) < timedelta(minutes=1)


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"signed": 1}'])
def test_a_damaged_repository_is_said_to_be(
    coordinator: Coordinator, name: str, content: bytes | None
) -> None:
    path = coordinator.metadata / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ReleaseError) as caught:
        coordinator.publish(1)
    missing = name == "timestamp.json" and content is None
    assert caught.value.code == ("repository-missing" if missing else "repository-damaged")


def test_publishers_in_two_threads_never_interleave(
    coordinator: Coordinator, onlooker: Onlooker
) -> None:
    versions: list[int] = []

    def work(first: int) -> None:
        publisher = ReleasePublisher(coordinator.settings)
        for seed in (first, first + 1, first + 2):
            versions.append(publisher.publish(draft(seed), weights(seed)))

    threads = [threading.Thread(target=work, args=(first,)) for first in (10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == [1, 2, 3, 4, 5, 6]
    assert onlooker.newest() is not None


def test_a_held_lock_is_named_after_its_patience(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "LOCK_SECONDS", 0.05)
    with coordinator.publisher._locked(), pytest.raises(StoreError) as caught:
        ReleasePublisher(coordinator.settings).publish(draft(1), weights(1))
    assert caught.value.code == "repository-busy"
