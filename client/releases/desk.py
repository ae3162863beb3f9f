"""Where a verified release is accepted, held or refused: by the site's policy, or by a person.

Rules, in the order in which they are kept:

1. What a person said about a version stands.
2. Where nothing answers yet, the first release does.
3. A coordinator's rollback to what has answered here before passes at once.
4. Else the policy's ``on_release`` decides, with the figures of the shadow run where it asks.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from client.releases.decision_file import Decisions
from client.releases.decisions import (
    POLICY,
    Answering,
    ReleaseDecision,
    SiteReleases,
    Verdict,
    answers_like,
)
from client.releases.policy import ReleasePolicy
from client.releases.shadow_figures import ShadowFigures
from client.releases.verdict import Compare, verdict_of
from common.errors import CaseRefused, NotFound
from common.release import ReleaseManifest


def _now() -> datetime:
    return datetime.now(UTC)


class ReleaseDesk:
    """Decides, writes down what was decided, and says what is to answer; any thread may ask.

    Parameters
    ----------
    decisions : Decisions
        Where they are kept.
    policy : callable
        Reads the site's release policy; PrivacyRefused if it cannot be read.
    clock : callable, optional
        Returns the present as an aware datetime.
    on_decision : callable, optional
        Told each new decision, after it was kept.
    """

    def __init__(
        self,
        decisions: Decisions,
        *,
        policy: Callable[[], ReleasePolicy],
        clock: Callable[[], datetime] = _now,
        on_decision: Callable[[ReleaseDecision], None] = lambda _: None,
    ) -> None:
        self.decisions = decisions
        self._policy = policy
        self._clock = clock
        self._on_decision = on_decision

    @property
    def state(self) -> SiteReleases:
        """What is decided."""
        return self.decisions.value()

    def is_open(self, version: int) -> bool:
        """Tell whether a version may come to answer: nobody decided yet, or it was accepted."""
        known = self.state.newest(version)
        return known is None or known.verdict == "accepted"

    def judge(
        self, manifest: ReleaseManifest, *, beside: ReleaseManifest | None, compare: Compare
    ) -> ReleaseDecision:
        """Return the decision about a release that passed its self-test; nothing is kept yet.

        Parameters
        ----------
        manifest : ReleaseManifest
            The release's.
        beside : ReleaseManifest or None
            Of the release that answers, if one does.
        compare : callable
            Scores both on the holdout; None where it has too few cases. Called only if need be.

        Raises
        ------
        PrivacyRefused
            If the policy cannot be read: the release then waits until it can.
        """
        known = self.state.newest(manifest.version)
        if known is not None:
            return known
        if beside is None:
            return self._decision(manifest, "accepted", "first")
        restored = manifest.lineage.restores is not None
        if restored and answers_like(manifest) in self.state.answered:
            return self._decision(manifest, "accepted", "rollback")
        return self._decision(
            manifest, *verdict_of(self._policy(), manifest, beside=beside, compare=compare)
        )

    def keep(self, decision: ReleaseDecision) -> None:
        """Write down that a release is held or refused.

        Raises
        ------
        StoreError
            If it cannot be kept.
        """
        self._change(lambda state: state, decision)

    def take(
        self,
        manifest: ReleaseManifest,
        decision: ReleaseDecision | None,
        *,
        instead_of: Answering | None,
    ) -> None:
        """Have an accepted release answer from now on, also after a restart.

        Where it is a coordinator's rollback, the site goes back from what that replaces, too.

        Parameters
        ----------
        manifest : ReleaseManifest
            The release's.
        decision : ReleaseDecision or None
            As `judge` returned it; None where nothing new was decided.
        instead_of : Answering or None
            What was to answer when the judging began.

        Raises
        ------
        CaseRefused
            With code ``release-decided``, if somebody decided otherwise meanwhile.
        StoreError
            If it cannot be kept.
        """

        def change(state: SiteReleases) -> SiteReleases:
            known = state.newest(manifest.version)
            if state.serving != instead_of or (known and known.verdict != "accepted"):
                raise _decided(manifest.version)
            return state.left_behind(manifest, at=self._clock()).answering(manifest)

        self._change(change, decision)

    def accept(self, manifest: ReleaseManifest, *, by: str) -> ReleaseDecision:
        """Have a person accept a release; it answers as soon as it is loaded and self-tested.

        Raises
        ------
        CaseRefused
            With code ``release-decided``, if it answers, or is older than what does.
        StoreError
            If it cannot be kept.
        """
        return self._said(manifest, "accepted", by)

    def refuse(self, manifest: ReleaseManifest, *, by: str) -> ReleaseDecision:
        """Have a person refuse a release; raises as `accept`."""
        return self._said(manifest, "refused", by)

    def roll_back(self, *, by: str = POLICY, reason: str = "person") -> SiteReleases:
        """Have the release before answer again, until a newer one is accepted.

        Raises
        ------
        CaseRefused
            With code ``no-previous-release``.
        StoreError
            If it cannot be kept.
        """
        left: list[ReleaseDecision] = []

        def change(state: SiteReleases) -> SiteReleases:
            serving = state.serving
            if serving is None or state.fallback is None:
                raise CaseRefused(
                    "This site keeps no release from before the one that answers.",
                    meaning="Nothing was changed.",
                    action="Ask the coordinator for a rollback.",
                    code="no-previous-release",
                )
            left.append(
                ReleaseDecision(
                    version=serving.version,
                    model_digest=serving.model_digest,
                    verdict="rolled-back",
                    by=by,
                    reason=reason,
                    at=self._clock(),
                )
            )
            return state.gone_back().decided(left[0])

        state = self.decisions.change(change)
        self._on_decision(left[0])
        return state

    def _said(self, manifest: ReleaseManifest, verdict: Verdict, by: str) -> ReleaseDecision:
        decision = self._decision(manifest, verdict, "person", by=by)

        def change(state: SiteReleases) -> SiteReleases:
            if state.serving is not None and state.serving.version >= manifest.version:
                raise _decided(manifest.version)
            return state

        self._change(change, decision)
        return decision

    def _change(
        self, change: Callable[[SiteReleases], SiteReleases], decision: ReleaseDecision | None
    ) -> None:
        new: list[ReleaseDecision] = []

        def both(state: SiteReleases) -> SiteReleases:
            after = change(state)
            before = {id(known) for known in state.decisions}
            new.extend(d for d in after.decisions if id(d) not in before)
            if decision is None or after.newest(decision.version) == decision:
                return after
            new.append(decision)
            return after.decided(decision)

        self.decisions.change(both)
        for one in new:
            self._on_decision(one)

    def _decision(
        self,
        manifest: ReleaseManifest,
        verdict: Verdict,
        reason: str,
        figures: ShadowFigures | None = None,
        *,
        by: str = POLICY,
    ) -> ReleaseDecision:
        return ReleaseDecision(
            version=manifest.version,
            model_digest=manifest.model_digest,
            verdict=verdict,
            by=by,
            reason=reason,
            at=self._clock(),
            figures=figures,
        )


def unknown_release(version: int) -> NotFound:
    """Return the error of a version that this site does not keep."""
    return NotFound(
        f"This site keeps no release {version}.",
        action="`wardround site release list` shows those that it keeps.",
        code="release-not-found",
    )


def _decided(version: int) -> CaseRefused:
    return CaseRefused(
        f"Release {version} answers already, or an older one than does cannot be decided about.",
        meaning="Nothing was changed.",
        action="`wardround site release rollback` leads back to the release before.",
        code="release-decided",
    )
