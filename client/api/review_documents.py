"""The JSON documents of the review. Field names are part of the API; none names a patient."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from client.answers.answered import Answered
from client.api.documents import Document
from client.review.detail import CaseDetail, LookAlike
from client.review.flags import Flag
from client.review.history import Event, History, Pool
from client.review.opinions import Opinion, Origin, Verdict
from client.review.outcomes import Outcome, OutcomeCounts, Outcomes
from client.review.proposal import Proposal
from client.review.queue import QueuedCase, QueuePage
from client.review.submission import Submission
from client.withdrawal import TouchedCampaign, Withdrawal

Label = Annotated[str, Field(min_length=1, max_length=64)]


class OpinionForm(Document):
    """The body of ``POST /review/{case_id}/opinion``.

    ``agree`` goes with ``seen`` (what it agrees with is what was shown) or with the label,
    ``correct`` with a label, ``unsure`` without one.
    """

    verdict: Verdict
    label: Label | None = None
    seen: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None

    def submission(self) -> Submission:
        """Return what is said."""
        return Submission(self.verdict, self.label, self.seen)


class QueueDocument(Document):
    """Part of the queue, the newest case last; ``next_after`` is None at its end.

    ``counts`` is of the whole queue, by state.
    """

    task: str
    classes: tuple[str, ...]
    readers: int
    cases: tuple[QueuedCase, ...]
    next_after: str | None
    counts: dict[str, int]

    @classmethod
    def of(
        cls, page: QueuePage, *, task: str, classes: tuple[str, ...], readers: int
    ) -> QueueDocument:
        """Write a page of the queue down."""
        return cls(
            task=task,
            classes=classes,
            readers=readers,
            cases=page.cases,
            next_after=page.next_after,
            counts=dict(page.counts),
        )


class OpinionDocument(Document):
    """One reader's opinion; ``answer_version`` is of the model's answer that they had seen."""

    number: int
    reader: str
    verdict: Verdict
    label: str | None
    origin: Origin
    given_at: datetime
    blinded: bool
    answer_version: int | None
    answer_digest: str | None

    @classmethod
    def of(cls, opinion: Opinion) -> OpinionDocument:
        """Write an opinion down."""
        saw = opinion.saw
        return cls(
            number=opinion.number,
            reader=opinion.reader,
            verdict=opinion.verdict,
            label=opinion.label,
            origin=opinion.origin,
            given_at=opinion.given_at,
            blinded=opinion.blinded,
            answer_version=None if saw is None else saw.model_version,
            answer_digest=None if saw is None else saw.model_digest,
        )


class AnswerDocument(Document):
    """What one model version said of the case's picture; ``probabilities`` by class."""

    request_id: str
    model_version: int
    model_digest: str
    head_digest: str | None
    probabilities: dict[str, float]
    positive_probability: float
    threshold: float
    verdict: Literal["positive", "negative"]
    uncertainty: float | None
    referred: bool
    warnings: tuple[str, ...]
    answered_at: datetime

    @classmethod
    def of(cls, answer: Answered, classes: tuple[str, ...]) -> AnswerDocument:
        """Write an answer down; without probabilities where it was of another recipe."""
        fits = len(classes) == len(answer.probabilities)
        return cls(
            request_id=answer.request_id,
            model_version=answer.model_version,
            model_digest=answer.model_digest,
            head_digest=answer.head_digest,
            probabilities=dict(zip(classes, answer.probabilities, strict=True)) if fits else {},
            positive_probability=answer.positive_probability,
            threshold=answer.threshold,
            verdict=answer.verdict,
            uncertainty=answer.uncertainty,
            referred=answer.referred,
            warnings=answer.warnings,
            answered_at=answer.answered_at,
        )


class ReviewDocument(Document):
    """A case with all that was said of it, as the caller may see it.

    A ``blinded`` caller sees no opinion and no answer before they have given their own. ``seen``
    goes back with an opinion.
    """

    request_id: str
    case_id: str
    task: str
    classes: tuple[str, ...]
    status: Literal["waiting", "confirmed", "withdrawn"]
    state: str
    label: str | None
    split: Literal["train", "holdout"]
    source: str
    age_band: str | None
    sex: str | None
    created_at: datetime
    confirmed_at: datetime | None
    readers: int
    blinded: bool
    seen: str
    proposed: Proposal | None
    opinions: tuple[OpinionDocument, ...]
    answers: tuple[AnswerDocument, ...]
    flags: tuple[Flag, ...]
    look_alikes: tuple[LookAlike, ...]

    @classmethod
    def of(cls, found: CaseDetail, *, classes: tuple[str, ...], request_id: str) -> ReviewDocument:
        """Write a case down."""
        case = found.case
        return cls(
            request_id=request_id,
            case_id=case.id,
            task=case.task,
            classes=classes,
            status=case.status,
            state=found.state,
            label=None if found.blinded and case.status == "confirmed" else case.label,
            split=case.split,
            source=found.source,
            age_band=case.age_band,
            sex=case.sex,
            created_at=case.created_at,
            confirmed_at=case.confirmed_at,
            readers=found.readers,
            blinded=found.blinded,
            seen=found.seen,
            proposed=found.proposed,
            opinions=tuple(OpinionDocument.of(opinion) for opinion in found.opinions),
            answers=tuple(AnswerDocument.of(answer, classes) for answer in found.answers),
            flags=found.flags,
            look_alikes=found.look_alikes,
        )


class WithdrawnDocument(Document):
    """What the withdrawal of a case did, and the campaigns that it may have reached before."""

    request_id: str
    case_id: str
    cases: int
    side: str
    campaigns: tuple[TouchedCampaign, ...]
    unfinished: tuple[str, ...]

    @classmethod
    def of(cls, done: Withdrawal, *, case_id: str, request_id: str) -> WithdrawnDocument:
        """Write a withdrawal down."""
        return cls(
            request_id=request_id,
            case_id=case_id,
            cases=done.cases,
            side=done.side,
            campaigns=done.campaigns,
            unfinished=done.unfinished,
        )


class HistoryDocument(Document):
    """A case's events, oldest first, and the campaigns in whose pool it was.

    Nobody can say in which rounds a case WAS sampled: that is not written down anywhere.
    """

    request_id: str
    case_id: str
    events: tuple[Event, ...]
    pools: tuple[Pool, ...]

    @classmethod
    def of(cls, found: History, *, case_id: str, request_id: str) -> HistoryDocument:
        """Write a history down."""
        return cls(request_id=request_id, case_id=case_id, events=found.events, pools=found.pools)


class OutcomesDocument(Document):
    """Confirmed cases beside what the model said before: counts, and a part of the rows.

    ``by_version`` and ``by_month`` are newest first, as the rows are.
    """

    request_id: str
    task: str
    positive_classes: tuple[str, ...]
    total: OutcomeCounts
    by_version: tuple[OutcomeCounts, ...]
    by_month: tuple[OutcomeCounts, ...]
    rows: tuple[Outcome, ...]
    rows_in_all: int
    next_offset: int | None

    @classmethod
    def of(
        cls,
        found: Outcomes,
        rows: tuple[Outcome, ...],
        *,
        offset: int,
        limit: int,
        task: str,
        positive_classes: tuple[str, ...],
        request_id: str,
    ) -> OutcomesDocument:
        """Write outcomes down; ``rows`` are those asked for, of which one page is shown."""
        end = offset + limit
        return cls(
            request_id=request_id,
            task=task,
            positive_classes=positive_classes,
            total=found.total,
            by_version=found.by_version,
            by_month=found.by_month,
            rows=rows[offset:end],
            rows_in_all=len(rows),
            next_offset=end if end < len(rows) else None,
        )
