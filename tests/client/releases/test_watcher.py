import threading
from datetime import UTC, datetime

import pytest
import torch

from client.inference.engine import InferenceEngine, ModelHolder
from client.releases.cache import CacheStatus, LocalRelease
from client.releases.watcher import ReleaseWatcher
from common.errors import ConfigurationError, ModelError, ReleaseError
from tests.client.serving import LONG, FakeReleases, release


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[int, LocalRelease]:
    folder = tmp_path_factory.mktemp("releases")
    return {version: release(folder, version) for version in (1, 2, 3)}


class Site:
    """A watcher whose loader can be told to refuse versions."""

    def __init__(self, current: LocalRelease | None = None) -> None:
        self.releases = FakeReleases(current)
        self.holder = ModelHolder()
        self.refusals: dict[int, Exception] = {}
        self.loaded: list[int] = []
        self.watcher = ReleaseWatcher(self.releases, self.holder, load=self.load, poll_seconds=LONG)

    def load(self, local: LocalRelease) -> InferenceEngine:
        self.loaded.append(local.version)
        if local.version in self.refusals:
            raise self.refusals[local.version]
        return InferenceEngine.load(local, device=torch.device("cpu"))

    def publish(self, local: LocalRelease) -> None:
        self.releases.published.append(local)
        self.watcher.poll()

    @property
    def version(self) -> int | None:
        engine = self.holder.current
        return None if engine is None else engine.version

    @property
    def codes(self) -> list[str]:
        return [alarm.code for alarm in self.watcher.alarms()]


BROKEN = ReleaseError("It fails.", code="release-self-test")


def test_the_release_on_disk_is_served_without_the_coordinator(
    versions: dict[int, LocalRelease],
) -> None:
    site = Site(versions[1])
    site.releases.trouble = AssertionError("the network was asked")
    site.watcher.serve_local()
    assert (site.version, site.codes) == (1, [])


def test_nothing_on_disk_is_no_alarm() -> None:
    site = Site()
    site.watcher.serve_local()
    site.watcher.poll()
    assert (site.version, site.codes) == (None, [])


def test_a_newer_release_is_swapped_in_once(versions: dict[int, LocalRelease]) -> None:
    site = Site(versions[1])
    site.watcher.serve_local()
    site.publish(versions[2])
    site.watcher.poll()
    assert (site.version, site.loaded, site.watcher.swaps) == (2, [1, 2], 2)


@pytest.mark.parametrize("error", [BROKEN, ModelError("No fit.")])
def test_a_bad_release_is_rejected_and_the_old_one_stays(
    versions: dict[int, LocalRelease], error: Exception
) -> None:
    site = Site(versions[1])
    site.watcher.serve_local()
    site.refusals[2] = error
    site.publish(versions[2])
    assert site.version == 1
    assert [version for version, _ in site.releases.rejected] == [2]
    assert site.codes == [error.code]  # type: ignore[attr-defined]
    site.watcher.poll()
    assert (site.loaded, site.watcher.load_failures) == ([1, 2], 1)
    assert site.codes, "the alarm stands until a better release comes"
    site.publish(versions[3])
    assert (site.version, site.codes) == (3, [])


def test_a_start_on_a_bad_release_serves_the_one_before_with_an_alarm(
    versions: dict[int, LocalRelease],
) -> None:
    site = Site(versions[1])
    site.releases.kept.append(versions[2])
    site.refusals[2] = BROKEN
    site.watcher.serve_local()
    assert (site.version, site.codes) == (1, ["release-self-test"])
    site.watcher.poll()
    assert site.codes == ["release-self-test"]


@pytest.mark.parametrize("code", ["release-corrupted", "device-memory"])
def test_a_passing_trouble_is_no_verdict_on_the_release(
    versions: dict[int, LocalRelease], code: str
) -> None:
    site = Site(versions[1])
    site.watcher.serve_local()
    site.refusals[2] = ReleaseError("Not now.", code=code)
    site.publish(versions[2])
    assert (site.version, site.codes, site.releases.rejected) == (1, [code], [])
    site.refusals.clear()
    site.watcher.poll()
    assert (site.version, site.codes) == (2, [])


def test_a_version_never_goes_down_while_serving(versions: dict[int, LocalRelease]) -> None:
    site = Site(versions[2])
    site.watcher.serve_local()
    site.releases.kept = [versions[1]]
    site.watcher.poll()
    assert (site.version, site.loaded) == (2, [2])


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (ConfigurationError("No root.", code="trust-missing"), "trust-missing"),
        (ZeroDivisionError("a patient's name"), "release-watcher"),
    ],
)
def test_trouble_of_any_kind_is_an_alarm_that_passes(
    versions: dict[int, LocalRelease], trouble: Exception, code: str
) -> None:
    site = Site(versions[1])
    site.watcher.serve_local()
    site.releases.trouble = trouble
    site.watcher.poll()
    since = site.watcher.alarms()[0].since
    site.watcher.poll()
    (alarm,) = site.watcher.alarms()
    assert (alarm.code, alarm.since, site.version) == (code, since, 1)
    assert "patient" not in alarm.message
    site.releases.trouble = None
    site.watcher.poll()
    assert site.codes == []


def test_the_caches_own_alarm_is_passed_on(versions: dict[int, LocalRelease]) -> None:
    site = Site(versions[1])
    then = datetime(2026, 1, 2, tzinfo=UTC)
    site.releases.status = CacheStatus(1, then, then, "metadata-expired", "Too old.")
    (alarm,) = site.watcher.alarms()
    assert (alarm.code, alarm.message, alarm.since) == ("metadata-expired", "Too old.", then)
    assert site.watcher.verified_at == then


def test_the_thread_serves_the_disk_then_polls_then_stops(
    versions: dict[int, LocalRelease],
) -> None:
    polled = threading.Event()

    class Polled(FakeReleases):
        def refresh(self) -> LocalRelease | None:
            polled.set()
            return super().refresh()

    site = Site()
    releases = Polled(versions[1])
    watcher = ReleaseWatcher(releases, site.holder, load=site.load, poll_seconds=LONG)
    watcher.start()
    assert polled.wait(10)
    assert site.version == 1
    watcher.stop()
    assert "releases" not in {thread.name for thread in threading.enumerate()}


def test_a_release_that_is_published_is_served_before_the_next_poll(
    versions: dict[int, LocalRelease],
) -> None:
    site = Site(versions[1])
    watcher = ReleaseWatcher(
        site.releases, site.holder, load=site.load, poll_seconds=LONG, watch_seconds=0.01
    )
    swapped = threading.Event()
    site.holder.swap, swap = lambda engine: (swap(engine), swapped.set())[0], site.holder.swap  # type: ignore[method-assign]
    watcher.start()
    assert swapped.wait(10)
    swapped.clear()
    site.releases.published.append(versions[2])
    assert swapped.wait(10)
    watcher.stop()
    assert site.version == 2
