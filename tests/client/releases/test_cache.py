"""The release cache against a real TLS coordinator: what it keeps, through restarts and outages."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from client.releases import cache as release_cache
from client.releases.cache import ReleaseCache
from client.releases.decision_file import DecisionFile
from client.settings import SiteSettings
from common.errors import StoreError
from tests.client.releases.caches import (
    closed_port,
    damage,
    version_of,
    versions_on_disk,
    with_port,
)
from tests.releases import Coordinator, weights


def test_before_the_first_release_there_is_none_and_nothing_is_wrong(cache: ReleaseCache) -> None:
    assert cache.refresh() is None
    assert cache.current() is None
    assert cache.previous() is None
    assert (cache.status.code, cache.status.version) == (None, None)
    assert cache.status.verified_at is not None


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
