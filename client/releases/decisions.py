"""What this site decided about releases, and which one is to answer.

`client.releases.cache` says what was verified; this says what may answer. It is kept by
`client.releases.decision_file`.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from client.releases.shadow_figures import ShadowFigures
from common.audit_entries import Slug
from common.plan import Hex64, Identifier
from common.release import ReleaseManifest, Version

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

    def left_behind(self, manifest: ReleaseManifest, *, at: datetime) -> SiteReleases:
        """Return this gone back from what a coordinator's rollback replaces.

        That is every accepted version between the one that it restores and its own. The decisions
        stand before the one that accepted the rollback itself, which may be there already.
        """
        restores = manifest.lineage.restores
        left = tuple(
            ReleaseDecision(
                version=known.version,
                model_digest=known.model_digest,
                verdict="rolled-back",
                by=POLICY,
                reason="rollback",
                at=at,
            )
            for known in reversed(self.accepted_before(manifest.version))
            if restores is not None and known.version > restores
        )
        own = [n for n, d in enumerate(self.decisions) if d.version == manifest.version]
        place = own[-1] if own else len(self.decisions)
        decisions = (*self.decisions[:place], *left, *self.decisions[place:])
        return self.model_copy(update={"decisions": decisions[-KEPT_DECISIONS:]})

    def gone_back(self) -> SiteReleases:
        """Return this with the fallback in the place of the one that answers."""
        return self.model_copy(update={"serving": self.fallback, "fallback": None})

    def decided(self, decision: ReleaseDecision) -> SiteReleases:
        """Return this with one more decision."""
        decisions = (*self.decisions, decision)[-KEPT_DECISIONS:]
        return self.model_copy(update={"decisions": decisions})

    def answering(self, manifest: ReleaseManifest) -> SiteReleases:
        """Return this with a release in the place of the one that answers.

        What a coordinator's rollback replaces is nothing to fall back to.
        """
        one = Answering.of(manifest)
        if one == self.serving:
            return self
        like = answers_like(manifest)
        answered = (*(a for a in self.answered if a != like), like)[-KEPT_ANSWERS:]
        before, restores = (self.serving, self.fallback), manifest.lineage.restores
        sound = (a for a in before if restores is None or (a and a.version <= restores))
        fallback = next(sound, None)
        return self.model_copy(update={"serving": one, "fallback": fallback, "answered": answered})


def answers_like(manifest: ReleaseManifest) -> str:
    """Return SHA-256 (hex) of what decides a release's answers: weights, recipe and threshold."""
    parts = f"{manifest.model_digest}\0{manifest.recipe.digest}\0{manifest.threshold!r}"
    return hashlib.sha256(parts.encode()).hexdigest()
