"""The parts of a service that are about releases, put together for `client.composition`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from client.cases.store import CaseStore
from client.inference.company import Company
from client.inference.engine import InferenceEngine
from client.inference.score_files import ScoreFiles
from client.releases.alarms import Alarm
from client.releases.cache import ReleaseCache
from client.releases.decision_file import DecisionFile
from client.releases.decisions import ReleaseDecision
from client.releases.desk import ReleaseDesk
from client.releases.holdout_traces import PROFILES, SCORES
from client.releases.policy_file import ReleasePolicyFile
from client.releases.profiles import ProfileFiles, ProfileKeeper
from client.releases.served import Loader
from client.releases.site_holdout import SiteHoldout
from client.releases.staleness import CheckedHolder, Staleness
from client.releases.watcher import Releases, ReleaseWatcher
from client.settings import SiteSettings
from common.release import ReleaseManifest


@dataclass(frozen=True)
class ReleaseParts:
    """What decides which model answers."""

    watcher: ReleaseWatcher
    policy: ReleasePolicyFile
    staleness: Staleness
    profiles: ProfileKeeper

    def start(self) -> None:
        """Serve what is on disk, then look for newer releases and look after the profile."""
        self.watcher.start()
        self.profiles.start()

    def stop(self) -> None:
        """End both threads."""
        self.watcher.stop()
        self.profiles.stop()

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what hospital IT should look at."""
        return (*self.watcher.alarms(), *self.staleness.alarms(), *self.profiles.alarms())


def make_release_parts(
    settings: SiteSettings,
    store: CaseStore,
    holder: CheckedHolder,
    *,
    releases: Releases | None,
    load: Loader,
    load_member: Loader,
    outdated: Callable[[InferenceEngine], bool],
    busy: Callable[[], bool],
    on_served: Callable[[ReleaseManifest], None],
    on_decision: Callable[[ReleaseDecision], None],
) -> ReleaseParts:
    """Put them together.

    Parameters
    ----------
    settings, store
        The site's.
    holder : CheckedHolder
        Whose reference is swapped, and who refuses when the model is too stale.
    releases : Releases or None
        Where models come from; None is the site's release cache.
    load : callable
        Makes a self-tested engine of a release.
    load_member
        As `client.inference.company.Company`.
    outdated, on_served
        As `client.releases.served.ServedModel`.
    busy : callable
        Tells whether somebody waits for an answer now.
    on_decision : callable
        Told each decision.
    """
    policy = ReleasePolicyFile(settings.policy)
    desk = ReleaseDesk(DecisionFile(settings.releases), policy=policy.read, on_decision=on_decision)
    holdout = SiteHoldout(store, ScoreFiles(settings.cache / SCORES), busy=busy)
    profiles = ProfileKeeper(
        holdout, holder, settings.reading, ProfileFiles(settings.data / PROFILES)
    )
    kept = releases or ReleaseCache(settings)
    company = Company(
        load,
        load_member=load_member,
        find=kept.find,
        state=lambda: desk.state,
        size=settings.inference.ensemble,
    )
    watcher = ReleaseWatcher(
        kept,
        holder,
        load=lambda release: profiles.recall(company.load(release)),
        poll_seconds=settings.release_poll_seconds,
        watch_seconds=settings.release_watch_seconds,
        desk=desk,
        compare=holdout.compare,
        prepare=profiles.prepare,
        outdated=outdated,
        on_served=on_served,
    )
    staleness = Staleness(lambda: watcher.verified_at, policy.known)
    holder.check = staleness.check
    return ReleaseParts(watcher, policy, staleness, profiles)
