"""The site's copy of the newest release: pulled by TUF, verified, kept with its predecessor.

Rules, in the order in which they are kept:

1. Nothing unverified is ever current: TUF signatures and freshness, the manifest's schema and
   task, the file's SHA-256 and the digest of the tensors all hold before the pointer moves.
2. The pointer moves atomically; a crash leaves the old release or the new one.
3. Versions never go down: the highest version seen is remembered outside TUF's own state.
4. An outage or an expired timestamp takes nothing away: the current release keeps serving, and
   `ReleaseCache.status` says since when and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from client.settings import SiteSettings
from common.release import ReleaseManifest
from common.update import Tensors


@dataclass(frozen=True)
class LocalRelease:
    """A verified release on this site's disk."""

    manifest: ReleaseManifest
    path: Path

    @property
    def version(self) -> int:
        """The release's version."""
        return self.manifest.version

    def load(self) -> Tensors:
        """Read the weights once, verifying SHA-256 and tensor digest of exactly what is returned.

        Raises
        ------
        ReleaseError
            With code ``release-corrupted`` or ``release-missing``.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class CacheStatus:
    """How fresh the cache is.

    Attributes
    ----------
    version : int or None
        The current release.
    verified_at : datetime or None
        When the coordinator last answered with fresh, valid metadata (UTC); survives a restart.
    failing_since : datetime or None
        First failure after that, None while all is well.
    code : str or None
        Stable reason of the last failure: ``coordinator-unreachable``, ``coordinator-untrusted``,
        ``metadata-expired``, ``metadata-rollback``, ``metadata-refused``, ``target-refused``,
        ``release-rollback``, ``release-corrupted``, ``manifest-malformed``, ``disk``, ...
    message : str
        One line for people.
    """

    version: int | None
    verified_at: datetime | None
    failing_since: datetime | None
    code: str | None
    message: str


class ReleaseCache:
    """Current and previous release of ``settings.task`` in ``settings.releases``."""

    def __init__(self, settings: SiteSettings) -> None:
        self._settings = settings

    def refresh(self) -> LocalRelease | None:
        """Ask the coordinator for a newer release and make it current.

        Never raises for network, signature or disk trouble: it logs, sets `status` and returns
        what is current.

        Returns
        -------
        LocalRelease or None
            The current release after the attempt (compare versions); None if there is none yet.
        """
        raise NotImplementedError

    def current(self) -> LocalRelease | None:
        """Return the current release from disk, without the network, re-verified.

        A corrupted one falls back to the previous, with an alarm in `status`.
        """
        raise NotImplementedError

    def previous(self) -> LocalRelease | None:
        """Return the release before the current one, re-verified, or None."""
        raise NotImplementedError

    def reject(self, version: int, code: str) -> LocalRelease | None:
        """Mark a version unusable here (its self-test failed) and go back to the previous one.

        It is not installed again; a higher version is. Returns what is now current.
        """
        raise NotImplementedError

    @property
    def status(self) -> CacheStatus:
        """How fresh the cache is."""
        raise NotImplementedError
