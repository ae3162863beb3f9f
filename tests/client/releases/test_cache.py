"""The release cache against a real TLS coordinator: honest, broken, lying and gone."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from client.releases import cache as release_cache
from client.releases import files as release_files
from client.releases import pull as release_pull
from client.releases.cache import ReleaseCache
from client.releases.decision_file import DecisionFile
from client.releases.files import CacheState
from client.settings import SiteSettings
from common.errors import ConfigurationError, ReleaseError, StoreError
from common.signing import SigningKey
from deploy.certificates import make_authority
from server.publishing.publisher import ReleasePublisher
from tests.releases import Coordinator, draft, served, weights


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Coordinator, int, Path]]:
    """One served coordinator for the module; its folder is restored after each test."""
    folder = tmp_path_factory.mktemp("federation")
    coordinator = Coordinator.create(folder / "coordinator")
    with served(coordinator) as port:
        backup = folder / "backup"
        shutil.copytree(coordinator.settings.folder, backup)
        yield coordinator, port, backup


@pytest.fixture
def coordinator(pristine: tuple[Coordinator, int, Path]) -> Iterator[Coordinator]:
    made, _, backup = pristine
    yield made
    for part in ("data/releases", "keys/tuf"):
        shutil.rmtree(made.settings.folder / part)
        shutil.copytree(backup / part, made.settings.folder / part)


@pytest.fixture
def port(pristine: tuple[Coordinator, int, Path]) -> int:
    return pristine[1]


@pytest.fixture
def site(coordinator: Coordinator, port: int, tmp_path: Path) -> SiteSettings:
    return coordinator.site(tmp_path / "site", port)


@pytest.fixture
def cache(site: SiteSettings) -> ReleaseCache:
    return ReleaseCache(site)


def version_of(release: release_cache.LocalRelease | None) -> int | None:
    return release.version if release else None


def versions_on_disk(site: SiteSettings) -> set[str]:
    return {path.name for path in site.releases.glob("v*")}


def with_port(site: SiteSettings, port: int) -> SiteSettings:
    return site.model_copy(update={"coordinator_url": f"https://127.0.0.1:{port}"})


def test_before_the_first_release_there_is_none_and_nothing_is_wrong(cache: ReleaseCache) -> None:
    assert cache.refresh() is None
    assert cache.current() is None
    assert cache.previous() is None
    assert (cache.status.code, cache.status.version) == (None, None)
    assert cache.status.verified_at is not None


def test_an_honest_pull_brings_the_very_weights(
    coordinator: Coordinator, cache: ReleaseCache
) -> None:
    coordinator.publish(1)
    release = cache.refresh()
    assert release is not None
    assert release.manifest == coordinator.publisher.manifest(1)
    loaded = release.load()
    assert loaded.keys() == weights(1).keys()
    for name, array in weights(1).items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].shape == array.shape
    assert cache.status.code is None
    assert cache.status.version == 1


def test_an_upgrade_keeps_the_release_before_and_removes_older_ones(
    coordinator: Coordinator, cache: ReleaseCache, site: SiteSettings
) -> None:
    for seed in (1, 2, 3):
        coordinator.publish(seed)
        assert version_of(cache.refresh()) == seed
    assert version_of(cache.previous()) == 2
    assert versions_on_disk(site) == {"v2", "v3"}
    assert not (site.releases / "incoming").exists()


def test_what_answers_here_is_kept_however_many_newer_ones_wait(
    coordinator: Coordinator, cache: ReleaseCache, site: SiteSettings
) -> None:
    coordinator.publish(1)
    first = cache.refresh()
    assert first is not None
    DecisionFile(site.releases).change(lambda state: state.answering(first.manifest))
    for seed in (2, 3, 4):
        coordinator.publish(seed)
        assert version_of(cache.refresh()) == seed
    assert versions_on_disk(site) == {"v1", "v3", "v4"}
    assert version_of(ReleaseCache(site).answering()) == 1
    assert version_of(cache.find(2)) is None
    damage(site.releases / "v1" / "manifest.json")
    assert ReleaseCache(site).answering() is None


def test_a_release_that_is_there_is_not_fetched_again(
    coordinator: Coordinator, cache: ReleaseCache
) -> None:
    coordinator.publish(1)
    cache.refresh()
    for model in coordinator.targets.glob("*.safetensors"):
        model.unlink()
    assert version_of(cache.refresh()) == 1
    assert cache.status.code is None


def test_tuf_state_and_release_survive_a_restart_without_the_network(
    coordinator: Coordinator, cache: ReleaseCache, site: SiteSettings
) -> None:
    coordinator.publish(1)
    cache.refresh()
    verified_at = cache.status.verified_at
    again = ReleaseCache(with_port(site, closed_port()))
    release = again.current()
    assert release is not None
    assert release.load().keys() == weights(1).keys()
    assert again.status.verified_at == verified_at


def test_clinical_rollback_arrives_as_a_higher_version(
    coordinator: Coordinator, cache: ReleaseCache
) -> None:
    coordinator.publish(1)
    coordinator.publish(2)
    cache.refresh()
    coordinator.publish(1, candidate="back")
    release = cache.refresh()
    assert release is not None
    assert (release.version, release.manifest.model_digest) == (3, draft(1).model_digest)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_an_outage_takes_nothing_away_and_is_remembered_since_it_began(
    coordinator: Coordinator, cache: ReleaseCache, site: SiteSettings
) -> None:
    coordinator.publish(1)
    cache.refresh()
    began = datetime(2030, 1, 1, tzinfo=UTC)
    times = iter([began, began + timedelta(hours=1)])
    gone = ReleaseCache(with_port(site, closed_port()), clock=lambda: next(times))
    assert version_of(gone.refresh()) == 1
    assert version_of(gone.refresh()) == 1
    assert (gone.status.code, gone.status.failing_since) == ("coordinator-unreachable", began)
    restarted = ReleaseCache(site)
    assert restarted.status.failing_since == began
    assert version_of(restarted.refresh()) == 1
    assert (restarted.status.code, restarted.status.failing_since) == (None, None)


def test_an_expired_timestamp_keeps_the_current_release(
    coordinator: Coordinator, cache: ReleaseCache
) -> None:
    coordinator.publish(1)
    cache.refresh()
    past = datetime.now(UTC) - timedelta(days=3)
    stale = ReleasePublisher(coordinator.settings, clock=lambda: past)
    stale.refresh_timestamp()
    assert version_of(cache.refresh()) == 1
    assert cache.status.code == "metadata-expired"
    coordinator.publisher.refresh_timestamp()
    assert version_of(cache.refresh()) == 1
    assert cache.status.code is None


def test_a_site_that_never_saw_a_release_takes_none_from_expired_metadata(
    coordinator: Coordinator, cache: ReleaseCache
) -> None:
    past = datetime.now(UTC) - timedelta(days=3)
    ReleasePublisher(coordinator.settings, clock=lambda: past).publish(draft(1), weights(1))
    assert cache.refresh() is None
    assert cache.status.code == "metadata-expired"


def test_old_metadata_replayed_is_refused(
    coordinator: Coordinator, cache: ReleaseCache, tmp_path: Path
) -> None:
    coordinator.publish(1)
    old = tmp_path / "old"
    shutil.copytree(coordinator.metadata, old)
    coordinator.publish(2)
    cache.refresh()
    shutil.copytree(old, coordinator.metadata, dirs_exist_ok=True)
    assert version_of(cache.refresh()) == 2
    assert cache.status.code == "metadata-rollback"


def test_old_metadata_is_refused_even_when_tufs_own_state_was_lost(
    coordinator: Coordinator, cache: ReleaseCache, site: SiteSettings, tmp_path: Path
) -> None:
    coordinator.publish(1)
    old = tmp_path / "old"
    shutil.copytree(coordinator.metadata, old)
    coordinator.publish(2)
    cache.refresh()
    shutil.copytree(old, coordinator.metadata, dirs_exist_ok=True)
    shutil.rmtree(site.releases / "tuf")
    assert version_of(ReleaseCache(site).refresh()) == 2
    status = ReleaseCache(site).status
    assert status.code == "release-rollback"


def test_a_repository_that_lost_its_releases_is_a_rollback(
    coordinator: Coordinator, cache: ReleaseCache, site: SiteSettings, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    shutil.copytree(coordinator.metadata, empty)
    coordinator.publish(1)
    cache.refresh()
    shutil.copytree(empty, coordinator.metadata, dirs_exist_ok=True)
    shutil.rmtree(site.releases / "tuf")
    assert version_of(cache.refresh()) == 1
    assert cache.status.code == "release-rollback"


@pytest.mark.parametrize("kind", ["model-", "release-", "latest-"])
@pytest.mark.parametrize("how", ["altered", "longer", "shorter", "absent"])
def test_altered_bytes_are_thrown_away(
    coordinator: Coordinator, cache: ReleaseCache, site: SiteSettings, kind: str, how: str
) -> None:
    coordinator.publish(1)
    cache.refresh()
    before = set(coordinator.targets.iterdir())
    coordinator.publish(2)
    (path,) = (p for p in set(coordinator.targets.iterdir()) - before if f".{kind}" in p.name)
    data = path.read_bytes()
    if how == "absent":
        path.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"altered": flipped, "longer": data + b" ", "shorter": data[:-1]}[how])
    assert version_of(cache.refresh()) == 1
    assert cache.status.code == ("coordinator-error" if how == "absent" else "target-refused")
    assert versions_on_disk(site) == {"v1"}
    if how != "absent":
        path.write_bytes(data)
        assert version_of(cache.refresh()) == 2


def test_a_mixed_snapshot_is_refused(
    coordinator: Coordinator, cache: ReleaseCache, tmp_path: Path
) -> None:
    """Old, validly signed targets under the newest snapshot's name."""
    coordinator.publish(1)
    cache.refresh()
    coordinator.publish(2)
    shutil.copy(coordinator.metadata / "2.targets.json", coordinator.metadata / "3.targets.json")
    assert version_of(cache.refresh()) == 1
    assert cache.status.code in {"target-refused", "metadata-rollback"}


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_metadata_signed_by_a_foreign_key_is_refused(
    coordinator: Coordinator,
    cache: ReleaseCache,
    role: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coordinator.publish(1)
    cache.refresh()
    key = coordinator.settings.keys / "tuf" / f"{role}.pem"
    key.write_bytes(SigningKey.generate().pem())
    monkeypatch.setattr(
        "server.publishing.repository.Root.verify_delegate", lambda *_: None
    )  # a coordinator that was taken over does not check itself
    coordinator.publish(2)
    monkeypatch.undo()
    assert version_of(cache.refresh()) == 1
    assert cache.status.code == "metadata-unsigned"


def test_a_coordinator_with_another_root_is_refused(
    coordinator: Coordinator, cache: ReleaseCache
) -> None:
    coordinator.publish(1)
    cache.refresh()
    for folder in (coordinator.settings.releases, coordinator.settings.keys / "tuf"):
        shutil.rmtree(folder)
    coordinator.publisher.initialise()
    for seed in (1, 2, 3):
        coordinator.publish(seed)
    assert version_of(cache.refresh()) == 1
    assert cache.status.code == "metadata-unsigned"


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff" * 100, b"[" * 100_000])
def test_metadata_that_is_none_is_refused(
    coordinator: Coordinator, cache: ReleaseCache, content: bytes
) -> None:
    coordinator.publish(1)
    cache.refresh()
    (coordinator.metadata / "timestamp.json").write_bytes(content)
    assert version_of(cache.refresh()) == 1
    assert cache.status.code in {"metadata-refused", "target-refused"}


def test_a_certificate_of_another_ca_is_not_trusted(
    coordinator: Coordinator, port: int, tmp_path: Path
) -> None:
    coordinator.publish(1)
    site = coordinator.site(tmp_path / "other", port, ca=make_authority().certificate)
    cache = ReleaseCache(site)
    assert cache.refresh() is None
    assert cache.status.code == "coordinator-untrusted"


def test_a_wrong_start_up_kit_is_a_configuration_error(site: SiteSettings) -> None:
    plain = site.model_copy(update={"coordinator_url": "http://127.0.0.1:1"})
    with pytest.raises(ConfigurationError):
        ReleaseCache(plain).refresh()
    (site.trust / "root.json").unlink()
    with pytest.raises(ConfigurationError):
        ReleaseCache(site).refresh()


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json"])
def test_a_corrupted_current_falls_back_with_an_alarm_and_heals(
    coordinator: Coordinator, cache: ReleaseCache, site: SiteSettings, name: str
) -> None:
    for seed in (1, 2):
        coordinator.publish(seed)
        cache.refresh()
    damage(site.releases / "v2" / name)
    restarted = ReleaseCache(site)
    assert version_of(restarted.current()) == 1
    assert (restarted.status.code, restarted.status.version) == ("release-corrupted", 1)
    assert version_of(restarted.refresh()) == 2
    assert (restarted.status.code, restarted.status.version) == (None, 2)
    assert version_of(restarted.previous()) == 1


def test_both_corrupted_is_none_until_it_is_fetched_again(
    coordinator: Coordinator, cache: ReleaseCache, site: SiteSettings
) -> None:
    for seed in (1, 2):
        coordinator.publish(seed)
        cache.refresh()
    for version in (1, 2):
        damage(site.releases / f"v{version}" / "model.safetensors")
    assert cache.current() is None
    assert cache.previous() is None
    assert cache.status.code == "release-corrupted"
    assert version_of(cache.refresh()) == 2


def test_loading_verifies_what_it_returns(coordinator: Coordinator, cache: ReleaseCache) -> None:
    coordinator.publish(1)
    release = cache.refresh()
    assert release is not None
    damage(release.path)
    with pytest.raises(ReleaseError) as caught:
        release.load()
    assert caught.value.code == "release-corrupted"


@pytest.mark.parametrize("content", [b"", b"not json", b'{"current": 5}'])
def test_a_damaged_pointer_is_rebuilt_from_the_folders(
    coordinator: Coordinator, cache: ReleaseCache, site: SiteSettings, content: bytes
) -> None:
    for seed in (1, 2):
        coordinator.publish(seed)
        cache.refresh()
    (site.releases / "state.json").write_bytes(content)
    (site.releases / "freshness.json").write_bytes(content)
    again = ReleaseCache(site)
    assert version_of(again.current()) == 2
    assert version_of(again.previous()) == 1


def test_a_rejected_version_gives_way_to_the_previous_until_a_higher_one(
    coordinator: Coordinator, cache: ReleaseCache
) -> None:
    for seed in (1, 2):
        coordinator.publish(seed)
        cache.refresh()
    assert version_of(cache.reject(2, "self-test-failed")) == 1
    assert version_of(cache.refresh()) == 1
    assert cache.status.code == "release-rejected"
    coordinator.publish(3)
    assert version_of(cache.refresh()) == 3
    assert cache.status.code is None
    assert version_of(cache.previous()) == 1


def test_a_full_disk_is_noticed_before_the_download(
    coordinator: Coordinator, cache: ReleaseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator.publish(1)
    cache.refresh()
    coordinator.publish(2)
    monkeypatch.setattr(release_pull, "SPARE_BYTES", 2**60)
    assert version_of(cache.refresh()) == 1
    assert cache.status.code == "disk-full"


def test_a_file_in_the_way_is_a_status_and_no_crash(
    coordinator: Coordinator, cache: ReleaseCache, site: SiteSettings
) -> None:
    coordinator.publish(1)
    cache.refresh()
    shutil.rmtree(site.releases / "tuf")
    (site.releases / "tuf").write_text("in the way")
    assert version_of(cache.refresh()) == 1
    assert cache.status.code == "disk"


def test_a_half_download_of_a_killed_process_is_cleaned_up(
    coordinator: Coordinator, cache: ReleaseCache, site: SiteSettings
) -> None:
    coordinator.publish(1)
    cache.refresh()
    half = site.releases / "incoming" / "tmp123"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    coordinator.publish(2)
    assert version_of(cache.refresh()) == 2
    assert not half.exists()


DEADLY = """
import os, signal, sys
from pathlib import Path
from client.releases import files as release_files
from client.releases import pull as release_pull
from client.releases.cache import ReleaseCache
from client.settings import SiteSettings

step, when = sys.argv[2], sys.argv[3]
def deadly(owner, name):
    honest = getattr(owner, name)
    def call(*a, **k):
        if when == "after":
            honest(*a, **k)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, call)
owner, name = step.split(".")
deadly({"files": release_files.ReleaseFiles, "pull": release_pull}[owner], name)
ReleaseCache(SiteSettings.read(Path(sys.argv[1]))).refresh()
"""


@pytest.mark.parametrize(
    ("step", "when", "expected"),
    [
        ("pull._sync", "before", 1),
        ("files.place", "before", 1),
        ("files.place", "after", 1),
        ("files.write_state", "after", 2),
        ("files.remove_except", "after", 2),
    ],
)
def test_a_kill_at_any_step_of_an_install_leaves_old_or_new(
    coordinator: Coordinator,
    cache: ReleaseCache,
    site: SiteSettings,
    step: str,
    when: str,
    expected: int,
) -> None:
    coordinator.publish(1)
    cache.refresh()
    coordinator.publish(2)
    command = [sys.executable, "-c", DEADLY, str(site.folder), step, when]
    ended = subprocess.run(command, check=False, timeout=60, cwd=Path(__file__).parents[3])
    assert ended.returncode == -signal.SIGKILL
    restarted = ReleaseCache(site)
    assert version_of(restarted.current()) == expected
    assert restarted.status.code is None
    assert version_of(restarted.refresh()) == 2
    assert versions_on_disk(site) == {"v1", "v2"}


def test_two_caches_on_one_folder_do_not_disturb_each_other(
    coordinator: Coordinator, site: SiteSettings
) -> None:
    seen: list[int | None] = []

    def work() -> None:
        mine = ReleaseCache(site)
        for _ in range(4):
            seen.append(version_of(mine.refresh()))
            seen.append(version_of(mine.current()))

    coordinator.publish(1)
    ReleaseCache(site).refresh()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    coordinator.publish(2)
    for thread in threads:
        thread.join()
    assert set(seen) <= {1, 2}
    assert version_of(ReleaseCache(site).refresh()) == 2


def test_a_held_lock_is_a_status(
    cache: ReleaseCache, site: SiteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_cache, "LOCK_SECONDS", 0.05)
    with ReleaseCache(site)._locked():
        assert cache.refresh() is None
        assert cache.status.code == "cache-busy"
        with pytest.raises(StoreError):
            cache.reject(1, "self-test-failed")


def test_a_site_that_never_pulled_has_an_empty_state(tmp_path: Path) -> None:
    assert release_files.ReleaseFiles(tmp_path / "absent").state() == CacheState()


def test_a_proxy_is_never_asked_for_this_very_machine(
    coordinator: Coordinator, cache: ReleaseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    coordinator.publish(1)
    assert version_of(cache.refresh()) == 1
