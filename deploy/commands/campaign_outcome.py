"""What became of a campaign's candidate: what a watch ends by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from server.registry.records import Candidate
    from server.registry.registry import Registry


class CandidateOutcome(BaseModel):
    """A campaign's candidate as it stands now.

    ``state`` is ``waiting`` (for a person), ``approved`` (the coordinator's service is about to
    publish it), ``published`` as version ``release``, or ``refused``, by the gate where
    ``failed_checks`` names any, else by a person.
    """

    model_config = ConfigDict(frozen=True)

    state: str
    failed_checks: tuple[str, ...]
    release: int | None


def candidate_of(registry: Registry, campaign: str) -> Candidate | None:
    """Return a campaign's newest candidate, None where it has none yet."""
    found = registry.candidates(campaign=campaign)
    return max(found, key=lambda candidate: candidate.created_at) if found else None


def outcome_of(registry: Registry, candidate: Candidate) -> CandidateOutcome:
    """Return what became of a candidate."""
    from server.release_gate import failures

    versions = (r.version for r in registry.releases() if r.candidate == candidate.id)
    return CandidateOutcome(
        state=candidate.state,
        failed_checks=failures(candidate.draft.gate),
        release=next(versions, None),
    )


def outcome_in_words(candidate: Candidate, outcome: CandidateOutcome) -> str:
    """Say in a sentence what became of a candidate."""
    failed = ", ".join(outcome.failed_checks)
    if outcome.release is not None:
        return f"Its candidate was released as v{outcome.release}."
    if outcome.state == "refused" and failed:
        return f"The release gate refused its candidate: {failed}."
    if outcome.state == "refused":
        return f"{candidate.decided_by} refused its candidate: {candidate.reason}"
    if outcome.state == "waiting":
        why = f" {candidate.reason}" if candidate.reason else ""
        return f"Its candidate passed the release gate and waits for approval.{why}"
    return "Its candidate passed the release gate and is being published."
