"""What this site decided about releases, and which one is to answer: ``releases/decisions.json``.

`client.releases.cache` says what was verified; this says what may answer. The file is replaced in
one step, so a crash leaves the decision before or the one after. The service and the command line
write it, one at a time; who reads sees what the other wrote by the file's identity.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeAlias

from filelock import FileLock, Timeout
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from client.releases.shadow_figures import ShadowFigures
from common.audit_entries import Slug
from common.errors import StoreError
from common.folders import write_private
from common.plan import Hex64, Identifier
from common.release import ReleaseManifest, Version

log = logging.getLogger(__name__)

LOCK_SECONDS = 10.0
KEPT_DECISIONS = 200
KEPT_ANSWERS = 100
POLICY = "policy"
"""Who decided, where no person did."""

Verdict: TypeAlias = Literal["accepted", "held", "refused", "rolled-back"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ReleaseDecision(_Part):
    """One decision about one version.

    Attributes
    ----------
    verdict : {"accepted", "held", "refused", "rolled-back"}
        The newest one about a version counts.
    by : str
        An account's name, or ``policy``.
    reason : str
        A code: ``first``, ``policy``, ``rollback``, ``not-worse``, ``worse``, ``unclear``,
        ``too-few-cases``, ``classes-changed``, ``self-test`` or ``person``.
    figures : ShadowFigures or None
        Those that decided it.
    """

    version: Version
    model_digest: Hex64
    verdict: Verdict
    by: Identifier
    reason: Slug
    at: AwareDatetime
    figures: ShadowFigures | None = None


class Answering(_Part):
    """A release that may answer: version, weights, and SHA-256 of its manifest's canonical form."""

    version: Version
    model_digest: Hex64
    manifest: Hex64

    @classmethod
    def of(cls, manifest: ReleaseManifest) -> Answering:
        """Name a release."""
        digest = hashlib.sha256(manifest.to_json()).hexdigest()
        return cls(version=manifest.version, model_digest=manifest.model_digest, manifest=digest)


class SiteReleases(_Part):
    """What the file holds.

    Attributes
    ----------
    serving : Answering or None
        The release that answers, or is to.
    fallback : Answering or None
        The one that answered before it: where a rollback leads.
    decisions : tuple of ReleaseDecision
        The oldest first.
    answered : tuple of str
        `answers_like` of what has answered here.
    """

    serving: Answering | None = None
    fallback: Answering | None = None
    decisions: tuple[ReleaseDecision, ...] = ()
    answered: tuple[Hex64, ...] = ()
    damaged: Annotated[bool, Field(exclude=True)] = False

    def newest(self, version: int) -> ReleaseDecision | None:
        """Return the newest decision about a version."""
        return next((d for d in reversed(self.decisions) if d.version == version), None)

    @property
    def pinned(self) -> bool:
        """Whether a person went back here, and nothing newer was accepted since."""
        last = [d for d in self.decisions if d.verdict in ("accepted", "rolled-back")]
        return bool(last) and last[-1].verdict == "rolled-back"

    def accepted_before(self, version: int) -> tuple[ReleaseDecision, ...]:
        """Return what accepted older versions, where it still stands; the newest version first."""
        known = {d.version: d for d in self.decisions}  # of each version the newest
        older = [d for d in known.values() if d.version < version and d.verdict == "accepted"]
        return tuple(sorted(older, key=lambda d: d.version, reverse=True))

    def gone_back(self) -> SiteReleases:
        """Return this with the fallback in the place of the one that answers."""
        return self.model_copy(update={"serving": self.fallback, "fallback": None})

    def decided(self, decision: ReleaseDecision) -> SiteReleases:
        """Return this with one more decision."""
        decisions = (*self.decisions, decision)[-KEPT_DECISIONS:]
        return self.model_copy(update={"decisions": decisions})

    def answering(self, manifest: ReleaseManifest) -> SiteReleases:
        """Return this with a release in the place of the one that answers."""
        one = Answering.of(manifest)
        if one == self.serving:
            return self
        like = answers_like(manifest)
        answered = (*(a for a in self.answered if a != like), like)[-KEPT_ANSWERS:]
        return self.model_copy(
            update={"serving": one, "fallback": self.serving, "answered": answered}
        )


def answers_like(manifest: ReleaseManifest) -> str:
    """Return SHA-256 (hex) of what decides a release's answers: weights, recipe and threshold."""
    parts = f"{manifest.model_digest}\0{manifest.recipe.digest}\0{manifest.threshold!r}"
    return hashlib.sha256(parts.encode()).hexdigest()


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
