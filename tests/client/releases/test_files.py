"""What is kept of releases on disk: damaged, half-written, killed at any step, and whole again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from client.releases import files as release_files
from client.releases.cache import ReleaseCache
from client.releases.files import CacheState
from client.settings import SiteSettings
from common.errors import ReleaseError
from tests.client.releases.caches import damage, version_of, versions_on_disk
from tests.releases import Coordinator


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


def test_a_site_that_never_pulled_has_an_empty_state(tmp_path: Path) -> None:
    assert release_files.ReleaseFiles(tmp_path / "absent").state() == CacheState()
