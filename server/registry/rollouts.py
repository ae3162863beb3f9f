"""The registry's part on decisions: who approved a candidate, which sites may take a release.

The registry is what is wanted; the signed repository follows it (`server.publishing.service`).
The states of a release::

    canary ──► everywhere        roll_out, to more sites or to all
      │  ▲         │ ▲
      ▼  │         ▼ │
      held ◄──────►                hold, and roll_out again
        any ──► withdrawn         roll_back to an older release's weights; for good

A held or withdrawn release stays with the sites that have it, for versions never go down; what
brings them back is a rollback: the old weights, under a higher version, for every site at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.audit import AuditLog
from common.audit_entries import CandidateDecided, RolledBack, RolloutChanged
from common.errors import InputRefused, NotFound, RoundFailed
from common.moments import utc_now
from common.release import LatestRelease, LimitedRelease, ReleaseDraft, ReleaseManifest
from server.registry import rows
from server.registry.champions import champion_change, lock_releases, pending_candidates
from server.registry.records import Candidate, Release
from server.registry.sessions import Sessions
from server.registry.tables import CandidateRow, ReleaseRow, SiteRow

Ring = Sequence[str] | None
"""Names of sites, None for every site."""

LONGEST_REASON = 500


class Rollouts:
    """Decisions on candidates and releases. Use it as ``registry.rollouts``.

    Every method that changes something takes ``by``, the account that asked for it, and writes
    it into the audit log.
    """

    def __init__(self, sessions: Sessions, audit: AuditLog) -> None:
        self._sessions = sessions
        self._audit = audit

    def approve(
        self, identifier: str, *, by: str, sites: Ring = None, champion_changed: bool = False
    ) -> Candidate:
        """Approve a waiting candidate; it is published next, to ``sites`` first.

        ``champion_changed`` says that the approver knows that the gate compared it with another
        release than the current one.

        Raises
        ------
        NotFound
            If there is no such candidate.
        RoundFailed
            With code ``candidate-decided``, if it does not wait: a failed gate is final; with
            ``champion-changed``, where the champion has changed and ``champion_changed`` is not
            said.
        InputRefused
            With code ``site-unknown``, or ``ring-empty``.
        """
        with self._sessions.writing() as session:
            row = _waiting(session, identifier)
            ring = _checked_ring(session, sites)
            row.reason = _known_change(session, row, known=champion_changed)
            row.state, row.sites = "approved", rows.ring_text(ring)
            row.decided_by, row.decided_at = by, utc_now()
        return self._decided(rows.candidate(row), "approved")

    def champion_change(self, candidate: Candidate) -> str | None:
        """Say how the champion differs from the one that a waiting candidate was compared with."""
        if candidate.state != "waiting":
            return None
        with self._sessions.reading() as session:
            row = session.get(CandidateRow, candidate.id)
            return None if row is None else champion_change(session, row)

    def refuse(self, identifier: str, *, by: str, reason: str) -> Candidate:
        """Refuse a waiting candidate, for good; raises as `approve`."""
        with self._sessions.writing() as session:
            row = _waiting(session, identifier)
            row.state, row.reason = "refused", _checked_reason(reason)
            row.decided_by, row.decided_at = by, utc_now()
        return self._decided(rows.candidate(row), "refused")

    def roll_out(self, version: int, *, by: str, sites: Ring = None) -> Release:
        """Let more sites, or all of them, take a release; a held one goes on.

        Raises
        ------
        NotFound
            If there is no such release.
        RoundFailed
            With code ``release-withdrawn``, or ``release-superseded`` where a newer one is meant
            for every site already.
        InputRefused
            With code ``site-unknown``, or ``ring-empty``.
        """
        with self._sessions.writing() as session:
            row = _open_release(session, version)
            ring = _checked_ring(session, sites)
            row.state = "everywhere" if ring is None else "canary"
            row.sites = rows.ring_text(ring)
            row.changed_by, row.changed_at = by, utc_now()
        return self._changed(row, by)

    def hold(self, version: int, *, by: str) -> Release:
        """Stop a release from reaching more sites; raises as `roll_out`."""
        with self._sessions.writing() as session:
            row = _open_release(session, version)
            row.state = "held"
            row.changed_by, row.changed_at = by, utc_now()
        return self._changed(row, by)

    def roll_back(self, restores: int, *, by: str, reason: str) -> Candidate:
        """Bring back the weights of an older release, under a higher version, for every site.

        What is newer is withdrawn at once; the approved candidate that is returned is published
        next, like any other.

        Raises
        ------
        NotFound
            If there is no such release.
        RoundFailed
            With code ``rollback-nowhere``: the release is the newest of its task, or was
            withdrawn itself, or has the weights that the newest one has; with
            ``rollback-pending``, while an earlier rollback of the task is not published yet.
        """
        with self._sessions.writing() as session:
            lock_releases(session, _release(session, restores).task)
            target = _release(session, restores)
            _refuse_second_rollback(session, target.task)
            newer = _newer(session, target)
            _refuse_no_rollback(target, newer)
            withdrawn = [row for row in newer if row.state != "withdrawn"]
            for row in withdrawn:
                row.state, row.changed_by, row.changed_at = "withdrawn", by, utc_now()
            draft = _restoring(target, replaces=newer[0].version)
            candidate = CandidateRow(
                id=draft.lineage.candidate,
                campaign=draft.lineage.campaign,
                model_digest=draft.model_digest,
                draft=draft.model_dump_json(),
                state="approved",
                created_at=utc_now(),
                decided_by=by,
                decided_at=utc_now(),
                reason=_checked_reason(reason),
            )
            session.add(candidate)
            session.flush()
            # In the transaction: nothing else tells later who rolled back, and from what.
            done = RolledBack(
                replaces=newer[0].version, restores=restores, candidate=candidate.id, by=by
            )
            lines = self._audit.append_in(
                session.connection(),
                done,
                *(_rollout_entry(rows.release(row), by) for row in withdrawn),
            )
        self._audit.remember(lines[-1])
        return rows.candidate(candidate)

    def wanted(self, task: str) -> LatestRelease:
        """Return which of a task's releases are meant for which sites."""
        query = select(ReleaseRow).where(ReleaseRow.task == task).order_by(ReleaseRow.version)
        found = [rows.release(row) for row in self._sessions.all(query)]
        everywhere = max((r.version for r in found if r.state == "everywhere"), default=0)
        limited = (
            LimitedRelease(version=r.version, sites=r.sites, held=r.state != "canary")
            for r in found
            if r.version > everywhere
        )
        return LatestRelease(task=task, version=everywhere, limited=tuple(limited))

    def tasks(self) -> tuple[str, ...]:
        """Return every task that has a release."""
        with self._sessions.reading() as session:
            return tuple(session.scalars(select(ReleaseRow.task).distinct()).all())

    def audit_decisions(self) -> None:
        """Write down decisions that a crash kept out of the audit log."""
        kinds = ("candidate-decided", "rollout")
        written = {line.entry() for line in self._audit.lines(kinds=kinds)}
        missing = [entry for entry in self._entries() if entry not in written]
        self._audit.append(*missing)

    def _entries(self) -> list[CandidateDecided | RolloutChanged]:
        decided = self._sessions.all(
            select(CandidateRow).where(CandidateRow.decided_by.not_in(("gate", "policy")))
        )
        changed = self._sessions.all(select(ReleaseRow).where(ReleaseRow.changed_by.is_not(None)))
        candidates = [rows.candidate(row) for row in decided]
        return [
            *(
                _decision_entry(c, "refused" if c.state == "refused" else "approved")
                for c in candidates
                if c.draft.lineage.restores is None
            ),
            *(_rollout_entry(rows.release(row), row.changed_by or "") for row in changed),
        ]

    def _decided(self, candidate: Candidate, decision: str) -> Candidate:
        self._audit.append(_decision_entry(candidate, decision))
        return candidate

    def _changed(self, row: ReleaseRow, by: str) -> Release:
        release = rows.release(row)
        self._audit.append(_rollout_entry(release, by))
        return release


def _decision_entry(candidate: Candidate, decision: str) -> CandidateDecided:
    return CandidateDecided.model_validate(
        {
            "candidate": candidate.id,
            "model_digest": candidate.model_digest,
            "decision": decision,
            "by": candidate.decided_by,
            "sites": candidate.sites,
        }
    )


def _rollout_entry(release: Release, by: str) -> RolloutChanged:
    return RolloutChanged(version=release.version, state=release.state, by=by, sites=release.sites)


def _waiting(session: Session, identifier: str) -> CandidateRow:
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


def _known_change(session: Session, row: CandidateRow, *, known: bool) -> str | None:
    """Return what is to be kept on record of a changed champion; refuse where it is not known."""
    lock_releases(session, ReleaseDraft.model_validate_json(row.draft).task)
    change = champion_change(session, row)
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


def _release(session: Session, version: int) -> ReleaseRow:
    row = session.get(ReleaseRow, version, with_for_update=True)
    if row is None:
        raise NotFound(
            f"There is no release {version}.",
            action="`wardround coordinator release list` names them.",
        )
    return row


def _newer(session: Session, than: ReleaseRow) -> list[ReleaseRow]:
    """Return a task's newer releases, the newest first."""
    query = (
        select(ReleaseRow)
        .where(ReleaseRow.task == than.task, ReleaseRow.version > than.version)
        .order_by(ReleaseRow.version.desc())
        .with_for_update()
    )
    return list(session.scalars(query))


def _open_release(session: Session, version: int) -> ReleaseRow:
    row = _release(session, version)
    if row.state == "withdrawn":
        raise RoundFailed(
            f"Release {version} was withdrawn.",
            action="Roll back to the release that sites should have, or release a new one.",
            code="release-withdrawn",
        )
    if any(newer.state == "everywhere" for newer in _newer(session, row)):
        raise RoundFailed(
            f"A newer release than {version} is meant for every site already.",
            action="To bring its weights back, roll back to it.",
            code="release-superseded",
        )
    return row


def _refuse_no_rollback(target: ReleaseRow, newer: list[ReleaseRow]) -> None:
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


def _refuse_second_rollback(session: Session, task: str) -> None:
    for row in pending_candidates(session, task):
        lineage = ReleaseDraft.model_validate_json(row.draft).lineage
        if lineage.restores is not None:
            raise RoundFailed(
                f"A rollback to release {lineage.restores} is about to be published.",
                meaning="Somebody else has rolled this task back just now.",
                action="Wait until it is published, and see whether another one is needed.",
                code="rollback-pending",
            )


def _restoring(target: ReleaseRow, *, replaces: int) -> ReleaseDraft:
    manifest = ReleaseManifest.model_validate_json(target.manifest)
    name = f"rollback-v{replaces}-to-v{target.version}-{secrets.token_hex(3)}"
    lineage = manifest.lineage.model_copy(
        update={"candidate": name, "restores": target.version, "replaces": replaces}
    )
    fields = {part: getattr(manifest, part) for part in ReleaseDraft.model_fields}
    return ReleaseDraft(**{**fields, "lineage": lineage, "created_at": datetime.now(UTC)})


def _checked_ring(session: Session, sites: Ring) -> Ring:
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


def _checked_reason(reason: str) -> str:
    text = " ".join(reason.split())
    if not text or len(text) > LONGEST_REASON:
        raise InputRefused(
            f"A reason of 1 to {LONGEST_REASON} characters is needed.",
            action="Say why: it is kept on record.",
            code="reason-missing",
        )
    return text
