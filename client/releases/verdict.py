"""What a site's policy says of a newer release: a function of policy, manifests and figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from client.releases.decisions import Verdict
from client.releases.policy import ReleasePolicy
from client.releases.shadow_figures import Finding, ShadowFigures
from common.release import ReleaseManifest

Compare: TypeAlias = Callable[[], "ShadowFigures | None"]


class Found(NamedTuple):
    """A verdict, the code that says why, and the figures that it rests on, if any."""

    verdict: Verdict
    reason: str
    figures: ShadowFigures | None = None


def verdict_of(
    policy: ReleasePolicy,
    manifest: ReleaseManifest,
    *,
    beside: ReleaseManifest,
    compare: Compare,
) -> Found:
    """Return what becomes of a release.

    Parameters
    ----------
    policy : ReleasePolicy
        The site's.
    manifest, beside : ReleaseManifest
        Of the release, and of the one that answers.
    compare : callable
        Scores both on the holdout; None where it has too few cases. Called only if need be.
    """
    if policy.on_release != "check":
        return Found("accepted" if policy.on_release == "accept" else "held", "policy")
    unclear: Verdict = "accepted" if policy.if_unclear == "accept" else "held"
    if manifest.classes != beside.classes:
        return Found(unclear, "classes-changed")
    figures = compare()
    if figures is None:
        return Found(unclear, "too-few-cases")
    verdicts: dict[Finding, Verdict] = {
        "not-worse": "accepted",
        "worse": "held" if policy.if_worse == "hold" else "refused",
        "unclear": unclear,
    }
    finding = figures.finding(policy)
    return Found(verdicts[finding], finding, figures)
