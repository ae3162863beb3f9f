"""Publishing releases: one signed, monotonic line of versions that every site can verify.

Clinical rollback is a release like any other: publish a draft whose model digest is old, under
a new candidate name; it gets a higher version, which is the only thing that sites accept.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors.numpy import save

from common.errors import NotFound, ReleaseError, StoreError
from common.release import (
    MAXIMUM_MANIFEST_BYTES,
    MAXIMUM_MODEL_BYTES,
    LatestRelease,
    LimitedRelease,
    ModelFile,
    ReleaseDraft,
    ReleaseManifest,
    latest_target,
    model_target,
    parse_latest,
    parse_manifest,
    release_target,
)
from common.update import Tensors, tensors_digest
from server.publishing.keys import RoleKeys
from server.publishing.repository import SNAPSHOT_LIFE, TARGETS_LIFE, RepositoryState, TufRepository
from server.settings import CoordinatorSettings

logger = logging.getLogger(__name__)

LOCK_SECONDS = 60.0
_RELEASE = re.compile(r"release-([1-9][0-9]*)\.json")


def _now() -> datetime:
    return datetime.now(UTC)


class ReleasePublisher:
    """The coordinator's release repository.

    Safe to use from several threads and processes: a file lock, freed by the kernel when its
    holder dies, keeps publishers apart. Readers need no lock.

    Parameters
    ----------
    settings : CoordinatorSettings
        ``keys/tuf``, ``releases`` and ``timestamp_seconds`` are used.
    clock : callable, optional
        Returns the present as an aware datetime.
    """

    def __init__(
        self, settings: CoordinatorSettings, *, clock: Callable[[], datetime] = _now
    ) -> None:
        self._clock = clock
        self._folder = settings.releases
        self._life = timedelta(seconds=settings.timestamp_seconds)
        self._keys = RoleKeys(settings.keys / "tuf")
        self._repository = TufRepository(self._folder, self._keys, timestamp_life=self._life)
        self._manifests: dict[str, ReleaseManifest] = {}

    def initialise(self) -> bytes:
        """Make missing role keys and an empty repository; does nothing where both are there.

        Returns
        -------
        bytes
            ``1.root.json``, for ``trust/root.json`` in the start-up kits.
        """
        with self._locked():
            if not self._repository.initialised:
                self._keys.make_missing()
                self._repository.create(self._clock())
                logger.info("repository-made")
        return self._repository.root_bytes()

    def publish(
        self,
        draft: ReleaseDraft,
        tensors: Tensors,
        *,
        sites: Sequence[str] | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> int:
        """Publish a model as the newest release of its task.

        Repeatable: a candidate that is published already keeps its version, and one whose
        publishing was cut off anywhere is published whole by the next call.

        Parameters
        ----------
        draft : ReleaseDraft
            Or a `ReleaseManifest`, whose version and file are replaced.
        tensors : mapping of str to ndarray
            The full weights, with ``tensors_digest(tensors) == draft.model_digest``.
        sites : sequence of str, optional
            The first ring: who may take it now; by default every site. `roll_out` widens it.
        before : callable, optional
            Called while no other publisher can publish, unless the candidate is published already;
            what it raises leaves it unpublished.

        Returns
        -------
        int
            The version that the repository gave.

        Raises
        ------
        ReleaseError
            With code ``model-digest``, ``candidate-differs``, ``manifest-too-large``,
            ``repository-missing`` or ``repository-damaged``. Nothing was published.
        StoreError
            If the disk failed, or another publisher holds the lock. Nothing was published.
        """
        if tensors_digest(tensors) != draft.model_digest:
            raise ReleaseError(
                "The weights are not those of the model digest.",
                meaning="The file was damaged or mixed up; nothing was published.",
                action="Restore the weights in data/models from backup.",
                code="model-digest",
            )
        with self._locked():
            state = self._repository.load()
            version = _published(state, draft)
            if version is None:
                before()
                self._repository.remove_leftovers()
                ring = None if sites is None else tuple(sites)
                version = self._release(state, draft, _serialised(tensors), ring)
        return version

    def roll_out(self, wanted: Callable[[], LatestRelease]) -> bool:
        """Sign which releases are meant for which sites, if that is not what stands already.

        Parameters
        ----------
        wanted : callable
            Says it. Called while no other publisher can sign: what was wanted before another
            one signed may be a release that has been held since.

        Returns
        -------
        bool
            Whether it was signed anew. It is not where the repository's newest release of the
            task is another one: whoever asked does not know of a release that is being published.

        Raises
        ------
        ReleaseError, StoreError
            As `publish`.
        """
        with self._locked():
            state, rollout = self._repository.load(), wanted()
            standing = self._standing(state, rollout.task)
            if standing == rollout or standing.newest != rollout.newest:
                return False
            self._repository.remove_leftovers()
            self._repository.add_target(state, latest_target(rollout.task), rollout.to_json())
            self._repository.commit(state, self._clock())
        logger.info(
            "rollout-signed task=%s everywhere=%d limited=%d",
            *(rollout.task, rollout.version, len(rollout.limited)),
        )
        return True

    def rollout(self, task: str) -> LatestRelease:
        """Return which releases of a task are meant for which sites, as it is signed now."""
        return self._standing(self._repository.load(), task)

    def refresh_timestamp(self) -> datetime:
        """Sign a new timestamp; and the snapshot or targets when half of their life is over.

        Returns
        -------
        datetime
            When the new timestamp expires (UTC).

        Raises
        ------
        ReleaseError, StoreError
            As `publish`.
        """
        now = self._clock()
        with self._locked():
            state = self._repository.load()
            if state.targets.expires - now < TARGETS_LIFE / 2:
                self._repository.commit(state, now)
            elif state.snapshot.expires - now < SNAPSHOT_LIFE / 2:
                self._repository.commit_snapshot(state, now)
            else:
                self._repository.commit_timestamp(state, now)
        return state.timestamp.expires

    def timestamp_expires(self) -> datetime:
        """Return when the committed timestamp expires (UTC)."""
        return self._repository.load().timestamp.expires

    def refresh_due(self) -> datetime:
        """Return when a third of the timestamp's life will have passed (UTC)."""
        return self.timestamp_expires() - self._life * 2 / 3

    def releases(self) -> tuple[ReleaseManifest, ...]:
        """Return every release, oldest first."""
        state = self._repository.load()
        return tuple(self._manifest(state, release_target(version)) for version in _versions(state))

    def manifest(self, version: int) -> ReleaseManifest:
        """Return the manifest of a release.

        Raises
        ------
        NotFound
            If there is none of that version.
        """
        state = self._repository.load()
        if version not in _versions(state):
            raise NotFound(
                f"There is no release {version}.",
                action="`wardround coordinator release list` names them.",
            )
        return self._manifest(state, release_target(version))

    def model_bytes(self, digest: str) -> bytes:
        """Return a released model's file, verified; raises `ReleaseError` where it is not whole."""
        state, path = self._repository.load(), model_target(digest)
        if path not in state.targets.targets:
            raise ReleaseError(f"No release has the weights {digest[:12]}.", code="model-missing")
        return self._repository.read_target(state, path)

    def _release(
        self,
        state: RepositoryState,
        draft: ReleaseDraft,
        data: bytes,
        sites: tuple[str, ...] | None,
    ) -> int:
        repository = self._repository
        version = max(_versions(state), default=0) + 1
        name = model_target(draft.model_digest)
        repository.add_target(state, name, data)
        target = state.targets.targets[name]
        file = ModelFile(name=name, sha256=target.hashes["sha256"], bytes=target.length)
        manifest = draft.released(version, file)
        text = manifest.to_json()
        if len(text) > MAXIMUM_MANIFEST_BYTES:
            raise ReleaseError("The release's manifest is too large.", code="manifest-too-large")
        lineage = draft.lineage
        repository.add_target(
            state,
            release_target(version),
            text,
            task=draft.task,
            candidate=lineage.candidate,
            model=draft.model_digest,
        )
        pointer = _with_release(self._standing(state, draft.task), version, sites)
        repository.add_target(state, latest_target(draft.task), pointer.to_json())
        repository.commit(state, self._clock())
        logger.info(
            "release-published version=%d task=%s candidate=%s model=%s",
            version, draft.task, lineage.candidate, draft.model_digest[:12],
        )  # fmt: skip
        return version

    def _standing(self, state: RepositoryState, task: str) -> LatestRelease:
        path = latest_target(task)
        if path not in state.targets.targets:
            return LatestRelease(task=task, version=0)
        return parse_latest(self._repository.read_target(state, path))

    def _manifest(self, state: RepositoryState, path: str) -> ReleaseManifest:
        # Manifests never change under one hash, so each is parsed once a process.
        sha256 = state.targets.targets[path].hashes["sha256"]
        known = self._manifests.get(sha256)
        if known is None:
            known = parse_manifest(self._repository.read_target(state, path))
            self._manifests[sha256] = known
        return known

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            with FileLock(self._folder / ".publisher.lock", timeout=LOCK_SECONDS):
                yield
        except Timeout as error:
            raise StoreError(
                "Another publisher has held the release repository for a minute.",
                action="Retry; if it stays, look for a second coordinator on this folder.",
                code="repository-busy",
            ) from error


def _versions(state: RepositoryState) -> list[int]:
    found = (_RELEASE.fullmatch(path) for path in state.targets.targets)
    return sorted(int(match.group(1)) for match in found if match)


def _with_release(
    standing: LatestRelease, version: int, sites: tuple[str, ...] | None
) -> LatestRelease:
    if sites is None:
        return LatestRelease(task=standing.task, version=version)
    limited = (*standing.limited, LimitedRelease(version=version, sites=sites))
    return LatestRelease(task=standing.task, version=standing.version, limited=limited)


def _published(state: RepositoryState, draft: ReleaseDraft) -> int | None:
    """Return the version under which this candidate is published already."""
    for version in _versions(state):
        custom = state.targets.targets[release_target(version)].custom or {}
        if custom.get("candidate") != draft.lineage.candidate:
            continue
        if (custom.get("task"), custom.get("model")) != (draft.task, draft.model_digest):
            raise ReleaseError(
                f"The candidate {draft.lineage.candidate} is published with other weights.",
                action="Give the new model a candidate name of its own.",
                code="candidate-differs",
            )
        return version
    return None


def _serialised(tensors: Tensors) -> bytes:
    def laid_out(array: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.ascontiguousarray(array).reshape(array.shape)

    data = save({name: laid_out(np.asarray(tensors[name])) for name in sorted(tensors)})
    if len(data) > MAXIMUM_MODEL_BYTES:
        raise ReleaseError("The model is larger than 4 GiB.", code="model-too-large")
    return data
