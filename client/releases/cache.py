"""The site's copy of the newest release: pulled by TUF, verified, kept with its predecessor.

What is current here is the newest that was verified. Whether it answers is another question, which
`client.releases.desk` decides; what that says shall answer, or did before, is kept, too.

Rules, in the order in which they are kept:

1. Nothing unverified is ever current: TUF signatures and freshness, the manifest's schema and
   task, the file's SHA-256 and the digest of the tensors all hold before the pointer moves.
2. The pointer moves atomically; a crash leaves the old release or the new one.
3. Versions never go down: the highest version seen is remembered outside TUF's own state.
4. An outage or an expired timestamp takes nothing away: the current release keeps serving, and
   `ReleaseCache.status` says since when and why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeAlias

from filelock import FileLock, Timeout
from tuf.api.exceptions import DownloadError, RepositoryError

from client.releases.decision_file import DecisionFile
from client.releases.decisions import Answering
from client.releases.files import CacheState, KeptRelease, LocalRelease, ReleaseFiles
from client.releases.freshness import CacheStatus, FreshnessFile, failure_of
from client.releases.peek import TimestampPeek
from client.releases.pull import ReleasePull, rejected_here
from client.settings import SiteSettings
from common.errors import ReleaseError, StoreError

__all__ = ["CacheStatus", "LocalRelease", "ReleaseCache"]

logger = logging.getLogger(__name__)

LOCK_SECONDS = 30.0


_Read: TypeAlias = Callable[[KeptRelease], LocalRelease]


def _now() -> datetime:
    return datetime.now(UTC)


class ReleaseCache:
    """Current and previous release of ``settings.task`` in ``settings.releases``.

    Several threads and processes may share one folder; a file lock keeps refreshes apart, and
    readers need none.

    Parameters
    ----------
    settings : SiteSettings
        ``coordinator_url``, ``task``, ``trust`` and ``releases`` are used.
    clock : callable, optional
        Returns the present as an aware datetime; for the status only, TUF has its own.
    """

    def __init__(self, settings: SiteSettings, *, clock: Callable[[], datetime] = _now) -> None:
        self._settings = settings
        self._clock = clock
        self._files = ReleaseFiles(settings.releases, together=settings.inference.ensemble)
        self._freshness = FreshnessFile(settings.releases / "freshness.json")
        self._pull = ReleasePull(settings, self._files, verified=self._note_verified)
        self._peek = TimestampPeek(settings)
        self._decisions = DecisionFile(settings.releases)
        self._in_use: int | None = None

    def refresh(self) -> LocalRelease | None:
        """Ask the coordinator for a newer release and make it current.

        Never raises for network, signature or disk trouble: it logs, sets `status` and returns
        what is current.

        Returns
        -------
        LocalRelease or None
            The current release after the attempt (compare versions); None if there is none yet.

        Raises
        ------
        ConfigurationError
            If ``trust/`` lacks the CA or the root, or ``coordinator_url`` is wrong.
        """
        try:
            with self._locked(), self._files.incoming_emptied():
                self._pull.run()
            self._freshness.succeeded()
        except (DownloadError, RepositoryError, ReleaseError, StoreError, OSError) as error:
            self._freshness.failed(*failure_of(error), self._clock())
        return self._usable(self._files.recall)

    def moved(self) -> bool:
        """Tell, cheaply and without believing it, whether a `refresh` would find anything new."""
        serving = self._decisions.value().serving
        return self._peek.moved(serving=serving.version if serving else self._in_use or 0)

    def current(self) -> LocalRelease | None:
        """Return the current release from disk, without the network, re-verified.

        A corrupted one falls back to the previous, with an alarm in `status`.
        """
        return self._usable(self._files.read)

    def previous(self) -> LocalRelease | None:
        """Return the release before the current one, re-verified, or None."""
        kept = self._files.state().previous
        try:
            return self._files.read(kept) if kept else None
        except ReleaseError as error:
            logger.warning("release-previous-unusable code=%s", error.code)
            return None

    def answering(self) -> LocalRelease | None:
        """Return the release that this site decided shall answer; the newest before it decided."""
        serving = self._decisions.value().serving
        if serving is None:
            return self.current()
        release = self.find(serving.version)
        return release if release and Answering.of(release.manifest) == serving else None

    def find(self, version: int) -> LocalRelease | None:
        """Return any release that is kept here, re-verified; None if there is none, or damaged."""
        return self._files.find(version)

    def reject(self, version: int, code: str) -> LocalRelease | None:
        """Mark a version unusable here (its self-test failed) and go back to the previous one.

        It is not installed again; a higher version is. Returns what is now current.

        Raises
        ------
        StoreError
            If the disk failed, or another process holds the cache.
        """
        with self._locked():
            state = self._files.state()
            rejected = tuple(sorted({*state.rejected, version}))[-100:]
            changes: dict[str, object] = {"rejected": rejected}
            if state.current is not None and state.current.version == version:
                changes |= {"current": state.previous, "previous": None}
            self._files.write_state(state.model_copy(update=changes))
        logger.error("release-rejected version=%d code=%s", version, code)
        self._freshness.failed("release-rejected", rejected_here(version).line(), self._clock())
        return self.current()

    @property
    def status(self) -> CacheStatus:
        """How fresh the cache is."""
        value = self._freshness.value
        return CacheStatus(
            version=self._in_use,
            verified_at=value.verified_at,
            failing_since=value.failing_since,
            code=value.code,
            message=value.message,
        )

    def _note_verified(self) -> None:
        self._freshness.verified(self._clock())

    def _usable(self, read: _Read) -> LocalRelease | None:
        """Return the first whole one of current and previous, noting what is not."""
        release, damage = None, None
        for _ in range(2):  # another process may move on between the pointer and the files
            state = self._files.state()
            release, damage = _first_whole(state, read)
            if damage is None or self._files.state() == state:
                break
        if damage is not None:
            self._freshness.failed(damage.code, damage.line(), self._clock())
        self._in_use = release.version if release else None
        return release

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = self._settings.releases
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(folder / ".lock", timeout=LOCK_SECONDS)
            lock.acquire()
        except Timeout as error:
            raise StoreError(
                "Another process is refreshing the releases.",
                action="Nothing to do; it is tried again.",
                code="cache-busy",
            ) from error
        try:
            yield
        finally:
            lock.release()


def _first_whole(state: CacheState, read: _Read) -> tuple[LocalRelease | None, ReleaseError | None]:
    damage = None
    for kept in (state.current, state.previous):
        if kept is not None:
            try:
                return read(kept), damage
            except ReleaseError as error:
                damage = damage or error
    return None, damage
