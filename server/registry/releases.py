"""The registry's part on candidates and releases."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sqlalchemy import exists, or_, select

from common.audit import AuditLog
from common.errors import NotFound, RoundFailed, StoreError
from common.evaluation import SiteEvaluation
from common.moments import utc_now
from common.release import ReleaseDraft, ReleaseManifest
from server.audit import released, set_back_entry
from server.registry import rows
from server.registry.campaign_moves import Fence
from server.registry.campaign_states import FINAL
from server.registry.champions import champion_change, champion_of, lock_releases, present_champion
from server.registry.changes import Changes
from server.registry.decision_checks import VERSIONS, Ring, no_such_release, still_stands
from server.registry.records import Candidate, Release
from server.registry.rollouts import Rollouts
from server.registry.sessions import Sessions
from server.registry.tables import (
    CampaignRow,
    CandidateRow,
    ReleaseRow,
    RoundRow,
    SiteEvaluationRow,
)

CHAMPION_REPLACED = "The current release is another one than when it was approved."


class ReleaseRecords:
    """Candidates, and the releases that come of them. Use it through `Registry`.

    Attributes
    ----------
    audit : AuditLog
        The coordinator's, in the same database. Releases are written into it here.
    rollouts : Rollouts
        Decisions on candidates and releases.
    changes : Changes
        Whether anything changed.
    """

    def __init__(self, sessions: Sessions, audit: AuditLog, *, first_ring: Ring = None) -> None:
        self._sessions = sessions
        self.fence = Fence()
        self._first_ring = first_ring
        self.audit = audit
        self.rollouts = Rollouts(sessions, audit)
        self.changes = Changes(sessions)

    def add_candidate(
        self,
        identifier: str,
        draft: ReleaseDraft,
        *,
        evaluation: SiteEvaluation | None,
        approve: bool,
        by_site: Mapping[str, SiteEvaluation] = MappingProxyType({}),
    ) -> Candidate:
        """Record a candidate with the gate's verdicts, which stand in its draft.

        It is refused when a check failed (or there is none), else approved, for the first ring
        that the coordinator's settings name, or left waiting for a person: always, where the
        champion is not the one any more that it was compared with. Its reason says so then.
        """
        passed = bool(draft.gate) and all(check.passed for check in draft.gate)
        row = CandidateRow(
            id=identifier,
            campaign=draft.lineage.campaign,
            model_digest=draft.model_digest,
            evaluation=None if evaluation is None else evaluation.model_dump_json(),
            draft=draft.model_dump_json(),
            state="waiting" if passed else "refused",
            created_at=utc_now(),
        )
        with self._sessions.writing() as session:
            lock_releases(session, draft.task)
            self.fence.check(session, row.campaign)
            row.reason = champion_change(session, row) if passed else None
            if passed and approve and row.reason is None:
                row.state, row.sites = "approved", rows.ring_text(self._first_ring)
                row.approved_over = present_champion(session, row)
            if row.state != "waiting":
                row.decided_by, row.decided_at = "policy" if passed else "gate", row.created_at
            session.add(row)
            session.flush()
            for site, counts in by_site.items():
                session.add(
                    SiteEvaluationRow(
                        candidate=identifier, site=site, evaluation=counts.model_dump_json()
                    )
                )
        return rows.candidate(row)

    def names_model(self, digest: str, *, beside: str) -> bool:
        """Tell whether a campaign must leave a model's weights where they are.

        Whatever a release, a candidate or a campaign's beginning names is to stay, and what the
        rounds of another campaign than ``beside`` name, for so long as that one may go on.
        """
        round_, campaign = RoundRow, CampaignRow
        others = (
            select(round_.campaign)
            .join(campaign, campaign.id == round_.campaign)
            .where(campaign.id != beside, campaign.state.not_in(FINAL))
            .where(or_(round_.base_digest == digest, round_.aggregate_digest == digest))
        )
        named = or_(
            exists().where(ReleaseRow.model_digest == digest),
            exists().where(CandidateRow.model_digest == digest),
            exists().where(campaign.initial_digest == digest),
            others.exists(),
        )
        with self._sessions.reading() as session:
            return bool(session.scalar(select(named)))

    def site_evaluations(self, candidate: str) -> dict[str, SiteEvaluation]:
        """Return each site's holdout counts of a candidate, by name; none on old candidates."""
        query = select(SiteEvaluationRow).where(SiteEvaluationRow.candidate == candidate)
        found = self._sessions.all(query.order_by(SiteEvaluationRow.site))
        return {row.site: SiteEvaluation.model_validate_json(row.evaluation) for row in found}

    def candidate(self, identifier: str) -> Candidate:
        """Return a candidate.

        Raises
        ------
        NotFound
            If there is none of that id.
        """
        found = self._sessions.all(select(CandidateRow).where(CandidateRow.id == identifier))
        if not found:
            raise NotFound(
                f"There is no candidate {identifier!r}.",
                action="`wardround coordinator campaign show` names a campaign's candidate.",
            )
        return rows.candidate(found[0])

    def candidates(self, *, campaign: str | None = None) -> tuple[Candidate, ...]:
        """Return candidates, the newest first."""
        query = select(CandidateRow).order_by(CandidateRow.created_at.desc())
        if campaign is not None:
            query = query.where(CandidateRow.campaign == campaign)
        return tuple(rows.candidate(row) for row in self._sessions.all(query))

    def approved_candidates(self) -> tuple[Candidate, ...]:
        """Return the candidates that are to be published, the oldest first.

        One that was approved over another comes after it.
        """
        query = (
            select(CandidateRow)
            .where(CandidateRow.state == "approved")
            .order_by(CandidateRow.created_at)
        )
        found = {row.id: row for row in self._sessions.all(query)}

        def depth(row: CandidateRow, before: frozenset[str] = frozenset()) -> int:
            awaited = found.get(row.approved_over or "")
            # Two may await each other, approved in turn: then neither stands.
            if awaited is None or awaited.id in before:
                return 0
            return 1 + depth(awaited, before | {row.id})

        return tuple(rows.candidate(row) for row in sorted(found.values(), key=depth))

    def still_approved(self, identifier: str) -> bool:
        """Tell whether an approved candidate may be published now.

        One whose champion was rolled back, held or replaced since it was approved may not: whoever
        approved it did not know, and its higher version would undo that. It waits for a person
        from here on, with the audit log's line. Do not ask about one that the signed repository
        has already.
        """
        with self._sessions.writing() as session:
            row = session.get(CandidateRow, identifier, with_for_update=True)
            if row is None or row.state != "approved":
                return False
            lock_releases(session, ReleaseDraft.model_validate_json(row.draft).task)
            if still_stands(session, row):
                return True
            row.reason = champion_change(session, row) or CHAMPION_REPLACED
            row.state, row.sites, row.decided_by, row.decided_at = "waiting", None, None, None
            row.approved_over = None
            session.flush()
            waits = set_back_entry(rows.candidate(row))
            lines = self.audit.append_in(session.connection(), waits)
        self.audit.remember(lines[-1])
        return False

    def record_release(self, manifest: ReleaseManifest) -> Release:
        """Record that a candidate was published. Repeatable.

        Raises
        ------
        NotFound
            If the registry does not know the manifest's candidate.
        RoundFailed
            With code ``candidate-not-approved``, if the gate did not let it through.
        StoreError
            If that version, or that candidate under another version, is recorded already.
        """
        name = manifest.lineage.candidate
        with self._sessions.writing() as session:
            candidate = session.get(CandidateRow, name, with_for_update=True)
            if candidate is None:
                raise NotFound(
                    f"There is no candidate {name}.",
                    action="`wardround coordinator campaign show` names a campaign's candidate.",
                )
            known = session.get(ReleaseRow, manifest.version)
            if known is not None and known.candidate == name:
                return rows.release(known)
            if known is not None:
                raise StoreError(
                    f"Release {manifest.version} is of candidate {known.candidate}, not {name}.",
                    meaning="The registry and the release repository are not of one coordinator.",
                    code="registry-conflict",
                )
            if candidate.state != "approved":
                raise RoundFailed(
                    f"Candidate {name} is {candidate.state}.",
                    action="Only one that waits can be decided on.",
                    code="candidate-not-approved",
                )
            candidate.state = "published"
            row = rows.release_row(manifest, utc_now(), sites=candidate.sites)
            session.add(row)
        self.audit.append(released(manifest))
        return rows.release(row)

    def audit_releases(self) -> None:
        """Write down releases and decisions that a crash kept out of the audit log."""
        self.rollouts.audit_decisions()
        written = {line.entry() for line in self.audit.lines(kinds=("released",))}
        for release in reversed(self.releases()):
            if released(release.manifest) not in written:
                self.audit.append(released(release.manifest))

    def releases(self, *, task: str | None = None) -> tuple[Release, ...]:
        """Return releases, the newest first."""
        query = select(ReleaseRow).order_by(ReleaseRow.version.desc())
        if task is not None:
            query = query.where(ReleaseRow.task == task)
        return tuple(rows.release(row) for row in self._sessions.all(query))

    def release(self, version: int) -> Release:
        """Return a release.

        Raises
        ------
        NotFound
            If there is none of that version.
        """
        query = select(ReleaseRow).where(ReleaseRow.version == version)
        found = self._sessions.all(query) if version in VERSIONS else ()
        if not found:
            raise no_such_release(version)
        return rows.release(found[0])

    def champion(self, task: str) -> Release | None:
        """Return the newest release of a task that every site may take, or one on its way there.

        A release in its first ring counts until there is one for every site; what was held or
        withdrawn is nothing to start from, or to be compared with.
        """
        return champion_of(self.releases(task=task))
