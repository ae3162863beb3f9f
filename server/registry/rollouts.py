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
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from common.audit import AuditLog
from common.audit_entries import CandidateDecided, Entry, RolledBack, RolloutChanged
from common.audit_lines import AuditLine
from common.moments import utc_now
from common.release import LatestRelease, LimitedRelease, ReleaseDraft, ReleaseManifest
from server.audit import decision_entry, rollout_entry
from server.registry import rows
from server.registry.champions import champion_change, present_champion, rollout_change
from server.registry.decision_checks import (
    LIMITED,
    Ring,
    checked_reason,
    checked_ring,
    known_change,
    known_rollout,
    locked_release,
    newer_releases,
    open_release,
    refuse_no_rollback,
    refuse_second_rollback,
    waiting_candidate,
)
from server.registry.records import Candidate, Release
from server.registry.sessions import Sessions
from server.registry.tables import CandidateRow, ReleaseRow


class Rollouts:
    """Decisions on candidates and releases. Use it as ``registry.rollouts``.

    Every method that changes something takes ``by``, the account that asked for it, and writes
    it into the audit log.
    """

    def __init__(self, sessions: Sessions, audit: AuditLog) -> None:
        self._sessions = sessions
        self._audit = audit

    def approve(
        self,
        identifier: str,
        *,
        by: str,
        sites: Ring = None,
        champion_changed: bool = False,
        seen: str | None = None,
    ) -> Candidate:
        """Approve a waiting candidate; it is published next, to ``sites`` first.

        ``champion_changed`` says that the approver knows that the gate compared it with another
        release than the current one. ``seen`` is what a page showed (`server.registry.seen`),
        None where the decision was made without one.

        Raises
        ------
        NotFound
            If there is no such candidate.
        RoundFailed
            With code ``candidate-decided``, if it does not wait: a failed gate is final; with
            ``candidate-changed``, if it is not as it was seen; with ``champion-changed``, where
            the champion has changed and ``champion_changed`` is not said.
        InputRefused
            With code ``site-unknown``, or ``ring-empty``.
        """
        with self._sessions.writing() as session:
            row = waiting_candidate(session, identifier)
            ring = checked_ring(session, sites)
            row.reason = known_change(session, row, known=champion_changed, seen=seen)
            row.approved_over = present_champion(session, row)
            row.state, row.sites = "approved", rows.ring_text(ring)
            row.decided_by, row.decided_at = by, utc_now()
            lines = self._written(session, decision_entry(rows.candidate(row), "approved"))
        self._remember(lines)
        return rows.candidate(row)

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
            row = waiting_candidate(session, identifier)
            row.state, row.reason = "refused", checked_reason(reason)
            row.decided_by, row.decided_at = by, utc_now()
            lines = self._written(session, decision_entry(rows.candidate(row), "refused"))
        self._remember(lines)
        return rows.candidate(row)

    def roll_out(
        self,
        version: int,
        *,
        by: str,
        sites: Ring = None,
        champion_changed: bool = False,
        seen: str | None = None,
    ) -> Release:
        """Let more sites, or all of them, take a release; a held one goes on.

        ``champion_changed`` says as in `approve` that the gate compared it with another release
        than the one that more sites would lose by it. ``seen`` is as there: a form from before a
        hold is not to undo it.

        Raises
        ------
        NotFound
            If there is no such release.
        RoundFailed
            With code ``release-withdrawn``, or ``release-superseded`` where a newer one is meant
            for every site already; with ``release-changed``, if it is not as it was seen; with
            ``champion-changed``, where more sites would take it, it
            was compared with another champion, and ``champion_changed`` is not said.
        InputRefused
            With code ``site-unknown``, or ``ring-empty``.
        """
        with self._sessions.writing() as session:
            row = open_release(session, version)
            ring = checked_ring(session, sites)
            known = known_rollout(session, row, ring, known=champion_changed, seen=seen)
            row.state = "everywhere" if ring is None else "canary"
            row.sites = rows.ring_text(ring)
            row.changed_by, row.changed_at = by, utc_now()
            entry = rollout_entry(rows.release(row), by, champion_changed=known)
            lines = self._written(session, entry)
        self._remember(lines)
        return rows.release(row)

    def rollout_change(self, release: Release) -> str | None:
        """Say how what more sites would lose differs from what a release was compared with."""
        if release.state not in LIMITED:
            return None
        with self._sessions.reading() as session:
            return rollout_change(session, session.get_one(ReleaseRow, release.version))

    def hold(self, version: int, *, by: str) -> Release:
        """Stop a release from reaching more sites; raises as `roll_out`."""
        with self._sessions.writing() as session:
            row = open_release(session, version)
            row.state = "held"
            row.changed_by, row.changed_at = by, utc_now()
            lines = self._written(session, rollout_entry(rows.release(row), by))
        self._remember(lines)
        return rows.release(row)

    def roll_back(
        self, restores: int, *, by: str, reason: str, newest: int | None = None
    ) -> Candidate:
        """Bring back the weights of an older release, under a higher version, for every site.

        What is newer is withdrawn at once; the approved candidate that is returned is published
        next, like any other. ``newest`` is what a page showed as the task's newest release, None
        where the decision was made without one.

        Raises
        ------
        NotFound
            If there is no such release.
        RoundFailed
            With code ``rollback-nowhere``: the release is the newest of its task, or was
            withdrawn itself, or has the weights that the newest one has; with
            ``rollback-pending``, while an earlier rollback of the task is not published yet; with
            ``release-changed``, if another release is the newest.
        """
        with self._sessions.writing() as session:
            target = locked_release(session, restores, of_task=True)
            refuse_second_rollback(session, target.task)
            newer = newer_releases(session, target)
            refuse_no_rollback(target, newer, newest=newest)
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
                reason=checked_reason(reason),
            )
            session.add(candidate)
            done = RolledBack(
                replaces=newer[0].version, restores=restores, candidate=candidate.id, by=by
            )
            changes = (rollout_entry(rows.release(row), by) for row in withdrawn)
            lines = self._written(session, done, *changes)
        self._remember(lines)
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
        """Write down decisions that a crash kept out of the audit log.

        They are written with their decision; those from before this was so may lack their line.
        """
        kinds = ("candidate-decided", "rollout")
        written = {line.entry() for line in self._audit.lines(kinds=kinds)}
        written |= {_as_once_written(e) for e in written if isinstance(e, RolloutChanged)}
        missing = [e for e in self._entries() if written.isdisjoint((e, _as_once_written(e)))]
        self._audit.append(*missing)

    def _entries(self) -> list[CandidateDecided | RolloutChanged]:
        decided = self._sessions.all(
            select(CandidateRow).where(CandidateRow.decided_by.not_in(("gate", "policy")))
        )
        changed = self._sessions.all(select(ReleaseRow).where(ReleaseRow.changed_by.is_not(None)))
        candidates = [rows.candidate(row) for row in decided]
        return [
            *(
                decision_entry(c, "refused" if c.state == "refused" else "approved")
                for c in candidates
                if c.draft.lineage.restores is None
            ),
            *(rollout_entry(rows.release(row), row.changed_by or "") for row in changed),
        ]

    def _written(self, session: Session, *entries: Entry) -> tuple[AuditLine, ...]:
        # In the transaction: of a decision that was taken twice, nothing tells later that the
        # second one's line is missing, and of a rollback nothing tells who asked for it.
        session.flush()
        return self._audit.append_in(session.connection(), *entries)

    def _remember(self, lines: tuple[AuditLine, ...]) -> None:
        self._audit.remember(lines[-1])


def _as_once_written(entry: CandidateDecided | RolloutChanged) -> CandidateDecided | RolloutChanged:
    """Return an entry as lines from before it told of a changed champion have it.

    A release's row does not tell of it, either: a rollout's line is written with it.
    """
    return entry.model_copy(update={"champion_changed": False})


def _restoring(target: ReleaseRow, *, replaces: int) -> ReleaseDraft:
    manifest = ReleaseManifest.model_validate_json(target.manifest)
    name = f"rollback-v{replaces}-to-v{target.version}-{secrets.token_hex(3)}"
    lineage = manifest.lineage.model_copy(
        update={"candidate": name, "restores": target.version, "replaces": replaces}
    )
    fields = {part: getattr(manifest, part) for part in ReleaseDraft.model_fields}
    return ReleaseDraft(**{**fields, "lineage": lineage, "created_at": datetime.now(UTC)})
