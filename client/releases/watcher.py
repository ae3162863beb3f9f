"""Keeping the served model the newest accepted release: poll, judge beside the running one, swap.

One thread. A release that cannot be loaded never stops the one that answers: it raises an alarm,
which the readiness answer, the metrics and the pages show.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from client.inference.engine import InferenceEngine, ModelHolder
from client.releases.alarms import Alarm, decision_alarms
from client.releases.cache import CacheStatus, LocalRelease
from client.releases.decision_file import DecisionsInMemory
from client.releases.decisions import ReleaseDecision, SiteReleases
from client.releases.desk import ReleaseDesk
from client.releases.policy import ReleasePolicy
from client.releases.served import (
    Between,
    Compare,
    Interrupted,
    Kept,
    Loader,
    NotServed,
    Prepare,
    ServedModel,
)
from common.errors import WardroundError
from common.release import ReleaseManifest

__all__ = ["Alarm", "ReleaseWatcher", "Releases"]

log = logging.getLogger(__name__)

JITTER = 0.1
STOP_SECONDS = 5.0
_ACCEPT_ALL = ReleasePolicy(on_release="accept")


class Releases(Kept, Protocol):
    """Where releases come from: `client.releases.cache.ReleaseCache`, or a fake."""

    def refresh(self) -> LocalRelease | None:
        """Ask the coordinator for a newer release; return the newest that is verified."""

    def moved(self) -> bool:
        """Tell, cheaply, whether a refresh might find anything new; never raises."""

    def current(self) -> LocalRelease | None:
        """Return the newest verified one on disk, without the network."""

    def reject(self, version: int, code: str) -> LocalRelease | None:
        """Mark a version unusable here; return what is the newest then."""

    @property
    def status(self) -> CacheStatus:
        """How fresh the cache is."""


class ReleaseWatcher:
    """Polls for releases and has the newest accepted one answer.

    Parameters
    ----------
    releases : Releases
        The site's release cache.
    holder : ModelHolder
        Whose reference is swapped.
    load : callable
        Makes a self-tested engine of a release, or raises.
    poll_seconds : float
        Mean time between two polls; each varies by a tenth, so that sites do not call in step.
    watch_seconds : float, optional
        Mean time between two looks at whether a poll is worth while before its time; by default
        there are none.
    desk : ReleaseDesk, optional
        Who decides about releases; by default all are accepted.
    compare, prepare, outdated, on_served
        As `client.releases.served.ServedModel`.
    """

    def __init__(
        self,
        releases: Releases,
        holder: ModelHolder,
        *,
        load: Loader,
        poll_seconds: float,
        watch_seconds: float | None = None,
        desk: ReleaseDesk | None = None,
        compare: Compare = lambda *_: None,
        prepare: Prepare = lambda *_: None,
        outdated: Callable[[InferenceEngine], bool] = lambda _: False,
        on_served: Callable[[ReleaseManifest], None] = lambda _: None,
    ) -> None:
        self.releases = releases
        self.desk = desk or ReleaseDesk(DecisionsInMemory(), policy=lambda: _ACCEPT_ALL)
        self.served = ServedModel(
            *(releases, holder, self.desk),
            load=load,
            compare=compare,
            prepare=prepare,
            outdated=outdated,
            on_served=on_served,
        )
        self._poll_seconds = poll_seconds
        self._watch_seconds = min(poll_seconds, watch_seconds or poll_seconds)
        self._stopping = threading.Event()
        self._news = threading.Event()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._patience = (0, self._watch_seconds)
        self._load_alarm: Alarm | None = None
        self._alarm_version = 0
        self.load_failures = 0

    def start(self) -> None:
        """Serve what is on disk, then poll, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="releases", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a poll under way may take a few seconds more, in the background."""
        self._stopping.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def serve_local(self) -> None:
        """Load what answered last from the disk, so that the site answers without coordinator."""
        self._guarded(self._kept)

    def poll(self) -> None:
        """Ask for a newer release once, and serve it if there is one; any thread may."""
        self._guarded(self._refreshed)

    def accept(self, version: int, *, by: str) -> ReleaseDecision:
        """Have a person accept a release; the thread loads it and has it answer.

        Raises
        ------
        NotFound, CaseRefused, StoreError
            As `ServedModel.require` and `ReleaseDesk.accept`.
        """
        decision = self.desk.accept(self.served.require(version).manifest, by=by)
        self._news.set()
        return decision

    def refuse(self, version: int, *, by: str) -> ReleaseDecision:
        """Have a person refuse a release; raises as `accept`."""
        decision = self.desk.refuse(self.served.require(version).manifest, by=by)
        self._news.set()
        return decision

    def roll_back(self, *, by: str) -> SiteReleases:
        """Have the release before answer again; it does when this returns. See `ServedModel`."""
        state = self.served.roll_back(by=by)
        self._news.set()
        return state

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what is wrong with releases now, oldest first."""
        found = [] if self._load_alarm is None else [self._load_alarm]
        status = self.releases.status
        if status.failing_since is not None and status.code is not None:
            found.append(Alarm(status.code, status.message, status.failing_since))
        found += decision_alarms(self.desk.state)
        return tuple(sorted(found, key=lambda alarm: alarm.since))

    @property
    def swaps(self) -> int:
        """How often a model was put in service."""
        return self.served.swaps

    @property
    def verified_at(self) -> datetime | None:
        """When the coordinator last vouched for the newest release (UTC)."""
        return self.releases.status.verified_at

    def _run(self) -> None:
        self.serve_local()
        while not self._stopping.is_set():
            self._news.clear()
            self.poll()
            self._wait_for_news()

    def _wait_for_news(self) -> None:
        """Wait until the next poll is due, or the coordinator seems to have moved on."""
        due = time.monotonic() + _jittered(self._poll_seconds)
        while True:
            left = due - time.monotonic()
            if left <= 0 or self._news.wait(min(left, _jittered(self._watch_seconds))):
                return
            if time.monotonic() < due and (self._to_look_again() or self.releases.moved()):
                return

    def _to_look_again(self) -> bool:
        """Tell whether another process decided, or changed the site's own head."""
        return self.served.is_behind or self.served.to_load_again

    def _kept(self) -> LocalRelease | None:
        return None if self.served.serve_kept() else self.releases.current()

    def _refreshed(self) -> LocalRelease | None:
        self.served.follow()
        return self.releases.refresh()

    def _guarded(self, find: Callable[[], LocalRelease | None]) -> None:
        try:
            with self._turn:
                self._serve(find)
        except Interrupted:
            self._news.set()
        except WardroundError as error:
            self._raise_alarm(error.code, error.line())
        except Exception as error:  # the watcher must outlive any one release
            self._raise_alarm("release-watcher", f"Unexpected trouble ({type(error).__name__}).")
        else:
            if self._load_alarm is not None and self._alarm_version == 0:
                self._load_alarm = None  # it was about the attempt, and this one went well

    def _serve(self, find: Callable[[], LocalRelease | None]) -> None:
        """Serve what is found, or, where that cannot be used, what is there instead."""
        release: LocalRelease | None = None
        try:
            release = find()
            if release is not None:
                self.served.consider(release, self._between(release.version))
        except NotServed as failed:
            instead = self._not_served(failed)
            if instead is not None:
                self._serve(lambda: instead)
            return
        if release is not None and release.version >= self._alarm_version:
            self._load_alarm = None

    def _between(self, version: int) -> Between:
        """Return what is asked between two steps of judging a release: whether to go on."""
        known, seconds = self._patience
        seconds = seconds if known == version else self._watch_seconds
        stamp = self.desk.decisions.stamp()
        look_at = time.monotonic() + seconds

        def between() -> None:
            nonlocal look_at
            if self._stopping.is_set() or self.desk.decisions.stamp() != stamp:
                raise Interrupted
            if self.served.to_load_again:  # a withdrawal does not wait for a judgement
                raise Interrupted
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + seconds
                if self.releases.moved():
                    # Longer each time, so that a coordinator that signs often, or one whose
                    # signatures are not valid, cannot keep a release from being judged.
                    self._patience = (version, min(4 * seconds, self._poll_seconds))
                    raise Interrupted

        return between

    def _not_served(self, failed: NotServed) -> LocalRelease | None:
        """Raise the alarm; return the release to try instead."""
        version, error = failed.version, failed.error
        message = f"Release {version} is not used. {error.line()}"
        self._raise_alarm(error.code, message, version=version)
        if not failed.is_the_releases_fault:
            return None  # the disk failed, not the model: the next poll tries again
        instead = self.releases.reject(version, error.code)
        serving = self.desk.state.serving
        if serving is not None and serving.version == version:
            self.served.roll_back(reason="self-test")
            return None
        return instead if instead is not None and instead.version < version else None

    def _raise_alarm(self, code: str, message: str, *, version: int = 0) -> None:
        self.load_failures += 1
        self._alarm_version = version
        since = datetime.now(UTC)
        if self._load_alarm is not None and self._load_alarm.code == code:
            since = self._load_alarm.since
        self._load_alarm = Alarm(code, message, since)
        log.error("event=release-not-served code=%s version=%d", code, version)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret hangs on it
