"""Reading the ``[releases]`` table of ``policy.toml`` again when it changes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from client.policy import SitePolicy
from client.releases.policy import ReleasePolicy
from common.errors import PrivacyRefused


class ReleasePolicyFile:
    """A site's release policy.

    Parameters
    ----------
    path : Path
        ``policy.toml``. Without one the defaults hold: it is rounds that need a policy.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        self._known = ReleasePolicy()
        self._trouble: PrivacyRefused | None = None

    def read(self) -> ReleasePolicy:
        """Return the policy; PrivacyRefused (``policy-malformed``) if it cannot be read."""
        self._look()
        if self._trouble is not None:
            raise self._trouble
        return self._known

    def known(self) -> ReleasePolicy:
        """Return the policy as it was when it could last be read."""
        self._look()
        return self._known

    def _look(self) -> None:
        stamp: tuple[int, ...] = ()
        with suppress(OSError):
            stat = self._path.stat()
            stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if stamp == self._stamp:
            return
        try:
            self._known = SitePolicy.read(self._path).releases if stamp else ReleasePolicy()
            self._trouble = None
        except PrivacyRefused as error:
            self._trouble = error
        self._stamp = stamp
