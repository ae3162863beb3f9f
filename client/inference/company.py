"""Several released models that answer together: the newest, and older ones that answered here.

Deep ensembles (Lakshminarayanan et al. 2017, arXiv:1612.01474) in the form that a site has at
hand: releases of one recipe, which differ by a campaign. Off unless ``[inference] ensemble`` says
how many; each costs a network call an image.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from client.inference.engine import InferenceEngine
from client.releases.cache import LocalRelease
from client.releases.decisions import SiteReleases
from common.errors import ModelError, ReleaseError
from common.release import ReleaseManifest

log = logging.getLogger(__name__)


class Company:
    """Loads engines together with older ones.

    Parameters
    ----------
    load : callable
        Makes one self-tested engine of the release that is to answer, as this site serves it.
    load_member : callable
        Makes one of an older release, as it was published: a head of the site's own is of one
        release, and goes with a withdrawal, which looks at that one alone.
    find : callable
        Returns a kept version, None where it is not there.
    state : callable
        What the site decided: only releases that it accepted, and did not go back from, join.
    size : int
        How many models answer together; 1 is the newest alone.
    """

    def __init__(
        self,
        load: Callable[[LocalRelease], InferenceEngine],
        *,
        load_member: Callable[[LocalRelease], InferenceEngine],
        find: Callable[[int], LocalRelease | None],
        state: Callable[[], SiteReleases],
        size: int,
    ) -> None:
        self._load = load
        self._load_member = load_member
        self._find = find
        self._state = state
        self._size = size

    def load(self, release: LocalRelease) -> InferenceEngine:
        """Load a release and its company; raises as ``load`` does, for the release alone.

        An older release that cannot be loaded stays away.
        """
        engine = self._load(release)
        if self._size > 1:
            older = self._older(release)[: self._size - 1]
            found = (self._member(release, each) for each in older)
            engine.members = tuple(member for member in found if member is not None)
            versions = ",".join(str(member.version) for member in engine.members) or "-"
            log.info("event=model-company version=%d members=%s", engine.version, versions)
        return engine

    def _older(self, release: LocalRelease) -> list[LocalRelease]:
        """Return what was accepted before a release and is kept; the newest first.

        Without what a coordinator's rollback among them replaced, or the release itself, whatever
        the site decided: it may have taken the rollback before it wrote such things down.
        """
        found: list[LocalRelease] = []
        restored = release.manifest.lineage.restores
        for decision in self._state().accepted_before(release.version):
            if restored is not None and decision.version > restored:
                continue
            older = self._find(decision.version)
            if older is None or older.manifest.model_digest != decision.model_digest:
                continue  # gone, or not what was accepted
            found.append(older)
            restored = older.manifest.lineage.restores or restored
        return found

    def _member(self, release: LocalRelease, older: LocalRelease) -> InferenceEngine | None:
        if not _alike(older.manifest, release.manifest):
            return None
        try:
            return self._load_member(older)
        except (ReleaseError, ModelError) as error:
            log.warning("event=model-company-absent version=%d code=%s", older.version, error.code)
            return None


def _alike(one: ReleaseManifest, other: ReleaseManifest) -> bool:
    """Tell whether two releases answer the same question about the same pixels."""
    if one.model_digest == other.model_digest:
        return False  # a restored release would only agree with itself
    mine, theirs = one.recipe, other.recipe
    return (mine.name, mine.classes, mine.image, mine.decision.positive_classes) == (
        *(theirs.name, theirs.classes, theirs.image, theirs.decision.positive_classes),
    )
