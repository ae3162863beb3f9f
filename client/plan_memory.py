"""The plans that this site accepted: none twice, none out of order, not too many a day.

The rules, in the order in which they are held against a verified plan:

1. Its nonce was never seen. Nonces are kept for ever, so that a clock that is set back does not
   bring an old plan to life.
2. It expires after the newest accepted plan was issued: a second guard against such a clock.
3. Its round is not below the newest training round of its campaign.
4. The day's training rounds, or scorings of the holdout, are not used up. A training round whose
   scoring is used up still trains, and is not scored.

What passes is written down, durably, before anything is done about it. All of this happens in
one serialised transaction, so that of two processes with one plan only one goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.orm import Session

from client.cases.tables import PlanRow
from client.cases.transactions import Transactions
from common.errors import PlanRefused
from common.plan import RoundPlan

DAY = timedelta(hours=24)
_WRITE_LOCK = 0x504C414E


@dataclass(frozen=True)
class Limits:
    """How many training plans, and how many scorings of the holdout, pass in 24 hours."""

    rounds_per_day: int
    evaluations_per_day: int


@dataclass(frozen=True)
class Accepted:
    """An accepted plan. ``scores`` is False where the day's scorings are used up."""

    scores: bool


@dataclass(frozen=True)
class TrainingRound:
    """A training round of a task, and when its plan was accepted (UTC)."""

    campaign: str
    round: int
    accepted_at: datetime


class PlanMemory:
    """The accepted plans in the site's database, which `CaseStore.open` migrates.

    Parameters
    ----------
    engine : Engine
        The site's database.
    """

    def __init__(self, engine: Engine) -> None:
        self._transactions = Transactions(engine, _WRITE_LOCK)

    def accept(self, plan: RoundPlan, limits: Limits, *, now: float) -> Accepted:
        """Hold a verified plan against the ones before it, and remember it.

        Parameters
        ----------
        plan : RoundPlan
            Verified, and allowed by the policy.
        limits : Limits
            The policy's.
        now : float
            UTC seconds since 1970.

        Raises
        ------
        PlanRefused
            With code ``plan-replayed``, ``plan-expired``, ``plan-out-of-order``,
            ``rounds-used-up`` or ``evaluations-used-up``.
        StoreError
            If the database cannot be written.
        """
        moment = datetime.fromtimestamp(now, UTC)
        with self._transactions.writing() as session:
            _refuse_old(session, plan)
            since = moment - DAY
            if plan.purpose == "train":
                _refuse_many(session, limits.rounds_per_day, since)
            scored = _count(session, PlanRow.scores.is_(True), since)
            wanted = plan.purpose == "evaluate" or (plan.purpose == "train" and plan.evaluate)
            scores = wanted and scored < limits.evaluations_per_day
            if plan.purpose == "evaluate" and not scores:
                raise PlanRefused(
                    f"The holdout was scored {scored} times in 24 hours, which is the limit.",
                    meaning="Each scoring tells a little about the holdout patients.",
                    action="Raise evaluations_per_day in policy.toml, or wait.",
                    code="evaluations-used-up",
                )
            session.add(
                PlanRow(
                    nonce=plan.nonce,
                    campaign=plan.campaign,
                    round=plan.round,
                    purpose=plan.purpose,
                    task=plan.recipe.name,
                    scores=scores,
                    issued_at=plan.issued_at,
                    accepted_at=moment,
                )
            )
        return Accepted(scores)

    def preflights(self, *, now: float) -> int:
        """Return how many preflights were accepted in the 24 hours before ``now``."""
        since = datetime.fromtimestamp(now, UTC) - DAY
        with self._transactions.reading() as session:
            return _count(session, PlanRow.purpose == "preflight", since)

    def training_rounds(self, task: str) -> list[TrainingRound]:
        """Return the training rounds of a task, oldest first."""
        query = (
            select(PlanRow)
            .where(PlanRow.task == task, PlanRow.purpose == "train")
            .order_by(PlanRow.accepted_at)
        )
        with self._transactions.reading() as session:
            return [
                TrainingRound(row.campaign, row.round, row.accepted_at)
                for row in session.scalars(query)
            ]


def _refuse_old(session: Session, plan: RoundPlan) -> None:
    if session.get(PlanRow, plan.nonce) is not None:
        raise PlanRefused(
            "This plan was accepted before.",
            meaning="Answering it twice would give away what nobody asked for.",
            code="plan-replayed",
        )
    newest = session.scalar(select(func.max(PlanRow.issued_at)))
    if newest is not None and plan.expires_at <= newest:
        raise PlanRefused(
            "The plan expired before a later one was issued: a clock was set back.",
            code="plan-expired",
        )
    trained = session.scalar(
        select(func.max(PlanRow.round)).where(
            PlanRow.campaign == plan.campaign, PlanRow.purpose == "train"
        )
    )
    if trained is not None and plan.round < trained:
        raise PlanRefused(
            "The campaign's later round was accepted already.", code="plan-out-of-order"
        )


def _refuse_many(session: Session, most: int, since: datetime) -> None:
    count = _count(session, PlanRow.purpose == "train", since)
    if count >= most:
        raise PlanRefused(
            f"{count} training rounds were accepted in 24 hours, which is the limit.",
            action="Raise rounds_per_day in policy.toml, or wait.",
            code="rounds-used-up",
        )


def _count(session: Session, which: ColumnElement[bool], since: datetime) -> int:
    query = select(func.count()).where(which, PlanRow.accepted_at >= since)
    return session.scalar(query.select_from(PlanRow)) or 0
