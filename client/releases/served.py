"""The model that answers, and the only ways in which another one takes its place.

A newer release is loaded, self-tested and judged beside the one that answers, which goes on. Then,
under a lock that is held for nothing else: the decision is kept, and one reference is swapped.
Requests in flight finish on the model that they began with. A rollback never waits for a judgement
that is under way, which finds the ground gone from under it and is dropped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol, TypeAlias

from client.inference.engine import InferenceEngine, ModelHolder
from client.releases.decisions import POLICY, Answering, ReleaseDecision, SiteReleases
from client.releases.desk import ReleaseDesk, unknown_release
from client.releases.files import LocalRelease
from client.releases.shadow_figures import ShadowFigures
from common.errors import CaseRefused, ModelError, ReleaseError
from common.release import ReleaseManifest

log = logging.getLogger(__name__)

Loader: TypeAlias = Callable[[LocalRelease], InferenceEngine]
Between: TypeAlias = Callable[[], None]
Compare: TypeAlias = Callable[[InferenceEngine, InferenceEngine, Between], "ShadowFigures | None"]
Prepare: TypeAlias = Callable[[InferenceEngine, Between], None]


class Interrupted(Exception):
    """Something more urgent came up while a release was judged; what was begun is dropped."""


class NotServed(Exception):
    """A release that cannot be loaded, or failed its self-test; ``error`` says why."""

    def __init__(self, version: int, error: ReleaseError | ModelError) -> None:
        super().__init__(version)
        self.version = version
        self.error = error

    @property
    def is_the_releases_fault(self) -> bool:
        """Whether it would fail again; a full disk or a busy device may not."""
        return isinstance(self.error, ModelError) or self.error.code == "release-self-test"


class Kept(Protocol):
    """Where kept releases are read: `client.releases.cache.ReleaseCache`, or a fake."""

    def find(self, version: int) -> LocalRelease | None:
        """Return a release that this site keeps, verified; None if it is not there or damaged."""


class ServedModel:
    """Puts releases in service, one at a time.

    Parameters
    ----------
    releases : Kept
        The site's kept releases.
    holder : ModelHolder
        Whose reference is swapped.
    desk : ReleaseDesk
        Who decides.
    load : callable
        Makes a self-tested engine of a release, or raises ReleaseError or ModelError.
    compare : callable, optional
        Scores a newer engine and the one that answers on the site's holdout.
    prepare : callable, optional
        Makes an accepted engine the site's own (its profile) before it answers.
    outdated : callable, optional
        Tells that the engine that answers is to be loaded again, though its release is the newest.
    on_served : callable, optional
        Called with the manifest of a release that begins to answer.
    """

    def __init__(
        self,
        releases: Kept,
        holder: ModelHolder,
        desk: ReleaseDesk,
        *,
        load: Loader,
        compare: Compare = lambda *_: None,
        prepare: Prepare = lambda *_: None,
        outdated: Callable[[InferenceEngine], bool] = lambda _: False,
        on_served: Callable[[ReleaseManifest], None] = lambda _: None,
    ) -> None:
        self.desk = desk
        self._releases = releases
        self._holder = holder
        self._load = load
        self._compare = compare
        self._prepare = prepare
        self._outdated = outdated
        self._on_served = on_served
        self._swapping = threading.Lock()
        self._followed = desk.decisions.stamp()
        self._left: InferenceEngine | None = None
        self.judging: int | None = None
        self.swaps = 0

    @property
    def to_load_again(self) -> bool:
        """Whether the engine that answers is to be loaded again, and that was not in vain yet."""
        served = self._holder.current
        return served is not None and served is not self._left and self._outdated(served)

    @property
    def is_behind(self) -> bool:
        """Whether something was decided since `follow`, here or by another process."""
        return self.desk.decisions.stamp() != self._followed

    def serve_kept(self) -> bool:
        """Serve what answered last, from the disk, without judging it again; tell if it worked."""
        state = self.desk.state
        for wanted in (state.serving, state.fallback):
            served = self._holder.current
            if wanted is not None and served is not None and _is(served, wanted):
                return True
            release = self._find(wanted)
            if release is not None:
                with self._swapping:
                    self._put(self._loaded(release))
                return True
        return False

    def consider(self, release: LocalRelease, between: Between) -> None:
        """Serve a verified release if it is newer than the one that answers, and accepted.

        Raises
        ------
        NotServed
            If it cannot be loaded.
        Interrupted
            If ``between`` raised it, or somebody decided otherwise meanwhile.
        PrivacyRefused, StoreError
            If the policy cannot be read, or the decision not be kept.
        """
        served = self._holder.current
        version = release.version
        if (served is None or served.version < version) and self.desk.is_open(version):
            self.judging = version
            try:
                self._judge(release, served, between)
            finally:
                self.judging = None

    def follow(self) -> None:
        """Serve what is to answer, as it is to, where another process decided that.

        Raises
        ------
        NotServed
            If it cannot be loaded. What answers goes on, unless it does with a head that is gone.
        """
        with self._swapping:
            self._followed = self.desk.decisions.stamp()
            wanted, served = self.desk.state.serving, self._holder.current
            if wanted is not None and (served is None or not _is(served, wanted)):
                release = self._find(wanted)
                if release is not None:
                    self._put(self._loaded(release))
        self._load_again()

    def roll_back(self, *, by: str = POLICY, reason: str = "person") -> SiteReleases:
        """Have the release before answer again, at once; it does when this returns.

        Raises
        ------
        CaseRefused
            With code ``no-previous-release``.
        ReleaseError, ModelError
            If that release cannot be read or loaded; the one that answers goes on.
        StoreError
            If the decision cannot be kept; the one that answers goes on.
        """
        with self._swapping:
            wanted = self.desk.state.fallback
            release = self._find(wanted)
            if wanted is not None and release is None:
                raise ReleaseError(
                    f"Release {wanted.version} on this site's disk is missing or damaged.",
                    meaning="The model that answers goes on.",
                    action="Ask the coordinator for a rollback.",
                    code="release-corrupted",
                )
            engine = None if release is None else self._load(release)
            state = self.desk.roll_back(by=by, reason=reason)
            if engine is not None:
                self._put(engine)
        return state

    def require(self, version: int) -> LocalRelease:
        """Return a release that the site keeps; NotFound with code ``release-not-found``."""
        release = self._releases.find(version)
        if release is None:
            raise unknown_release(version)
        return release

    def _judge(
        self, release: LocalRelease, served: InferenceEngine | None, between: Between
    ) -> None:
        instead_of = self.desk.state.serving
        engine = self._loaded(release)
        decision = self.desk.judge(
            release.manifest,
            beside=None if served is None else served.manifest,
            compare=lambda: None if served is None else self._compare(engine, served, between),
        )
        if decision.verdict != "accepted":
            self.desk.keep(decision)
            log.warning(
                "event=release-%s version=%d reason=%s",
                *(decision.verdict, release.version, decision.reason),
            )
            return
        self._prepare_if_scored(engine, decision, between)
        with self._swapping:
            try:
                self.desk.take(release.manifest, decision, instead_of=instead_of)
            except CaseRefused as error:
                raise Interrupted from error
            self._put(engine)

    def _prepare_if_scored(
        self, engine: InferenceEngine, decision: ReleaseDecision, between: Between
    ) -> None:
        """Fit the site's profile where that costs little; else it follows while it answers."""
        if decision.figures is not None:
            self._prepare(engine, between)

    def _load_again(self) -> None:
        """Have the site's own head on what answers, or none, whatever the newest release is."""
        self._left, served = None, self._holder.current
        if served is None or not self._outdated(served):
            return
        self._left = served  # what fails now is tried at the next poll, not every few seconds
        try:
            release = self._find(Answering.of(served.manifest))
            engine = None if release is None else self._loaded(release)
        except NotServed:
            self._retire(served)
            raise
        if engine is None:
            if self._retire(served):
                self.serve_kept()
            return
        with self._swapping:
            if self._holder.current is served:
                self._put(engine)

    def _retire(self, served: InferenceEngine) -> bool:
        """Let an engine with a head that it must not have answer no more; tell if it had one.

        The head may have been trained on a patient who withdrew: no answer is better than its.
        """
        with self._swapping:
            if served.head_digest is None or self._holder.current is not served:
                return False
            self._holder.swap(None)
        log.error("event=model-retired version=%d", served.version)
        return True

    def _loaded(self, release: LocalRelease) -> InferenceEngine:
        try:
            return self._load(release)
        except (ReleaseError, ModelError) as error:
            raise NotServed(release.version, error) from error

    def _put(self, engine: InferenceEngine) -> None:
        self._holder.swap(engine)
        self.swaps += 1
        self._on_served(engine.manifest)
        log.info("event=model-swapped version=%d digest=%s", engine.version, engine.digest)

    def _find(self, wanted: Answering | None) -> LocalRelease | None:
        release = None if wanted is None else self._releases.find(wanted.version)
        if release is None or Answering.of(release.manifest) != wanted:
            return None
        return release


def _is(engine: InferenceEngine, wanted: Answering) -> bool:
    return (engine.version, engine.digest) == (wanted.version, wanted.model_digest)
