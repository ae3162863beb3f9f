"""Keeping the served model the newest release: poll, load beside the running one, swap.

One thread. A release that cannot be loaded never stops the one that answers: it raises an alarm,
which the readiness answer, the metrics and the clinician's page show.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

from client.inference.engine import InferenceEngine, ModelHolder
from client.releases.cache import CacheStatus, LocalRelease
from common.errors import ModelError, ReleaseError, WardroundError
from common.release import ReleaseManifest

log = logging.getLogger(__name__)

Loader: TypeAlias = Callable[[LocalRelease], InferenceEngine]

JITTER = 0.1
STOP_SECONDS = 5.0


class Releases(Protocol):
    """Where releases come from: `client.releases.cache.ReleaseCache`, or a fake."""

    def refresh(self) -> LocalRelease | None:
        """Ask the coordinator for a newer release; return what is current."""

    def moved(self) -> bool:
        """Tell, cheaply, whether a refresh might find anything new; never raises."""

    def current(self) -> LocalRelease | None:
        """Return what is current on disk, without the network."""

    def reject(self, version: int, code: str) -> LocalRelease | None:
        """Mark a version unusable here; return what is current then."""

    @property
    def status(self) -> CacheStatus:
        """How fresh the cache is."""


@dataclass(frozen=True)
class Alarm:
    """Something that hospital IT should look at; ``code`` is stable."""

    code: str
    message: str
    since: datetime


class ReleaseWatcher:
    """Polls for releases and swaps the newest into a `ModelHolder`.

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
    outdated : callable, optional
        Tells that the engine that answers is to be loaded again, though its release is the newest.
    on_served : callable, optional
        Called with the manifest of a release that begins to answer.
    """

    def __init__(
        self,
        releases: Releases,
        holder: ModelHolder,
        *,
        load: Loader,
        poll_seconds: float,
        watch_seconds: float | None = None,
        outdated: Callable[[InferenceEngine], bool] = lambda _: False,
        on_served: Callable[[ReleaseManifest], None] = lambda _: None,
    ) -> None:
        self._outdated = outdated
        self._on_served = on_served
        self.releases = releases
        self._holder = holder
        self._load = load
        self._poll_seconds = poll_seconds
        self._watch_seconds = min(poll_seconds, watch_seconds or poll_seconds)
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._load_alarm: Alarm | None = None
        self._alarm_version = 0
        self.swaps = 0
        self.load_failures = 0

    def start(self) -> None:
        """Serve what is on disk, then poll, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="releases", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a poll under way may take a few seconds more, in the background."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def serve_local(self) -> None:
        """Load the release on disk, so that the site answers while the coordinator is away."""
        self._guarded(self.releases.current)

    def poll(self) -> None:
        """Ask for a newer release once, and serve it if there is one; any thread may."""
        self._guarded(self.releases.refresh)

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what is wrong with releases now, oldest first."""
        found = [] if self._load_alarm is None else [self._load_alarm]
        status = self.releases.status
        if status.failing_since is not None and status.code is not None:
            found.append(Alarm(status.code, status.message, status.failing_since))
        return tuple(sorted(found, key=lambda alarm: alarm.since))

    @property
    def verified_at(self) -> datetime | None:
        """When the coordinator last vouched for the current release (UTC)."""
        return self.releases.status.verified_at

    def _run(self) -> None:
        self.serve_local()
        while not self._stopping.is_set():
            self.poll()
            self._wait_for_news()

    def _wait_for_news(self) -> None:
        """Wait until the next poll is due, or the coordinator seems to have moved on."""
        due = time.monotonic() + _jittered(self._poll_seconds)
        while True:
            left = due - time.monotonic()
            if left <= 0 or self._stopping.wait(min(left, _jittered(self._watch_seconds))):
                return
            if time.monotonic() < due and (self.releases.moved() or self._to_load_again()):
                return

    def _guarded(self, find: Callable[[], LocalRelease | None]) -> None:
        try:
            with self._turn:
                release = find()
                while release is not None:
                    release = self._serve(release)
        except WardroundError as error:
            self._raise_alarm(error.code, error.line())
        except Exception as error:  # the watcher must outlive any one release
            self._raise_alarm("release-watcher", f"Unexpected trouble ({type(error).__name__}).")
        else:
            if self._load_alarm is not None and self._alarm_version == 0:
                self._load_alarm = None  # it was about the attempt, and this one went well

    def _serve(self, release: LocalRelease) -> LocalRelease | None:
        """Serve a release; return the one to try instead, None when there is nothing to do."""
        version = release.version
        served = self._served_version()
        if served > version or (served == version and not self._to_load_again()):
            return None
        try:
            self._holder.swap(self._load(release))
        except (ReleaseError, ModelError) as error:
            self._raise_alarm(
                error.code, f"Release {version} is not used. {error.line()}", version=version
            )
            if isinstance(error, ModelError) or error.code == "release-self-test":
                instead = self.releases.reject(version, error.code)
                return instead if instead is not None and instead.version < version else None
            return None  # the disk failed, not the model: the next poll tries again
        self.swaps += 1
        self._on_served(release.manifest)
        log.info("event=model-swapped version=%d digest=%s", version, release.manifest.model_digest)
        if version >= self._alarm_version:
            self._load_alarm = None
        return None

    def _to_load_again(self) -> bool:
        served = self._holder.current
        return served is not None and self._outdated(served)

    def _served_version(self) -> int:
        served = self._holder.current
        return 0 if served is None else served.version

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
