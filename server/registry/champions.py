"""Whether a candidate was held against the release that is a task's champion now.

A campaign scores the champion of its start. Until its candidate is judged, and until somebody
approves that one, another release may have come, or a clinical rollback may have withdrawn what
it was trained from. The gate's comparison is then with a model that nobody serves.

Models are told apart by the digests of their weights: a rollback's release has the weights of an
older one, and a comparison with these holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.release import ReleaseDraft
from server.registry.tables import CampaignRow, CandidateRow, ReleaseRow, RoundRow

CHAMPION_ROUND = 0
"""Number of the exchange that scores a champion from which the campaign does not start."""


class _Standing(Protocol):
    @property
    def state(self) -> str: ...


Found = TypeVar("Found", bound=_Standing)


def champion_of(found: Iterable[Found]) -> Found | None:
    """Return the champion among a task's releases, the newest of which is first.

    It is the newest that every site may take, else the newest on its way there; what was held or
    withdrawn is nothing to start from, or to be compared with.
    """
    releases = list(found)
    for state in ("everywhere", "canary"):
        newest = next((release for release in releases if release.state == state), None)
        if newest is not None:
            return newest
    return None


def lock_releases(session: Session, task: str) -> None:
    """Let those who decide on one task come one after another; the oldest release is locked first.

    SQLite has one writer at a time anyway.
    """
    query = select(ReleaseRow.version).where(ReleaseRow.task == task)
    session.execute(query.order_by(ReleaseRow.version).with_for_update()).all()


def champion_change(session: Session, candidate: CandidateRow) -> str | None:
    """Say how the champion differs from the one that a candidate was compared with.

    Parameters
    ----------
    session : Session
        A transaction; one that decides has called `lock_releases` before.
    candidate : CandidateRow
        Of a campaign.

    Returns
    -------
    str or None
        A sentence or two; None where it was compared with the champion's weights, or neither
        then nor now there was a champion.
    """
    campaign = session.get(CampaignRow, candidate.campaign)
    if campaign is None:
        return None
    pending = pending_candidates(session, campaign.task, but=candidate.id)
    releases = _releases(session, campaign.task)  # after what is pending: it may be published now
    return _difference(session, campaign, releases, _present(releases, pending))


def rollout_change(session: Session, release: ReleaseRow) -> str | None:
    """Say how a release was held against another one than what more sites would lose by it.

    That is the champion among older releases: a newer one's sites keep theirs. None also where it
    was approved over that champion, knowingly or not, and of a rollback, which needs no comparison.
    """
    candidate = session.get_one(CandidateRow, release.candidate)
    campaign = session.get_one(CampaignRow, candidate.campaign)
    releases = _releases(session, release.task)
    older = [other for other in releases if other.version < release.version]
    present = _present(older, ())
    if is_rollback(candidate) or candidate.approved_over == present.candidate:
        return None
    return _difference(session, campaign, releases, present)


def _difference(
    session: Session, campaign: CampaignRow, releases: Sequence[ReleaseRow], present: _Model
) -> str | None:
    scored = _scored(session, campaign, releases)
    if scored.digest == present.digest:
        return None
    base = next((r for r in releases if r.version == campaign.base_release), None)
    withdrawn = base is not None and base.state == "withdrawn"
    lost = f" Release {campaign.base_release}, from which it was trained, was withdrawn."
    return (
        f"The gate compared it with {scored.name}; the current release is {present.name}."
        f"{lost if withdrawn else ''}"
    )


def present_champion(session: Session, candidate: CandidateRow) -> str:
    """Return what a candidate is approved over: the champion, or what is about to be it.

    Returns
    -------
    str
        The other's own candidate, "" for none. It names one release and no other: a rollback's
        has the weights of an older one, and is a decision of its own.
    """
    task = _task(candidate)
    pending = pending_candidates(session, task, but=candidate.id)
    return _present(_releases(session, task), pending).candidate


def approval_stands(
    session: Session, candidate: CandidateRow, *, before: frozenset[str] = frozenset()
) -> bool:
    """Tell whether what a candidate was approved over is the champion still, or is to be it.

    A rollback that is about to be published is the champion already; of other candidates only the
    one that was known at the approval counts, for these may fail, or wait again. No clock is
    asked, which somebody may have set. ``before`` are those that wait for this one: two that
    were approved over each other, in turn, stand neither.
    """
    task = _task(candidate)
    pending = pending_candidates(session, task, but=candidate.id)
    champion = champion_of(_releases(session, task))  # after what is pending, as above
    if candidate.approved_over == (champion.candidate if champion is not None else ""):
        return not any(map(is_rollback, pending))
    awaited = next((c for c in pending if c.id == candidate.approved_over), None)
    if awaited is None or awaited.id in before:
        return False
    return is_rollback(awaited) or approval_stands(session, awaited, before=before | {candidate.id})


def is_rollback(candidate: CandidateRow) -> bool:
    """Tell whether a candidate brings back an older release."""
    return ReleaseDraft.model_validate_json(candidate.draft).lineage.restores is not None


@dataclass(frozen=True)
class _Model:
    name: str
    digest: str | None
    candidate: str = ""


def _scored(session: Session, campaign: CampaignRow, releases: Sequence[ReleaseRow]) -> _Model:
    if campaign.base_release is not None:
        base = next((r for r in releases if r.version == campaign.base_release), None)
        digest = campaign.initial_digest if base is None else base.model_digest
        return _Model(f"release {campaign.base_release}", digest)
    row = session.get(RoundRow, (campaign.id, CHAMPION_ROUND))
    if row is None:
        return _Model("none", None)
    known = next((r for r in releases if r.model_digest == row.base_digest), None)
    name = "an earlier release" if known is None else f"release {known.version}"
    return _Model(name, row.base_digest)


def _present(releases: Sequence[ReleaseRow], pending: Sequence[CandidateRow]) -> _Model:
    champion = champion_of(releases)
    coming = [c for c in pending if c.sites is None or champion is None]
    if coming:
        name = f"candidate {coming[0].id}, about to be published"
        return _Model(name, coming[0].model_digest, coming[0].id)
    if champion is None:
        return _Model("none", None)
    return _Model(f"release {champion.version}", champion.model_digest, champion.candidate)


def _task(candidate: CandidateRow) -> str:
    return ReleaseDraft.model_validate_json(candidate.draft).task


def _releases(session: Session, task: str) -> Sequence[ReleaseRow]:
    query = select(ReleaseRow).where(ReleaseRow.task == task).order_by(ReleaseRow.version.desc())
    return session.scalars(query.execution_options(populate_existing=True)).all()


def pending_candidates(session: Session, task: str, *, but: str = "") -> Sequence[CandidateRow]:
    """Return the task's candidates that are published next, the last of these first.

    The one that ``but`` names is not among them.
    """
    query = (
        select(CandidateRow)
        .join(CampaignRow, CampaignRow.id == CandidateRow.campaign)
        .where(CampaignRow.task == task, CandidateRow.state == "approved", CandidateRow.id != but)
        .order_by(CandidateRow.created_at.desc())
    )
    return session.scalars(query).all()
