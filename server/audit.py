"""What the coordinator writes into its audit log, and when."""

from __future__ import annotations

from flwr.app import RecordDict

from common.audit import AuditLog
from common.audit_entries import (
    CandidateDecided,
    CandidateMade,
    GateDecision,
    PlanSent,
    Released,
    ReplyRefused,
    ReplyTaken,
    RolloutChanged,
)
from common.plan import RoundPlan, SignedPlan
from common.records import SiteReply
from common.release import ReleaseManifest
from common.wire import content_of
from server.registry.records import Candidate, Release
from server.release_gate import failures
from server.rounds.kept_answers import AnswerHeader


def note_plan(log: AuditLog, site: str, plan: RoundPlan, signed: SignedPlan) -> None:
    """Write down that a plan goes to a site; call it before it goes.

    Raises
    ------
    StoreError
        If the log cannot be written, as all of these do.
    """
    log.append(
        PlanSent(
            site=site,
            campaign=plan.campaign,
            round=plan.round,
            nonce=plan.nonce,
            purpose=plan.purpose,
            plan_digest=signed.digest,
        )
    )


def note_taken(
    log: AuditLog, site: str, plan: RoundPlan, reply: SiteReply, records: RecordDict
) -> None:
    """Write down that a reply passed all checks."""
    content = content_of(records)
    log.append(
        ReplyTaken(
            site=site,
            campaign=plan.campaign,
            round=plan.round,
            nonce=plan.nonce,
            update_digest=reply.update.digest if reply.update is not None else None,
            bytes=content.bytes,
            sha256=content.sha256,
        )
    )


def note_kept(log: AuditLog, answer: AnswerHeader, plan: RoundPlan) -> None:
    """Write down a reply that passed all checks before a crash, unless that was done."""
    for line in log.lines(kinds=("reply-taken",)):
        if f'"{plan.nonce}"' in line.body:
            return
    log.append(
        ReplyTaken(
            site=answer.site,
            campaign=plan.campaign,
            round=plan.round,
            nonce=plan.nonce,
            update_digest=answer.receipt.update_digest,
            bytes=answer.bytes,
            sha256=answer.sha256,
        )
    )


def note_refused(
    log: AuditLog, site: str, plan: RoundPlan, code: str, records: RecordDict | None = None
) -> None:
    """Write down that a reply is no use; without ``records``, only an error came."""
    content = content_of(records) if records is not None else None
    log.append(
        ReplyRefused(
            site=site,
            campaign=plan.campaign,
            round=plan.round,
            nonce=plan.nonce,
            code=code,
            bytes=content.bytes if content is not None else 0,
            sha256=content.sha256 if content is not None else None,
        )
    )


def note_candidate(log: AuditLog, candidate: Candidate) -> None:
    """Write down a candidate and the gate's verdict on it."""
    lineage = candidate.draft.lineage
    state = candidate.state
    log.append(
        CandidateMade(
            campaign=lineage.campaign, candidate=candidate.id, model_digest=candidate.model_digest
        ),
        GateDecision(
            candidate=candidate.id,
            model_digest=candidate.model_digest,
            decision="approved" if state == "published" else state,
            failed=failures(candidate.draft.gate),
        ),
    )


def released(manifest: ReleaseManifest) -> Released:
    """Return the entry of a published release."""
    return Released(
        version=manifest.version,
        model_digest=manifest.model_digest,
        campaign=manifest.lineage.campaign,
        candidate=manifest.lineage.candidate,
    )


def decision_entry(candidate: Candidate, decision: str) -> CandidateDecided:
    """Return the entry of a decision on a candidate, which is as it was decided.

    It is not of a rollback's: of others that were approved, the reason says how the champion had
    changed, and nothing else.
    """
    return CandidateDecided.model_validate(
        {
            "candidate": candidate.id,
            "model_digest": candidate.model_digest,
            "decision": decision,
            "by": candidate.decided_by,
            "sites": candidate.sites,
            "champion_changed": decision == "approved" and candidate.reason is not None,
        }
    )


def set_back_entry(candidate: Candidate) -> CandidateDecided:
    """Return the entry of an approved candidate that waits again, since the champion has changed.

    Nobody decided that: by policy, what was approved over another champion waits for a person.
    """
    return CandidateDecided(
        candidate=candidate.id,
        model_digest=candidate.model_digest,
        decision="waiting",
        by="policy",
    )


def rollout_entry(release: Release, by: str, *, champion_changed: bool = False) -> RolloutChanged:
    """Return the entry of a release's state, which an account changed."""
    return RolloutChanged(
        version=release.version,
        state=release.state,
        by=by,
        sites=release.sites,
        champion_changed=champion_changed,
    )
