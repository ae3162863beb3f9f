"""Released models on the site's disk: one folder a version, a pointer file, nothing half-written.

::

    releases/state.json       which version is current, which is kept, what was seen and rejected
    releases/v<version>/      manifest.json, model.safetensors
    releases/incoming/        unverified bytes; emptied at every refresh

A version's folder is made elsewhere and renamed into place; the pointer is replaced in one step.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load

from client.releases.decision_file import DecisionFile
from common.errors import ReleaseError
from common.folders import sync_folder, write_private
from common.plan import Hex64
from common.release import MAXIMUM_MANIFEST_BYTES, ReleaseManifest, Version, parse_manifest
from common.update import Tensors, tensors_digest

logger = logging.getLogger(__name__)

MODEL = "model.safetensors"
MANIFEST = "manifest.json"
_FOLDER = re.compile(r"v([1-9][0-9]*)")


@dataclass(frozen=True)
class LocalRelease:
    """A verified release on this site's disk. ``path`` is its safetensors file."""

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
            With code ``release-corrupted``.
        """
        try:
            data = self.path.read_bytes()
            if hashlib.sha256(data).hexdigest() == self.manifest.file.sha256:
                tensors: Tensors = load(data)
                if tensors_digest(tensors) == self.manifest.model_digest:
                    return tensors
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise corrupted(self.version) from error
        raise corrupted(self.version)


class KeptRelease(BaseModel):
    """A version on disk, and the SHA-256 of its manifest as it was verified."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Version
    manifest_sha256: Hex64


class CacheState(BaseModel):
    """What the pointer file holds. ``highest`` is the highest version ever verified here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    current: KeptRelease | None = None
    previous: KeptRelease | None = None
    highest: Annotated[int, Field(ge=0)] = 0
    rejected: tuple[Version, ...] = ()


@dataclass(frozen=True)
class _Known:
    """A release that this process verified, and the file's identity then."""

    kept: KeptRelease
    release: LocalRelease
    stamp: tuple[int, ...]


class ReleaseFiles:
    """Reads and writes the layout above. Writers hold the cache's lock.

    Parameters
    ----------
    folder : Path
        The site's releases.
    together : int, default 1
        How many releases answer together; so many accepted ones are kept.
    """

    def __init__(self, folder: Path, *, together: int = 1) -> None:
        self._folder = folder
        self._together = together
        self._known: dict[int, _Known] = {}
        self.incoming = folder / "incoming"

    def state(self) -> CacheState:
        """Return the pointer file's content; where it is damaged, what the folders say."""
        try:
            return CacheState.model_validate_json((self._folder / "state.json").read_bytes())
        except FileNotFoundError:
            return self._found()
        except (OSError, ValidationError) as error:
            logger.error("release-state-damaged error=%s", type(error).__name__)
            return self._found()

    def write_state(self, state: CacheState) -> None:
        """Replace the pointer file, durably.

        Raises
        ------
        StoreError
            If the disk failed; the old one stands.
        """
        write_private(self._folder / "state.json", state.model_dump_json().encode())

    def read(self, kept: KeptRelease) -> LocalRelease:
        """Return a version, with the manifest's and the file's SHA-256 verified.

        Raises
        ------
        ReleaseError
            With code ``release-corrupted``.
        """
        folder = self._folder / f"v{kept.version}"
        self._known.pop(kept.version, None)
        try:
            stamp = _stamp(folder / MODEL)
            manifest = _read_manifest(folder)
            with (folder / MODEL).open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            whole = digest == manifest.file.sha256
            whole = whole and _sha256(folder / MANIFEST) == kept.manifest_sha256
        except (OSError, ReleaseError) as error:
            raise corrupted(kept.version) from error
        if not whole:
            raise corrupted(kept.version)
        release = LocalRelease(manifest, folder / MODEL)
        self._known[kept.version] = _Known(kept, release, stamp)
        return release

    def recall(self, kept: KeptRelease) -> LocalRelease:
        """Return a version as `read`, sparing the hashing of a file that has not changed since."""
        known = self._known.get(kept.version)
        try:
            if known and known.kept == kept and known.stamp == _stamp(known.release.path):
                return known.release
        except OSError as error:
            raise corrupted(kept.version) from error
        return self.read(kept)

    def find(self, version: int) -> LocalRelease | None:
        """Return a version that is kept for whatever reason; None if it is not there or damaged.

        Its file is held against its manifest. Where the pointer names the version, the manifest
        is held against the pointer; who knows it from elsewhere holds it against that.
        """
        state, folder = self.state(), self._folder / f"v{version}"
        named = [k for k in (state.current, state.previous) if k and k.version == version]
        try:
            own = KeptRelease(version=version, manifest_sha256=_sha256(folder / MANIFEST))
            return self.recall(named[0] if named else own)
        except (OSError, ReleaseError):
            return None

    def is_whole(self, kept: KeptRelease | None) -> bool:
        """Tell whether a version can be used."""
        try:
            return kept is not None and self.recall(kept) is not None
        except ReleaseError:
            return False

    def place(self, draft: Path, version: int) -> LocalRelease:
        """Move a verified draft folder to its version's place and return it from there."""
        folder = self._folder / f"v{version}"
        sync_folder(draft)
        shutil.rmtree(folder, ignore_errors=True)  # a corrupted or never-current copy
        draft.rename(folder)
        sync_folder(self._folder)
        return LocalRelease(_read_manifest(folder), folder / MODEL)

    @contextmanager
    def incoming_emptied(self) -> Iterator[None]:
        """Have an empty ``incoming`` folder, whatever an interrupted refresh left behind."""
        shutil.rmtree(self.incoming, ignore_errors=True)
        self.incoming.mkdir(mode=0o700, exist_ok=True)
        try:
            yield
        finally:
            shutil.rmtree(self.incoming, ignore_errors=True)

    def remove_except(self, kept: Iterable[KeptRelease | None]) -> None:
        """Remove every version but these, and those that the site decided shall answer."""
        names = {f"v{k.version}" for k in kept if k is not None}
        decided = DecisionFile(self._folder).value()
        if decided.damaged:
            return  # nobody knows which of them is to answer
        names |= {f"v{a.version}" for a in (decided.serving, decided.fallback) if a is not None}
        if decided.serving is not None:
            older = decided.accepted_before(decided.serving.version)
            names |= {f"v{decision.version}" for decision in older[: self._together - 1]}
        for folder in self._folder.iterdir():
            if _FOLDER.fullmatch(folder.name) and folder.name not in names:
                shutil.rmtree(folder, ignore_errors=True)

    def _found(self) -> CacheState:
        """Rebuild the state from the folders: only whole ones were ever renamed into place."""
        kept = []
        if self._folder.is_dir():
            for folder in self._folder.iterdir():
                if match := _FOLDER.fullmatch(folder.name):
                    try:
                        digest = _sha256(folder / MANIFEST)
                        _read_manifest(folder)
                    except (OSError, ReleaseError):
                        continue
                    kept.append(KeptRelease(version=int(match.group(1)), manifest_sha256=digest))
        kept.sort(key=lambda k: k.version, reverse=True)
        current, previous = (*kept, None, None)[:2]
        return CacheState(
            current=current, previous=previous, highest=current.version if current else 0
        )


def corrupted(version: int) -> ReleaseError:
    """Return the error of a release whose file is not what was verified."""
    return ReleaseError(
        f"Release {version} on this site's disk is missing or damaged.",
        meaning="It is not used.",
        action="It is fetched again by itself; check the disk if this comes back.",
        code="release-corrupted",
    )


def _stamp(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_manifest(folder: Path) -> ReleaseManifest:
    with (folder / MANIFEST).open("rb") as stream:
        return parse_manifest(stream.read(MAXIMUM_MANIFEST_BYTES + 1))
