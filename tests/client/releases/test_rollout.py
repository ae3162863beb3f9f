"""Rings at the site: it takes what is meant for it, keeps what it has, and believes signatures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.releases.cache import ReleaseCache
from client.releases.peek import TimestampPeek
from client.settings import SiteSettings
from common.release import LatestRelease, LimitedRelease
from tests.releases import TASK, Coordinator, draft, served, weights


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator.create(tmp_path / "coordinator")


@pytest.fixture
def port(coordinator: Coordinator) -> Iterator[int]:
    with served(coordinator) as opened:
        yield opened


@pytest.fixture
def north(coordinator: Coordinator, port: int, tmp_path: Path) -> SiteSettings:
    return coordinator.site(tmp_path / "north", port)


@pytest.fixture
def south(coordinator: Coordinator, port: int, tmp_path: Path) -> SiteSettings:
    return coordinator.site(tmp_path / "south", port).model_copy(update={"name": "south"})


def canary(coordinator: Coordinator, seed: int, *sites: str) -> int:
    return coordinator.publisher.publish(draft(seed), weights(seed), sites=sites)


def served_at(site: SiteSettings) -> int | None:
    release = ReleaseCache(site).refresh()
    return release.version if release else None


def code(site: SiteSettings) -> str | None:
    return ReleaseCache(site).status.code


def test_a_canary_takes_it_first_and_the_others_keep_what_they_have(
    coordinator: Coordinator, north: SiteSettings, south: SiteSettings
) -> None:
    coordinator.publish(1)
    assert (served_at(north), served_at(south)) == (1, 1)
    assert canary(coordinator, 2, "north") == 2
    assert (served_at(north), served_at(south)) == (2, 1)
    assert code(south) is None
    assert coordinator.publisher.roll_out(lambda: LatestRelease(task=TASK, version=2))
    assert (served_at(north), served_at(south)) == (2, 2)


def test_the_first_release_of_all_may_be_a_canarys(
    coordinator: Coordinator, north: SiteSettings, south: SiteSettings
) -> None:
    canary(coordinator, 1, "north")
    assert (served_at(north), served_at(south)) == (1, None)
    assert code(south) is None


def test_a_held_release_goes_nowhere_else_and_nobody_goes_down(
    coordinator: Coordinator, north: SiteSettings, south: SiteSettings
) -> None:
    coordinator.publish(1)
    served_at(south)
    coordinator.publish(2)
    assert served_at(north) == 2
    held = LatestRelease(task=TASK, version=1, limited=(LimitedRelease(version=2, held=True),))
    assert coordinator.publisher.roll_out(lambda: held)
    assert (served_at(north), served_at(south)) == (2, 1)
    assert (code(north), code(south)) == (None, None)
    (north.releases / "v2" / "model.safetensors").write_bytes(b"damaged")
    assert served_at(north) == 2, "who has it may fetch it again"


def test_a_rollback_reaches_the_canary_and_the_others(
    coordinator: Coordinator, north: SiteSettings, south: SiteSettings
) -> None:
    coordinator.publish(1)
    canary(coordinator, 2, "north")
    assert (served_at(north), served_at(south)) == (2, 1)
    assert coordinator.publish(1, candidate="back-to-1") == 3
    for site in (north, south):
        release = ReleaseCache(site).refresh()
        assert release is not None
        assert (release.version, release.manifest.model_digest) == (3, draft(1).model_digest)


def test_an_altered_rollout_is_refused(
    coordinator: Coordinator, north: SiteSettings, south: SiteSettings
) -> None:
    coordinator.publish(1)
    served_at(south)
    canary(coordinator, 2, "north")
    (path,) = (
        p for p in coordinator.targets.glob("*.latest-*") if b'"version":2' in p.read_bytes()
    )
    path.write_bytes(path.read_bytes().replace(b"north", b"south"))
    assert (served_at(south), code(south)) == (1, "target-refused")
    assert (served_at(north), code(north)) == (None, "target-refused")


def test_a_rollout_that_forgets_a_release_is_a_rollback(
    coordinator: Coordinator, north: SiteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator.publish(1)
    coordinator.publish(2)
    assert served_at(north) == 2
    older = LatestRelease(task=TASK, version=1)
    assert not coordinator.publisher.roll_out(lambda: older), (
        "the publisher itself will not sign it"
    )
    monkeypatch.setattr(LatestRelease, "newest", 2)  # a coordinator that will
    assert coordinator.publisher.roll_out(lambda: older)
    monkeypatch.undo()
    assert (served_at(north), code(north)) == (2, "release-rollback")


def test_the_publisher_signs_a_rollout_once(coordinator: Coordinator) -> None:
    coordinator.publish(1)
    canary(coordinator, 2, "north")
    before = coordinator.publisher.rollout(TASK)
    assert before.limited == (LimitedRelease(version=2, sites=("north",)),)
    assert not coordinator.publisher.roll_out(lambda: before)
    assert coordinator.publisher.roll_out(lambda: LatestRelease(task=TASK, version=2))
    assert not coordinator.publisher.roll_out(lambda: LatestRelease(task=TASK, version=2))


def test_the_peek_sees_a_release_and_nothing_else(
    coordinator: Coordinator, north: SiteSettings, port: int
) -> None:
    peek = TimestampPeek(north)
    assert peek.moved(serving=0), "nothing was verified yet"
    served_at(north)
    assert not peek.moved(serving=0)
    coordinator.publish(1)
    assert peek.moved(serving=0)
    served_at(north)
    assert not peek.moved(serving=1)
    coordinator.publisher.refresh_timestamp()
    assert peek.moved(serving=1)
    peek.close()


def test_a_peek_that_fails_has_seen_nothing(north: SiteSettings) -> None:
    gone = north.model_copy(update={"coordinator_url": "https://127.0.0.1:1"})
    assert not TimestampPeek(gone).moved(serving=0)
    (north.trust / "ca.crt").write_bytes(b"no certificate")
    assert not TimestampPeek(north).moved(serving=0)


def test_a_peek_reads_no_endless_answer(coordinator: Coordinator, north: SiteSettings) -> None:
    (coordinator.metadata / "timestamp.json").write_bytes(b" " * 10_000_000)
    assert not TimestampPeek(north).moved(serving=0)
