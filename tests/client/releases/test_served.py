"""Releases in service under a policy: what answers, after what, and what a restart finds."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from client.inference.engine import InferenceEngine, ModelHolder
from client.releases.cache import LocalRelease
from client.releases.decision_file import DecisionFile
from client.releases.desk import ReleaseDesk
from client.releases.policy import ReleasePolicy
from client.releases.served import Between
from client.releases.shadow_figures import ShadowFigures
from client.releases.watcher import ReleaseWatcher
from common.errors import CaseRefused, NotFound, PrivacyRefused, ReleaseError, StoreError
from tests.client.releases.test_desk import figures
from tests.client.serving import LONG, FakeReleases, release

BROKEN = ReleaseError("It fails.", code="release-self-test")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[int, LocalRelease]:
    folder = tmp_path_factory.mktemp("releases")
    return {version: release(folder, version) for version in (1, 2, 3)}


class Site:
    """A watcher with a desk on disk; `again` is the same site after a restart."""

    def __init__(self, folder: Path, releases: FakeReleases, **policy: object) -> None:
        self.folder, self.releases = folder, releases
        self.policy: ReleasePolicy | None = ReleasePolicy.model_validate(policy)
        self.holder = ModelHolder()
        self.refusals: dict[int, Exception] = {}
        self.shadow: ShadowFigures | None = None
        self.during = lambda: None
        self.prepared: list[int] = []
        self.outdated = False
        self.watcher = ReleaseWatcher(
            releases,
            self.holder,
            load=self.load,
            poll_seconds=LONG,
            watch_seconds=0.01,
            desk=ReleaseDesk(DecisionFile(folder), policy=self.read),
            compare=self.compare,
            prepare=lambda engine, _: self.prepared.append(engine.version),
            outdated=lambda _: self.outdated,
        )

    def again(self) -> Site:
        return Site(self.folder, self.releases)

    def read(self) -> ReleasePolicy:
        if self.policy is None:
            raise PrivacyRefused("It cannot be read.", code="policy-malformed")
        return self.policy

    def load(self, local: LocalRelease) -> InferenceEngine:
        self.outdated = False
        if local.version in self.refusals:
            raise self.refusals[local.version]
        return InferenceEngine.load(local, device=torch.device("cpu"))

    def compare(
        self, _new: InferenceEngine, _beside: InferenceEngine, between: Between
    ) -> ShadowFigures | None:
        self.during()
        between()
        return self.shadow

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


@pytest.fixture
def site(tmp_path: Path, versions: dict[int, LocalRelease]) -> Site:
    """A site that serves release 1."""
    made = Site(tmp_path, FakeReleases(versions[1]))
    made.watcher.serve_local()
    assert made.version == 1
    return made


def test_a_held_release_waits_over_a_restart_and_answers_when_accepted(
    site: Site, versions: dict[int, LocalRelease]
) -> None:
    site.policy = ReleasePolicy(on_release="hold")
    site.publish(versions[2])
    assert (site.version, site.codes) == (1, ["release-held"])
    restarted = site.again()
    restarted.watcher.serve_local()
    restarted.watcher.poll()
    assert (restarted.version, restarted.codes) == (1, ["release-held"])
    restarted.watcher.accept(2, by="it-anna")
    restarted.watcher.poll()
    assert (restarted.version, restarted.codes) == (2, [])


def test_a_worse_release_is_held_with_its_figures(
    site: Site, versions: dict[int, LocalRelease]
) -> None:
    site.shadow = figures(-0.1, 0.05)
    site.publish(versions[2])
    assert (site.version, site.prepared) == (1, [])
    newest = site.watcher.desk.state.newest(2)
    assert newest is not None
    assert newest.figures == site.shadow
    site.shadow = figures(0.02, 0.01)
    site.publish(versions[3])
    assert (site.version, site.prepared, site.codes) == (3, [3], [])


def test_a_rollback_is_at_once_and_lasts(site: Site, versions: dict[int, LocalRelease]) -> None:
    site.publish(versions[2])
    assert site.version == 2
    site.watcher.roll_back(by="it-anna")
    assert (site.version, site.codes) == (1, ["release-rolled-back"])
    site.watcher.poll()
    restarted = site.again()
    restarted.watcher.serve_local()
    restarted.watcher.poll()
    assert restarted.version == 1, "the coordinator offers it still"
    with pytest.raises(CaseRefused):
        restarted.watcher.roll_back(by="it-anna")
    restarted.publish(versions[3])
    assert (restarted.version, restarted.codes) == (3, [])


def test_a_rollback_does_not_wait_for_a_judgement_which_comes_to_nothing(
    site: Site, versions: dict[int, LocalRelease]
) -> None:
    site.publish(versions[2])
    judging, go_on = threading.Event(), threading.Event()
    site.during = lambda: (judging.set(), go_on.wait(20))[0]  # type: ignore[assignment]
    thread = threading.Thread(target=site.publish, args=(versions[3],))
    thread.start()
    assert judging.wait(20)
    assert site.watcher.served.judging == 3
    site.watcher.roll_back(by="it-anna")
    assert site.version == 1
    go_on.set()
    thread.join(20)
    assert (site.version, site.watcher.served.judging) == (1, None)
    site.during = lambda: None
    site.watcher.poll()
    assert site.version == 3, "it is judged anew, beside what answers now"


def test_what_the_coordinator_publishes_meanwhile_is_looked_at_first(
    site: Site, versions: dict[int, LocalRelease]
) -> None:
    def newer() -> None:
        if versions[3] not in site.releases.kept:
            site.releases.published.append(versions[3])
            threading.Event().wait(0.05)  # longer than watch_seconds

    site.during = newer
    site.publish(versions[2])
    assert site.version == 1
    assert site.watcher.desk.state.newest(2) is None, "nothing was decided about it"
    site.watcher.poll()
    assert site.version == 3


def test_a_head_that_goes_while_a_release_is_judged_does_not_wait_for_the_verdict(
    site: Site, versions: dict[int, LocalRelease]
) -> None:
    def withdrawn() -> None:
        site.outdated = True

    site.during = withdrawn
    before = site.holder.current
    site.publish(versions[2])
    assert (site.version, site.watcher.desk.state.newest(2)) == (1, None)
    site.during = lambda: None
    site.watcher.served.follow()
    assert site.version == 1
    assert site.holder.current is not before
    site.watcher.poll()
    assert site.version == 2


def test_another_process_decides_and_the_service_follows(
    site: Site, versions: dict[int, LocalRelease]
) -> None:
    site.publish(versions[2])
    site.watcher.poll()
    assert not site.watcher.served.is_behind
    ReleaseDesk(DecisionFile(site.folder), policy=site.read).roll_back(by="console-root")
    assert site.watcher.served.is_behind
    site.watcher.poll()
    assert site.version == 1


def test_an_accepted_release_that_fails_after_a_restart_gives_way(
    site: Site, versions: dict[int, LocalRelease]
) -> None:
    site.publish(versions[2])
    restarted = site.again()
    restarted.refusals[2] = BROKEN
    restarted.watcher.serve_local()
    assert restarted.version == 1
    assert "release-self-test" in restarted.codes
    assert restarted.watcher.desk.state.serving is not None
    assert restarted.watcher.desk.state.serving.version == 1


def test_a_damaged_accepted_release_gives_way_to_the_one_before(
    site: Site, versions: dict[int, LocalRelease]
) -> None:
    site.publish(versions[2])
    site.releases.kept.remove(versions[2])
    restarted = site.again()
    restarted.watcher.serve_local()
    assert restarted.version == 1
    restarted.publish(versions[2])
    assert restarted.version == 2, "fetched again, and accepted before"


def test_a_policy_that_cannot_be_read_changes_nothing(
    site: Site, versions: dict[int, LocalRelease]
) -> None:
    site.policy = None
    site.publish(versions[2])
    assert (site.version, site.codes) == (1, ["policy-malformed"])
    site.policy = ReleasePolicy()
    site.watcher.poll()
    assert (site.version, site.codes) == (2, [])


def test_a_decision_that_cannot_be_kept_is_no_swap(
    site: Site, versions: dict[int, LocalRelease], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("No room.", code="store")

    monkeypatch.setattr("client.releases.decision_file.write_private", full)
    site.publish(versions[2])
    assert (site.version, site.codes) == (1, ["store"])
    monkeypatch.undo()
    site.watcher.poll()
    assert (site.version, site.codes) == (2, [])


def test_a_version_that_is_not_kept_cannot_be_decided_about(site: Site) -> None:
    with pytest.raises(NotFound):
        site.watcher.accept(9, by="it-anna")


def test_what_a_person_refused_is_not_loaded(site: Site, versions: dict[int, LocalRelease]) -> None:
    site.policy = ReleasePolicy(on_release="hold")
    site.publish(versions[2])
    site.watcher.refuse(2, by="it-anna")
    site.refusals[2] = AssertionError("it was loaded")
    site.watcher.poll()
    assert (site.version, site.codes) == (1, [])
