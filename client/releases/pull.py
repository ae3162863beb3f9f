"""One pull of the newest release: TUF's checks first, then ours, then the pointer moves."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tuf.ngclient import TargetFile, Updater

from client.connection import Connection
from client.releases.fetcher import CoordinatorFetcher
from client.releases.files import (
    MANIFEST,
    MODEL,
    CacheState,
    KeptRelease,
    LocalRelease,
    ReleaseFiles,
)
from client.settings import SiteSettings
from common.errors import ConfigurationError, ReleaseError, StoreError
from common.folders import write_private
from common.release import (
    MAXIMUM_MANIFEST_BYTES,
    ReleaseManifest,
    latest_target,
    parse_latest,
    parse_manifest,
    release_target,
)

logger = logging.getLogger(__name__)

SPARE_BYTES = 64 * 1024 * 1024


class ReleasePull:
    """Brings ``settings.task``'s newest release into `ReleaseFiles`; its caller holds the lock.

    ``verified`` is called when the coordinator's metadata proved valid and fresh.
    """

    def __init__(
        self, settings: SiteSettings, files: ReleaseFiles, *, verified: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._files = files
        self._verified = verified

    def run(self) -> None:
        """Pull once.

        Raises
        ------
        DownloadError, RepositoryError, ReleaseError, StoreError, OSError
            If anything is not as it must be; the pointer has not moved.
        ConfigurationError
            If ``trust/`` lacks the CA or the root, or ``coordinator_url`` is wrong.
        """
        settings = self._settings
        base = settings.coordinator_url.rstrip("/")
        incoming = self._files.incoming
        state_folder = settings.releases / "tuf"
        state_folder.mkdir(mode=0o700, exist_ok=True)
        root = _trusted_root(settings.trust / "root.json")
        fetcher = CoordinatorFetcher(base, connection=Connection.of(settings), folder=incoming)
        try:
            updater = Updater(
                str(state_folder),
                f"{base}/releases/metadata/",
                str(incoming),
                f"{base}/releases/targets/",
                fetcher=fetcher,
                bootstrap=root,
            )
            updater.refresh()
            self._verified()
            self._follow(updater)
        finally:
            fetcher.close()

    def _follow(self, updater: Updater) -> None:
        """Install the newest release that is meant for this site, if that is new here."""
        state = self._files.state()
        info = updater.get_targetinfo(latest_target(self._settings.task))
        if info is None and state.highest == 0:
            return  # nothing was released yet
        rollout = None if info is None else parse_latest(self._small(updater, info))
        if rollout is not None and rollout.task != self._settings.task:
            rollout = None
        newest = 0 if rollout is None else rollout.newest
        if newest < state.highest or rollout is None:
            raise _rollback(newest, state.highest)
        current = 0 if state.current is None else state.current.version
        version = rollout.offered(self._settings.name, current=current)
        if version in state.rejected:
            raise rejected_here(version)
        if version == 0 or version < current:
            return  # the others are meant for other sites, or held: what is here stays
        if version > current or not self._files.is_whole(state.current):
            self._install(updater, state, version)

    def _install(self, updater: Updater, state: CacheState, version: int) -> None:
        data = self._small(updater, _present(updater, release_target(version)))
        manifest = parse_manifest(data)
        target = _present(updater, manifest.file.name)
        if (
            (manifest.version, manifest.task) != (version, self._settings.task)
            or target.hashes.get("sha256") != manifest.file.sha256
            or target.length != manifest.file.bytes
        ):
            raise _mismatch(version)
        draft = Path(tempfile.mkdtemp(dir=self._files.incoming))
        self._refuse_full_disk(manifest)
        updater.download_target(target, str(draft / MODEL))
        _sync(draft / MODEL)
        write_private(draft / MANIFEST, data)
        LocalRelease(manifest, draft / MODEL).load()  # the digest of the tensors themselves
        self._files.place(draft, version)
        self._make_current(
            state, KeptRelease(version=version, manifest_sha256=hashlib.sha256(data).hexdigest())
        )

    def _make_current(self, state: CacheState, kept: KeptRelease) -> None:
        others = (k for k in (state.current, state.previous) if k and k.version != kept.version)
        previous = next((k for k in others if self._files.is_whole(k)), None)
        self._files.write_state(
            CacheState(
                current=kept,
                previous=previous,
                highest=max(state.highest, kept.version),
                rejected=state.rejected,
            )
        )
        self._files.remove_except((kept, previous))
        logger.info("release-installed version=%d", kept.version)

    def _small(self, updater: Updater, info: TargetFile) -> bytes:
        if info.length > MAXIMUM_MANIFEST_BYTES:
            raise ReleaseError("The release manifest is too large.", code="manifest-too-large")
        return Path(updater.download_target(info)).read_bytes()

    def _refuse_full_disk(self, manifest: ReleaseManifest) -> None:
        needed = 2 * manifest.file.bytes + SPARE_BYTES  # the unverified copy and the kept one
        if shutil.disk_usage(self._files.incoming).free < needed:
            raise StoreError(
                f"The disk has no room for release {manifest.version}.",
                meaning="The current release keeps serving.",
                action=f"Free {needed // 2**20} MiB under {self._settings.releases}.",
                code="disk-full",
            )


def _trusted_root(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"The first release root {path} cannot be read ({type(error).__name__}).",
            action="Copy it again from the start-up kit.",
        ) from error


def _present(updater: Updater, path: str) -> TargetFile:
    info = updater.get_targetinfo(path)
    if info is None:
        raise ReleaseError(
            f"The coordinator's repository names {path}, but lacks it.",
            meaning="The current release keeps serving.",
            action="Tell the coordinator.",
            code="release-mismatch",
        )
    return info


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _rollback(version: int, highest: int) -> ReleaseError:
    return ReleaseError(
        f"The coordinator offers release {version} after release {highest}.",
        meaning="Versions never go down; the current release keeps serving.",
        action="Ask the coordinator: to go back, it publishes old weights under a new version.",
        code="release-rollback",
    )


def rejected_here(version: int) -> ReleaseError:
    """Return the error of a version that failed this site's own test."""
    return ReleaseError(
        f"Release {version} failed this site's own test and is not used.",
        meaning="The release before it keeps serving.",
        action="Tell the coordinator; the next version is taken as usual.",
        code="release-rejected",
    )


def _mismatch(version: int) -> ReleaseError:
    return ReleaseError(
        f"The manifest of release {version} does not describe the release itself.",
        meaning="The current release keeps serving.",
        action="Tell the coordinator.",
        code="release-mismatch",
    )
