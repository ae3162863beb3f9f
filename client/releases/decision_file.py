"""Keeping what a site decided about releases: ``releases/decisions.json``.

The file is replaced in one step, so a crash leaves the decision before or the one after. The
service and the command line write it, one at a time; who reads sees what the other wrote by the
file's identity.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeAlias

from filelock import FileLock, Timeout
from pydantic import ValidationError

from client.releases.decisions import SiteReleases
from common.errors import StoreError
from common.folders import write_private

log = logging.getLogger(__name__)

LOCK_SECONDS = 10.0

Change: TypeAlias = Callable[[SiteReleases], SiteReleases]
Stamp: TypeAlias = "tuple[int, ...] | None"


class Decisions(Protocol):
    """Where decisions are kept: `DecisionFile`, or `DecisionsInMemory`."""

    def value(self) -> SiteReleases:
        """Return what is decided."""

    def stamp(self) -> Stamp:
        """Return something that differs after each change."""

    def change(self, change: Change) -> SiteReleases:
        """Replace what is decided by ``change`` of it; StoreError if that cannot be kept."""


class DecisionsInMemory:
    """Decisions that end with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = SiteReleases()
        self._changes = 0

    def value(self) -> SiteReleases:
        """Return what is decided."""
        return self._value

    def stamp(self) -> Stamp:
        """Return the number of changes."""
        return (self._changes,)

    def change(self, change: Change) -> SiteReleases:
        """Replace what is decided."""
        with self._lock:
            self._value = change(self._value)
            self._changes += 1
        return self._value


class DecisionFile:
    """Reads and writes the file.

    Parameters
    ----------
    folder : Path
        The site's releases.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "decisions.json"
        self._read: tuple[Stamp, SiteReleases] = (None, SiteReleases())

    def value(self) -> SiteReleases:
        """Return what is decided; nothing where there is no file, or a damaged one."""
        stamp = self.stamp()
        known, value = self._read
        if stamp is None or stamp != known:
            value = self._load()
            self._read = (stamp, value)
        return value

    def stamp(self) -> Stamp:
        """Return the file's identity, another one after each change; None without a file."""
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns

    def change(self, change: Change) -> SiteReleases:
        """Replace what is decided by ``change`` of it, durably.

        Raises
        ------
        StoreError
            If the disk failed (the old decisions stand), or with code ``decisions-busy``.
        """
        with self._locked():
            before = self.value()
            after = change(before)
            if after != before:
                write_private(self._path, after.model_dump_json().encode())
        return after

    def _load(self) -> SiteReleases:
        try:
            return SiteReleases.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return SiteReleases()
        except (OSError, ValidationError) as error:
            log.error("event=release-decisions-damaged type=%s", type(error).__name__)
            return SiteReleases(damaged=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(self._folder / ".decisions.lock", timeout=LOCK_SECONDS)
            lock.acquire()
        except Timeout as error:
            raise StoreError(
                "Another process is deciding about a release.",
                action="Try again in a moment.",
                code="decisions-busy",
            ) from error
        except OSError as error:
            raise StoreError(
                f"The releases folder cannot be used ({error.strerror or error}).",
                action="Check that the disk has room and that this user may write there.",
            ) from error
        try:
            yield
        finally:
            lock.release()
