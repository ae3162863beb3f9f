"""What must be so before a candidate or a release is decided on, and the rows that it is about.

All of it runs in the transaction that decides: rows are locked until it ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.errors import InputRefused, NotFound, RoundFailed
from common.release import ReleaseDraft
from common.release.document import MAXIMUM_VERSION
from server.registry import rows
from server.registry.champions import (
    approval_stands,
    champion_change,
    is_rollback,
    lock_releases,
    pending_candidates,
    rollout_change,
)
from server.registry.seen import refuse_unseen, seen_candidate, seen_release
from server.registry.tables import CampaignRow, CandidateRow, ReleaseRow, SiteRow

Ring = Sequence[str] | None
"""Names of sites, None for every site."""

LONGEST_REASON = 500
VERSIONS = range(1, MAXIMUM_VERSION + 1)
"""Others are in no database, and SQLite's driver fails when it is asked for one."""
LIMITED = ("canary", "held")
"""States of a release that not every site may take yet."""


def waiting_candidate(session: Session, identifier: str) -> CandidateRow:
    """Return a candidate that waits; refuse where there is none, or it was decided on."""
    row = session.get(CandidateRow, identifier, with_for_update=True)
    if row is None:
        raise NotFound(
            f"There is no candidate {identifier!r}.",
            action="`wardround coordinator campaign show` names a campaign's candidate.",
        )
    if row.state != "waiting":
        raise RoundFailed(
            f"Candidate {identifier} is {row.state}, not waiting.",
            meaning="A decision is made once; a candidate that failed a check is never released.",
            code="candidate-decided",
        )
    return row


def known_change(
    session: Session, row: CandidateRow, *, known: bool, seen: str | None
) -> str | None:
    """Return what is to be kept on record of a changed champion; refuse where it is not known.

    ``seen`` is of the page that the decision was made on, as `server.registry.seen` makes it.
    """
    lock_releases(session, ReleaseDraft.model_validate_json(row.draft).task)
    change = champion_change(session, row)
    now = seen_candidate(rows.candidate(row), change)
    refuse_unseen(seen, now, name=f"Candidate {row.id}", code="candidate-changed")
    if change is None:
        return None
    if not known:
        raise RoundFailed(
            f"The champion has changed since candidate {row.id} was trained. {change}",
            meaning="Nobody has compared it with what the sites would lose by it.",
            action="Refuse it and train anew, or approve it knowingly: tick the box on its page, "
            "or give `--champion-changed`.",
            code="champion-changed",
        )
    return f"Approved although the champion had changed. {change}"


def known_rollout(
    session: Session, row: ReleaseRow, ring: Ring, *, known: bool, seen: str | None
) -> bool:
    """Tell whether a ring is widened knowingly over another champion; refuse where unknowingly.

    ``seen`` is as for `known_change`.
    """
    change = rollout_change(session, row) if row.state in LIMITED else None
    now = seen_release(rows.release(row), change)
    refuse_unseen(seen, now, name=f"Release {row.version}", code="release-changed")
    if not _widened(row, ring):
        return False
    if change is not None and not known:
        raise RoundFailed(
            f"Release {row.version} was not held against the current release. {change}",
            meaning="Nobody has compared it with what more sites would lose by it.",
            action="Hold it and train anew, or roll it out knowingly: tick the box on its page, "
            "or give `--champion-changed`.",
            code="champion-changed",
        )
    return change is not None


def _widened(row: ReleaseRow, ring: Ring) -> bool:
    if row.state == "everywhere":
        return False
    return row.state == "held" or ring is None or not set(ring) <= set(rows.ring(row.sites) or ())


def locked_release(session: Session, version: int, *, of_task: bool = False) -> ReleaseRow:
    """Return a release; refuse where there is none.

    With ``of_task`` its task is locked before it, as `lock_releases` does: in the order of the
    others, who would else wait for this one and this one for them.
    """
    if version not in VERSIONS:
        raise no_such_release(version)
    if of_task:
        query = select(ReleaseRow.task).where(ReleaseRow.version == version)
        lock_releases(session, session.scalar(query) or "")
    row = session.get(ReleaseRow, version, with_for_update=True)
    if row is None:
        raise no_such_release(version)
    return row


def no_such_release(version: int) -> NotFound:
    """Return the error for a release that there is not."""
    return NotFound(
        f"There is no release {version}.",
        action="`wardround coordinator release list` names them.",
    )


def newer_releases(session: Session, than: ReleaseRow) -> list[ReleaseRow]:
    """Return a task's newer releases, the newest first."""
    query = (
        select(ReleaseRow)
        .where(ReleaseRow.task == than.task, ReleaseRow.version > than.version)
        .order_by(ReleaseRow.version.desc())
        .with_for_update()
    )
    return list(session.scalars(query))


def open_release(session: Session, version: int) -> ReleaseRow:
    """Return a release whose rollout may change; refuse one that is withdrawn or superseded."""
    row = locked_release(session, version, of_task=True)
    if row.state == "withdrawn":
        raise RoundFailed(
            f"Release {version} was withdrawn.",
            action="Roll back to the release that sites should have, or release a new one.",
            code="release-withdrawn",
        )
    if any(newer.state == "everywhere" for newer in newer_releases(session, row)):
        raise RoundFailed(
            f"A newer release than {version} is meant for every site already.",
            action="To bring its weights back, roll back to it.",
            code="release-superseded",
        )
    return row


def refuse_no_rollback(
    target: ReleaseRow, newer: list[ReleaseRow], *, newest: int | None = None
) -> None:
    """Refuse a rollback to a release that is no way back; ``newer`` is of `newer_releases`.

    ``newest`` is what the page showed as the newest release: one that nobody saw is not withdrawn.
    """
    if newest is not None and newer and newer[0].version != newest:
        raise RoundFailed(
            f"Release {newer[0].version} is the newest now, not {newest}; nothing was done.",
            meaning="The rollback would withdraw it for good, and the page did not show it.",
            action="Go back, load the page again, and decide on what it shows then.",
            code="release-changed",
        )
    if not newer:
        why = "It is the newest release of its task."
    elif target.state == "withdrawn":
        why = "It was withdrawn itself."
    elif newer[0].model_digest == target.model_digest and newer[0].state == "everywhere":
        why = f"Release {newer[0].version} has its weights already, and every site may take it."
    else:
        return
    raise RoundFailed(
        f"There is no way back to release {target.version}. {why}", code="rollback-nowhere"
    )


def refuse_second_rollback(session: Session, task: str) -> None:
    """Refuse a rollback while an earlier one of the task is not published yet."""
    for row in pending_candidates(session, task):
        lineage = ReleaseDraft.model_validate_json(row.draft).lineage
        if lineage.restores is not None:
            raise RoundFailed(
                f"A rollback to release {lineage.restores} is about to be published.",
                meaning="Somebody else has rolled this task back just now.",
                action="Wait until it is published, and see whether another one is needed.",
                code="rollback-pending",
            )


def still_stands(session: Session, row: CandidateRow) -> bool:
    """Tell whether a candidate may be published as it was approved: over the same champion.

    A rollback always may. Approvals from before their champion was kept hold until a rollback
    that was decided on later, by the clock.
    """
    if is_rollback(row):
        return True
    if row.approved_over is None:
        return not _rolled_back_since(session, row)
    return approval_stands(session, row)


def _rolled_back_since(session: Session, row: CandidateRow) -> bool:
    task = ReleaseDraft.model_validate_json(row.draft).task
    query = (
        select(CandidateRow)
        .join(CampaignRow, CampaignRow.id == CandidateRow.campaign)
        .where(CampaignRow.task == task, CandidateRow.id != row.id)
        .where(CandidateRow.decided_at >= (row.decided_at or row.created_at))
    )
    return any(map(is_rollback, session.scalars(query)))


def checked_ring(session: Session, sites: Ring) -> Ring:
    """Return a ring; refuse an empty one, and one that names a site which is not registered."""
    if sites is None:
        return None
    if not sites:
        raise InputRefused(
            "No site is named.", action="Name at least one, or choose all.", code="ring-empty"
        )
    known = set(session.scalars(select(SiteRow.name)).all())
    unknown = sorted(set(sites) - known)
    if unknown:
        raise InputRefused(
            f"No such site: {', '.join(unknown)[:200]}.",
            action="Name sites as `wardround provision` made them.",
            code="site-unknown",
        )
    return sites


def checked_reason(reason: str) -> str:
    """Return a reason on one line; refuse none, and one that is too long."""
    text = " ".join(reason.split())
    if not text or len(text) > LONGEST_REASON:
        raise InputRefused(
            f"A reason of 1 to {LONGEST_REASON} characters is needed.",
            action="Say why: it is kept on record.",
            code="reason-missing",
        )
    return text
