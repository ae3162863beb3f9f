"""What happened to a case, from its arrival to the rounds and releases that it may be in.

Nobody can say in which rounds a patient WAS sampled: the site does not write that down (Poisson
sampling hides it, which is part of the privacy). What can be said is in whose pool the case was:
the rounds that read the site's cases while this one was confirmed, with the label of then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from client.answers.answered import Answered
from client.cases.tables import CaseRow, LedgerRow, PatientRow, PlanRow
from client.review.opinions import Opinion
from client.review.tables import CaseFlagRow, LabelChangeRow

EventKind: TypeAlias = Literal[
    "stored",
    "answered",
    "flagged",
    "flag-dismissed",
    "opinion",
    "confirmed",
    "corrected",
    "reopened",
    "training-pool",
    "holdout-pool",
    "withdrawn",
]


@dataclass(frozen=True)
class Event:
    """One thing that happened to a case; times are UTC.

    Attributes
    ----------
    at : datetime
    kind : str
        ``training-pool``: the round could have sampled the case; ``holdout-pool``: a model was
        scored on the site's holdout with the case in it; ``reopened``: it lost its label, as
        somebody contradicts it.
    by : str or None
        The reader.
    label, previous : str or None
        The class at that time, and before.
    verdict : str or None
        Of the opinion or of the answer.
    code : str or None
        The flag's.
    model_version : int or None
        That answered, or whose answer the reader had before them.
    campaign, round : str, int, or None
    """

    at: datetime
    kind: EventKind
    by: str | None = None
    label: str | None = None
    previous: str | None = None
    verdict: str | None = None
    code: str | None = None
    model_version: int | None = None
    campaign: str | None = None
    round: int | None = None


@dataclass(frozen=True)
class Pool:
    """The rounds of a campaign in whose pool a case was, by the label that it had then.

    ``outdated`` is whether the case has another label by now: these rounds may have learnt from
    a label that was corrected. ``releases`` are the versions that this site keeps and that the
    campaign led to, directly or as a base.
    """

    campaign: str
    side: Literal["train", "holdout"]
    rounds: tuple[int, ...]
    label: str | None
    outdated: bool
    releases: tuple[int, ...]


@dataclass(frozen=True)
class History:
    """A case's events, oldest first, and the campaigns that it may have reached."""

    events: tuple[Event, ...]
    pools: tuple[Pool, ...]


@dataclass(frozen=True)
class _Span:
    """The case had this label from ``since`` to before ``until``; both None are for ever."""

    label: str | None
    since: datetime
    until: datetime | None


def case_events(
    session: Session,
    case: CaseRow,
    opinions: Sequence[Opinion],
    answers: Sequence[Answered],
) -> list[Event]:
    """Return a case's events, oldest first."""
    patient = session.get_one(PatientRow, case.patient)
    changes = _changes(session, case.id)
    events = [Event(case.created_at, "stored", code=case.source)]
    events += [
        Event(a.answered_at, "answered", verdict=a.verdict, model_version=a.model_version)
        for a in answers
    ]
    events += _flag_events(session, case.id)
    events += [_opinion_event(opinion) for opinion in opinions if opinion.origin != "import"]
    gone = _withdrawn_at(case, changes, patient)
    if gone is not None:
        events.append(Event(gone, "withdrawn"))
    events += _label_events(case, changes)
    events += _pool_events(session, case, patient, _spans(case, changes, gone))
    return sorted(events, key=lambda event: event.at)


def campaigns(events: Sequence[Event]) -> dict[tuple[str, EventKind, str | None], list[int]]:
    """Return the rounds in whose pool the case was, by campaign, side and label."""
    found: dict[tuple[str, EventKind, str | None], list[int]] = {}
    for event in events:
        if event.campaign is not None and event.round is not None:
            key = (event.campaign, event.kind, event.label)
            found.setdefault(key, []).append(event.round)
    return found


def _changes(session: Session, case_id: str) -> list[LabelChangeRow]:
    query = select(LabelChangeRow).where(LabelChangeRow.case_id == case_id)
    return list(session.scalars(query.order_by(LabelChangeRow.number)))


def _flag_events(session: Session, case_id: str) -> list[Event]:
    events: list[Event] = []
    for row in session.scalars(select(CaseFlagRow).where(CaseFlagRow.case_id == case_id)):
        events.append(Event(row.raised_at, "flagged", code=row.code))
        if row.dismissed_at is not None:
            aside = Event(row.dismissed_at, "flag-dismissed", by=row.dismissed_by, code=row.code)
            events.append(aside)
    return events


def _opinion_event(opinion: Opinion) -> Event:
    return Event(
        opinion.given_at,
        "opinion",
        by=opinion.reader,
        label=opinion.label,
        verdict=opinion.verdict,
        model_version=None if opinion.saw is None else opinion.saw.model_version,
    )


def _withdrawn_at(
    case: CaseRow, changes: list[LabelChangeRow], patient: PatientRow
) -> datetime | None:
    """Return when a case was withdrawn, and take that out of its changes: it is the last of them.

    None also where it was withdrawn before that was written down.
    """
    if case.status != "withdrawn":
        return None
    return changes.pop().changed_at if changes else patient.withdrawn_at


def _label_events(case: CaseRow, changes: Sequence[LabelChangeRow]) -> list[Event]:
    events: list[Event] = []
    if case.confirmed_at is not None and (not changes or changes[0].changed_at > case.confirmed_at):
        first = changes[0].previous if changes else case.label
        events.append(Event(case.confirmed_at, "confirmed", by="import", label=first))
    for number, row in enumerate(changes):
        again = number > 0 or bool(events)
        kind: EventKind = "confirmed"
        if again and row.label is None:
            kind = "reopened"
        elif again and row.previous is not None:
            kind = "corrected"
        events.append(Event(row.changed_at, kind, label=row.label, previous=row.previous))
    return events


def _spans(case: CaseRow, changes: Sequence[LabelChangeRow], gone: datetime | None) -> list[_Span]:
    """Return when the case was confirmed, and as what.

    A withdrawn case's labels are blank, so all the time since its first confirmation counts.
    """
    if case.confirmed_at is None:
        return []
    starts = [(row.changed_at, row.label) for row in changes]
    if not starts or starts[0][0] > case.confirmed_at:
        starts.insert(0, (case.confirmed_at, changes[0].previous if changes else case.label))
    spans: list[_Span] = []
    for (since, label), following in zip(starts, [*starts[1:], None], strict=True):
        if label is not None or case.status == "withdrawn":
            spans.append(_Span(label, since, gone if following is None else following[0]))
    return spans


def _pool_events(
    session: Session, case: CaseRow, patient: PatientRow, spans: Sequence[_Span]
) -> list[Event]:
    """Return the rounds that read the site's cases while this one was among them.

    A round reads them after its plan was accepted and, if it trains, before it reserves. Both
    ends are held generously: a round is left out only where the case cannot have been read.
    """
    kind: EventKind = "training-pool" if patient.split == "train" else "holdout-pool"
    events: list[Event] = []
    for plan, read_until in _rounds(session, case.task, patient.split):
        for span in spans:
            gone = span.until is not None and span.until < plan.accepted_at
            if span.since <= read_until and not gone:
                at = plan.accepted_at
                event = Event(at, kind, label=span.label, campaign=plan.campaign, round=plan.round)
                events.append(event)
    return events


def _rounds(session: Session, task: str, side: str) -> list[tuple[PlanRow, datetime]]:
    """Return a side's rounds, with the moment by which each had read its cases."""
    if side == "holdout":
        scored = select(PlanRow).where(PlanRow.task == task, PlanRow.scores.is_(True))
        return [(plan, plan.accepted_at) for plan in session.scalars(scored)]
    # A plan that failed before its reservation trained nothing.
    query = (
        select(PlanRow, LedgerRow.written_at)
        .join(
            LedgerRow,
            and_(
                LedgerRow.campaign == PlanRow.campaign,
                LedgerRow.round == PlanRow.round,
                LedgerRow.kind == "reserve",
            ),
        )
        .where(PlanRow.task == task, PlanRow.purpose == "train")
    )
    return [(plan, moment) for plan, moment in session.execute(query)]
