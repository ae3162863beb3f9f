"""What a page showed of a candidate or release when it was drawn, held against what is so now.

A page may have been open for hours. What it offers to decide was chosen on what it showed: "roll
out to every site" beside a canary says nothing of a release that somebody has held since.
"""

from __future__ import annotations

import hashlib

from common.errors import RoundFailed
from server.registry.records import Candidate, Release


def seen_release(release: Release, change: str | None) -> str:
    """Return 64 hex digits of a release's rollout; ``change`` as `Rollouts.rollout_change` says."""
    return _digest(release.version, release.state, release.sites, release.changed_at, change)


def seen_candidate(candidate: Candidate, change: str | None) -> str:
    """Return 64 hex digits of what speaks against a candidate; ``change`` as for a release.

    Its figures and verdicts never change.
    """
    return _digest(candidate.id, candidate.state, candidate.reason, change)


def refuse_unseen(seen: str | None, now: str, *, name: str, code: str) -> None:
    """Refuse a decision on something else than what is so ``now``; None is one without a page.

    Raises
    ------
    RoundFailed
        With ``code``.
    """
    if seen is not None and seen != now:
        raise RoundFailed(
            f"{name} is not as the page showed it; nothing was done.",
            meaning="Somebody else has decided, or the current release has changed, since then.",
            action="Go back, load the page again, and decide on what it shows then.",
            code=code,
        )


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
