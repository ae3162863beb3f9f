"""A pull from a coordinator, honest or lying: what is not verified is not taken in."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from client.releases import pull as release_pull
from client.releases.cache import ReleaseCache
from client.settings import SiteSettings
from common.errors import ConfigurationError
from common.signing import SigningKey
from deploy.certificates import make_authority
from server.publishing.publisher import ReleasePublisher
from tests.client.releases.caches import closed_port, version_of, versions_on_disk
from tests.releases import Coordinator, draft, weights


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


def test_a_release_that_is_there_is_not_fetched_again(
    coordinator: Coordinator, cache: ReleaseCache
) -> None:
    coordinator.publish(1)
    cache.refresh()
    for model in coordinator.targets.glob("*.safetensors"):
        model.unlink()
    assert version_of(cache.refresh()) == 1
    assert cache.status.code is None


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


def test_a_full_disk_is_noticed_before_the_download(
    coordinator: Coordinator, cache: ReleaseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator.publish(1)
    cache.refresh()
    coordinator.publish(2)
    monkeypatch.setattr(release_pull, "SPARE_BYTES", 2**60)
    assert version_of(cache.refresh()) == 1
    assert cache.status.code == "disk-full"


def test_a_proxy_is_never_asked_for_this_very_machine(
    coordinator: Coordinator, cache: ReleaseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    coordinator.publish(1)
    assert version_of(cache.refresh()) == 1
