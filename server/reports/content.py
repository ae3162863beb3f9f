"""What a report says: everything that the registry knows of one candidate or release."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from common.errors import NotFound
from common.evaluation import SiteEvaluation
from common.recipe import Recipe
from common.records import Receipt
from common.release import ReleaseDraft
from server.registry.records import Campaign, Candidate, Contribution, Release, Round
from server.registry.registry import Registry


@dataclass(frozen=True)
class SitePart:
    """A site's part in the campaign.

    ``receipt`` is its last one, whose epsilons are totals; ``steps`` are summed over all that it
    gave for updates that were taken in. ``left_out`` says how often, and why, it was not in.
    """

    site: str
    rounds: int
    steps: int
    receipt: Receipt | None
    left_out: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ReleaseReport:
    """All that a report is drawn from.

    Attributes
    ----------
    draft : ReleaseDraft
        The release's manifest, or the candidate's draft.
    version : int or None
        Of the release; None for a candidate.
    state : str
        The candidate's state.
    published_at : datetime or None
        UTC.
    file_sha256 : str or None
        Of the released weights' file.
    campaign : Campaign
        Where the model comes from.
    rounds : tuple of Round
        In order; the evaluations before and after training among them.
    sites : tuple of SitePart
        By name.
    evaluation : SiteEvaluation or None
        Holdout counts of the final model, summed over sites; None on old candidates.
    by_site : tuple of (str, SiteEvaluation)
        The same of each site that reported a case; empty on old candidates.
    """

    draft: ReleaseDraft
    version: int | None
    state: str
    published_at: datetime | None
    file_sha256: str | None
    campaign: Campaign
    rounds: tuple[Round, ...]
    sites: tuple[SitePart, ...]
    evaluation: SiteEvaluation | None
    by_site: tuple[tuple[str, SiteEvaluation], ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe, as trained."""
        return self.draft.recipe

    @property
    def name(self) -> str:
        """What a person calls it."""
        if self.version is None:
            return f"candidate {self.draft.lineage.candidate}"
        return f"release v{self.version}"

    @property
    def suppressed(self) -> str | None:
        """Which counts the sites kept back, as the beginning of a sentence; None for none.

        Sites' policies differ, and the sum's ``minimum_cell`` is the smallest of theirs.
        """
        if self.evaluation is None:
            return None
        cells = [counts.minimum_cell for _, counts in self.by_site]
        least, most = self.evaluation.minimum_cell, max([self.evaluation.minimum_cell, *cells])
        if least == most > 1:
            return f"Counts below {most} at the sites"
        if most > 1:
            return f"Small counts at some sites (below {most} where the policy is strictest)"
        return "Small counts at some sites" if any(self.evaluation.unresolved) else None


def release_report(registry: Registry, version: int) -> ReleaseReport:
    """Collect a release's report.

    Raises
    ------
    NotFound
        If there is no release of that version.
    """
    release = registry.release(version)
    found = registry.candidates(campaign=release.manifest.lineage.campaign)
    candidate = next((c for c in found if c.id == release.candidate), None)
    return _collect(registry, candidate, release)


def candidate_report(registry: Registry, campaign: str) -> ReleaseReport:
    """Collect the report of a campaign's candidate, released or not.

    Raises
    ------
    NotFound
        If there is no such campaign, or it made no candidate.
    """
    registry.campaign(campaign)
    found = registry.candidates(campaign=campaign)
    if not found:
        raise NotFound(
            f"Campaign {campaign} has made no candidate.",
            action="Wait until it has finished; `wardround coordinator campaign show` tells.",
        )
    candidate = found[0]
    releases = [r for r in registry.releases() if r.candidate == candidate.id]
    return _collect(registry, candidate, releases[0] if releases else None)


def _collect(
    registry: Registry, candidate: Candidate | None, release: Release | None
) -> ReleaseReport:
    draft: ReleaseDraft
    if release is not None:
        draft = release.manifest
    elif candidate is not None:
        draft = candidate.draft
    else:
        raise NotFound("There is neither a candidate nor a release to report on.")
    campaign = draft.lineage.campaign
    return ReleaseReport(
        draft=draft,
        version=None if release is None else release.version,
        state="published" if candidate is None else candidate.state,
        published_at=None if release is None else release.published_at,
        file_sha256=None if release is None else release.manifest.file.sha256,
        campaign=registry.campaign(campaign),
        rounds=registry.rounds(campaign),
        sites=_parts(registry.contributions(campaign), draft),
        evaluation=None if candidate is None else candidate.evaluation,
        by_site=_by_site(registry, draft),
    )


def _by_site(registry: Registry, draft: ReleaseDraft) -> tuple[tuple[str, SiteEvaluation], ...]:
    """Return the counts of the candidate that was evaluated; a rollback goes back to it."""
    for candidate in (draft.lineage.candidate, draft.lineage.campaign):
        found = registry.site_evaluations(candidate)
        if found:
            return tuple((site, counts) for site, counts in found.items() if counts.cases)
    return ()


def _parts(contributions: tuple[Contribution, ...], draft: ReleaseDraft) -> tuple[SitePart, ...]:
    """Put each site's part together: what was taken in, and what was left out for which reason."""
    released = {part.site: part for part in draft.lineage.sites}
    parts = []
    for site in sorted(released.keys() | {c.site for c in contributions}):
        own = [c for c in contributions if c.site == site]
        trained = [c for c in own if c.outcome == "accepted" and c.receipt is not None]
        reasons = [c.code or c.outcome for c in own if c.outcome != "accepted"]
        listed = released.get(site)
        last = max(trained, key=lambda c: (c.round, c.attempt)).receipt if trained else None
        parts.append(
            SitePart(
                site=site,
                rounds=listed.rounds if listed else 0,
                steps=sum(c.receipt.steps for c in trained if c.receipt is not None),
                receipt=listed.receipt if listed and listed.receipt else last,
                left_out=tuple((code, reasons.count(code)) for code in sorted(set(reasons))),
            )
        )
    return tuple(parts)
