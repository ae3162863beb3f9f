"""The TUF repository on disk: reading its committed state and committing the next one.

Only ``timestamp.json`` is ever replaced by something else; it is the commit point. Every other
file has its version or its hash in its name (consistent snapshots, TUF specification 6.2) and
is on disk, synced, before the timestamp that leads to it. So a client sees the old state or
the new one, whatever happens in between, and what a killed publisher left behind is overwritten
by the next one under the same name, before anyone was ever told of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from common.errors import ConfigurationError, ReleaseError
from common.folders import write_public
from server.publishing.keys import ROLES, Role, RoleKeys

T = TypeVar("T", Root, Targets, Snapshot, Timestamp)

ROOT_LIFE = timedelta(days=3650)
TARGETS_LIFE = timedelta(days=365)
SNAPSHOT_LIFE = timedelta(days=30)


@dataclass
class RepositoryState:
    """What the committed timestamp leads to."""

    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets


class TufRepository:
    """Reads and writes ``metadata/`` and ``targets/`` below a folder.

    Callers hold the publisher's lock around `load` and `commit`.
    """

    def __init__(self, folder: Path, keys: RoleKeys, *, timestamp_life: timedelta) -> None:
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self._keys = keys
        self._timestamp_life = timestamp_life

    @property
    def initialised(self) -> bool:
        """Whether a first state was committed."""
        return (self.metadata / "timestamp.json").exists()

    def root_bytes(self) -> bytes:
        """Return ``1.root.json``, which every start-up kit carries."""
        return self._read(self.metadata / "1.root.json")

    def create(self, now: datetime) -> None:
        """Write the first root and commit an empty state; repeatable after a crash."""
        for folder in (self.metadata, self.targets):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        first_root = self.metadata / "1.root.json"
        if not first_root.exists():
            root = Metadata(Root(expires=_in(now, ROOT_LIFE), consistent_snapshot=True))
            for role in ROLES:
                root.signed.add_key(self._keys.signer(role).public_key, role)
            root.sign(self._keys.signer("root"))
            write_public(first_root, root.to_bytes(JSONSerializer(compact=True)))
        state = RepositoryState(Timestamp(), Snapshot(), Targets())
        for part in (state.timestamp, state.snapshot, state.targets):
            part.version = 0  # commit makes it 1
        self.commit(state, now)

    def remove_leftovers(self) -> None:
        """Remove temporary files (their names begin with a dot) of publishers that were killed."""
        for folder in (self.metadata, self.targets):
            for path in folder.glob(".*"):
                path.unlink(missing_ok=True)

    def load(self) -> RepositoryState:
        """Return the committed state.

        Raises
        ------
        ReleaseError
            With code ``repository-missing`` or ``repository-damaged``.
        """
        timestamp = self._parse(self.metadata / "timestamp.json", Timestamp)
        version = timestamp.snapshot_meta.version
        snapshot = self._parse(self.metadata / f"{version}.snapshot.json", Snapshot)
        version = snapshot.meta["targets.json"].version
        targets = self._parse(self.metadata / f"{version}.targets.json", Targets)
        return RepositoryState(timestamp, snapshot, targets)

    def add_target(self, state: RepositoryState, path: str, data: bytes, **custom: str) -> None:
        """Write a target file under its hash, and enter it in the uncommitted ``state``."""
        target = TargetFile.from_data(path, data, ["sha256"])
        if custom:
            target.unrecognized_fields["custom"] = dict(custom)
        file = self.target_file(path, target.hashes["sha256"])
        if not _intact(file):
            write_public(file, data)
        state.targets.targets[path] = target

    def target_file(self, path: str, sha256: str) -> Path:
        """Return where a target with this hash lies."""
        return self.targets / f"{sha256}.{path}"

    def read_target(self, state: RepositoryState, path: str) -> bytes:
        """Return a target's bytes as committed, verified."""
        target = state.targets.targets[path]
        data = self._read(self.target_file(path, target.hashes["sha256"]))
        try:
            target.verify_length_and_hashes(data)
        except RepositoryError as error:
            raise _damaged(path) from error
        return data

    def commit(self, state: RepositoryState, now: datetime) -> None:
        """Sign the next versions of targets, snapshot and timestamp, in this order."""
        state.targets.version += 1
        state.targets.expires = _in(now, TARGETS_LIFE)
        data = self._signed(state.targets, "targets")
        write_public(self.metadata / f"{state.targets.version}.targets.json", data)
        state.snapshot.meta["targets.json"] = _described(state.targets.version, data)
        self.commit_snapshot(state, now)

    def commit_snapshot(self, state: RepositoryState, now: datetime) -> None:
        """Sign the next snapshot and timestamp over unchanged targets."""
        state.snapshot.version += 1
        state.snapshot.expires = _in(now, SNAPSHOT_LIFE)
        data = self._signed(state.snapshot, "snapshot")
        write_public(self.metadata / f"{state.snapshot.version}.snapshot.json", data)
        state.timestamp.snapshot_meta = _described(state.snapshot.version, data)
        self.commit_timestamp(state, now)

    def commit_timestamp(self, state: RepositoryState, now: datetime) -> None:
        """Sign the next timestamp over an unchanged snapshot."""
        state.timestamp.version += 1
        state.timestamp.expires = _in(now, self._timestamp_life)
        data = self._signed(state.timestamp, "timestamp")
        write_public(self.metadata / "timestamp.json", data)

    def _signed(self, signed: T, role: Role) -> bytes:
        metadata = Metadata(signed)
        metadata.sign(self._keys.signer(role))
        root = self._parse(self._newest_root(), Root)
        try:
            root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except RepositoryError as error:
            raise ConfigurationError(
                f"The {role} key is not the one that the release repository's root names.",
                meaning="Every site would refuse what it signs; nothing was published.",
                action="Restore keys/tuf from the backup that belongs to data/releases.",
                code="key-unknown-to-root",
            ) from error
        return metadata.to_bytes(JSONSerializer(compact=True))

    def _newest_root(self) -> Path:
        roots = self.metadata.glob("*.root.json")
        version = max((int(p.name.partition(".")[0]) for p in roots), default=1)
        return self.metadata / f"{version}.root.json"

    def _parse(self, path: Path, kind: type[T]) -> T:
        try:
            metadata = Metadata.from_bytes(self._read(path))
        except DeserializationError as error:
            raise _damaged(path.name) from error
        if not isinstance(metadata.signed, kind):
            raise _damaged(path.name)
        return metadata.signed

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            if path.name in ("timestamp.json", "1.root.json"):
                raise ReleaseError(
                    "The release repository was never made.",
                    action="Provision the coordinator, or restore data/releases from backup.",
                    code="repository-missing",
                ) from error
            raise _damaged(path.name) from error
        except OSError as error:
            raise _damaged(path.name) from error


def _intact(file: Path) -> bool:
    """Tell whether a hash-named target is there and whole."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.name[:64]
    except OSError:
        return False


def _in(now: datetime, life: timedelta) -> datetime:
    return (now + life).astimezone(UTC).replace(microsecond=0)


def _described(version: int, data: bytes) -> MetaFile:
    return MetaFile.from_data(version, data, ["sha256"])


def _damaged(name: str) -> ReleaseError:
    return ReleaseError(
        f"{name} in the release repository is missing or damaged.",
        meaning="Nothing can be published; sites keep what they have.",
        action="Restore data/releases from backup.",
        code="repository-damaged",
    )
