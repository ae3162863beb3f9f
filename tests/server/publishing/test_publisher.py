"""Publishing: monotonic, repeatable, and whole at every instant for a client that looks on."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from safetensors.numpy import load
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from common.errors import ConfigurationError, NotFound, ReleaseError, StoreError
from common.release import ReleaseManifest, parse_latest, parse_manifest
from common.signing import SigningKey
from common.update import tensors_digest
from server.publishing import publisher, repository
from server.publishing.keys import ROLES
from server.publishing.publisher import ReleasePublisher
from tests.releases import TASK, Coordinator, draft, weights


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator.create(tmp_path / "coordinator")


class FolderFetcher(FetcherInterface):
    """A TUF client's network, straight from the repository's folder."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield Path(url).read_bytes()
        except FileNotFoundError as error:
            raise DownloadHTTPError("not found", 404) from error


class Onlooker:
    """A TUF client that keeps its state between looks."""

    def __init__(self, coordinator: Coordinator, folder: Path) -> None:
        self._coordinator = coordinator
        self._folder = folder
        (folder / "files").mkdir(parents=True)

    def newest(self, task: str = TASK) -> ReleaseManifest | None:
        """Pull and verify everything, as a site does; raises whatever TUF raises."""
        releases = self._coordinator.settings.releases
        updater = Updater(
            str(self._folder),
            f"{releases}/metadata/",
            str(self._folder / "files"),
            f"{releases}/targets/",
            fetcher=FolderFetcher(),
            bootstrap=(releases / "metadata" / "1.root.json").read_bytes(),
        )
        updater.refresh()
        pointer = updater.get_targetinfo(f"latest-{task}.json")
        if pointer is None:
            return None
        version = parse_latest(Path(updater.download_target(pointer)).read_bytes()).version
        info = updater.get_targetinfo(f"release-{version}.json")
        assert info is not None
        manifest = parse_manifest(Path(updater.download_target(info)).read_bytes())
        model = updater.get_targetinfo(manifest.file.name)
        assert model is not None
        tensors = load(Path(updater.download_target(model)).read_bytes())
        assert tensors_digest(tensors) == manifest.model_digest
        assert (manifest.version, manifest.task) == (version, task)
        return manifest


@pytest.fixture
def onlooker(coordinator: Coordinator, tmp_path: Path) -> Onlooker:
    return Onlooker(coordinator, tmp_path / "onlooker")


def test_a_new_repository_is_valid_and_empty(coordinator: Coordinator, onlooker: Onlooker) -> None:
    assert onlooker.newest() is None
    assert coordinator.publisher.releases() == ()


def test_initialising_again_changes_nothing(coordinator: Coordinator) -> None:
    before = (coordinator.metadata / "timestamp.json").read_bytes()
    root = ReleasePublisher(coordinator.settings).initialise()
    assert root == (coordinator.metadata / "1.root.json").read_bytes()
    assert (coordinator.metadata / "timestamp.json").read_bytes() == before


def test_role_keys_are_four_and_secret(coordinator: Coordinator) -> None:
    files = sorted((coordinator.settings.keys / "tuf").iterdir())
    assert [f.name for f in files] == sorted(f"{role}.pem" for role in ROLES)
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    assert len({f.read_bytes() for f in files}) == 4


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


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_key_that_the_root_does_not_name_publishes_nothing(
    coordinator: Coordinator, onlooker: Onlooker, role: str
) -> None:
    coordinator.publish(1)
    (coordinator.settings.keys / "tuf" / f"{role}.pem").write_bytes(SigningKey.generate().pem())
    with pytest.raises(ConfigurationError) as caught:
        coordinator.publish(2)
    assert caught.value.code == "key-unknown-to-root"
    newest = onlooker.newest()
    assert newest is not None
    assert newest.version == 1


def test_the_root_key_may_be_taken_off_the_machine(coordinator: Coordinator) -> None:
    (coordinator.settings.keys / "tuf" / "root.pem").unlink()
    assert coordinator.publish(1) == 1


def test_a_key_that_others_can_read_signs_nothing(coordinator: Coordinator) -> None:
    (coordinator.settings.keys / "tuf" / "targets.pem").chmod(0o640)
    with pytest.raises(ConfigurationError) as caught:
        coordinator.publish(1)
    assert caught.value.code == "key-readable"


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


PUBLISH_WRITES = 6  # model, manifest, pointer, targets, snapshot, timestamp
REFRESH_WRITES = 1
CREATE_WRITES = 4  # root, targets, snapshot, timestamp


def killed_at(write: int, *, after: bool, action: Callable[[], object]) -> bool:
    """Run ``action`` in a child that is killed by SIGKILL at its ``write``-th file.

    ``after`` False leaves a half-written temporary file, True the whole file in its place.
    Returns whether the child was killed (False: it had fewer writes, and ended).
    """
    child = os.fork()
    if child == 0:
        count = 0
        honest = repository.write_public

        def deadly(path: Path, data: bytes) -> None:
            nonlocal count
            count += 1
            if count < write:
                honest(path, data)
                return
            if after:
                honest(path, data)
            else:
                path.with_name(f".{path.name}.draft").write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        repository.write_public = deadly
        try:
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("write", range(1, PUBLISH_WRITES + 1))
def test_a_kill_at_any_write_of_publishing_leaves_old_or_new_and_is_repeatable(
    coordinator: Coordinator, onlooker: Onlooker, write: int, after: bool
) -> None:
    coordinator.publish(1)
    first = onlooker.newest()
    assert killed_at(write, after=after, action=lambda: coordinator.publish(2))
    seen = onlooker.newest()
    committed = write == PUBLISH_WRITES and after
    assert seen is not None
    assert seen.version == (2 if committed else 1)
    assert seen == first or committed
    # Another candidate may come first; the client that looked on follows without a complaint.
    assert coordinator.publish(3) == (3 if committed else 2)
    assert onlooker.newest() is not None
    assert coordinator.publish(2) == (2 if committed else 3)
    newest = onlooker.newest()
    assert newest is not None
    assert newest.version == 3
    assert not [*coordinator.metadata.glob(".*"), *coordinator.targets.glob(".*")]


def test_publishing_has_no_more_writes_than_are_killed_above(coordinator: Coordinator) -> None:
    assert not killed_at(PUBLISH_WRITES + 1, after=True, action=lambda: coordinator.publish(1))
    assert coordinator.publisher.releases()[0].version == 1


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_in_a_refresh_leaves_a_valid_timestamp(
    coordinator: Coordinator, onlooker: Onlooker, after: bool
) -> None:
    coordinator.publish(1)
    publisher = coordinator.publisher
    assert killed_at(REFRESH_WRITES, after=after, action=publisher.refresh_timestamp)
    assert onlooker.newest() is not None
    publisher.refresh_timestamp()
    assert onlooker.newest() is not None


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("write", range(1, CREATE_WRITES + 1))
def test_a_kill_in_the_making_of_a_repository_is_made_good(
    coordinator: Coordinator, onlooker: Onlooker, write: int, after: bool
) -> None:
    shutil.rmtree(coordinator.settings.releases)
    assert killed_at(write, after=after, action=coordinator.publisher.initialise)
    coordinator.publisher.initialise()
    assert coordinator.publish(1) == 1
    assert onlooker.newest() is not None
