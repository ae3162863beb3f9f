"""What every site was asked last, and what it has spent, over all campaigns at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, ColumnElement, Select, and_, case, cast, func, or_, select, type_coerce
from sqlalchemy.orm import Session, aliased

from server.registry import rows
from server.registry.records import Contribution
from server.registry.sessions import Sessions
from server.registry.tables import ContributionRow


@dataclass(frozen=True)
class LifeSpent:
    """What a site has spent over its life, as far as its receipts tell.

    ``epsilon`` is an upper bound at ``delta``; None where a round without privacy has ended the
    guarantee, so that nothing bounds it.
    """

    epsilon: float | None
    delta: float | None


class SiteHistory:
    """The registry's contributions by site. Use it as ``registry.history``.

    Its methods raise `StoreError` if the database cannot be read.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def last_asked(self) -> dict[str, Contribution]:
        """Return what became of each site's last request, by the coordinator's clock."""
        row = ContributionRow
        newest = [c.desc() for c in (row.recorded_at, row.campaign, row.round, row.attempt)]
        with self._sessions.reading() as session:
            found = session.scalars(_first_of_each_site(select(row), newest)).all()
        return {one.site: rows.contribution(one) for one in found}

    def spent(self) -> dict[str, LifeSpent]:
        """Return the most that any receipt of a site said of its life; none without a receipt.

        A ledger only grows, at one delta, and a guarantee that has ended stays ended. So no other
        of its receipts says more: neither one of a campaign that was created earlier and ran
        longer, nor one from before the coordinator's clock was set back.
        """
        row = ContributionRow
        with self._sessions.reading() as session:
            epsilon, unbounded = _life(session)
            telling = select(row).where(or_(epsilon.is_not(None), unbounded))
            most = [case((unbounded, 1), else_=0).desc(), epsilon.desc()]
            found = session.scalars(_first_of_each_site(telling, most)).all()
        receipts = {one.site: rows.contribution(one).receipt for one in found}
        return {
            site: LifeSpent(receipt.epsilon_life, receipt.delta)
            for site, receipt in receipts.items()
            if receipt is not None
        }


def _first_of_each_site(
    query: Select[ContributionRow], order: Sequence[ColumnElement[Any]]
) -> Select[ContributionRow]:
    place = func.row_number().over(partition_by=ContributionRow.site, order_by=order)
    ranked = query.add_columns(place.label("place")).subquery()
    return select(aliased(ContributionRow, ranked)).where(ranked.c.place == 1)


def _life(session: Session) -> tuple[ColumnElement[float], ColumnElement[bool]]:
    """Return a receipt's epsilon of the site's life, and whether it tells that there is none."""
    # The column is text. PostgreSQL must be told that it is JSON; SQLite would take the cast for
    # one to a number.
    text = ContributionRow.receipt
    sqlite = session.get_bind().dialect.name == "sqlite"
    document = type_coerce(text, JSON) if sqlite else cast(text, JSON)
    epsilon = document["epsilon_life"].as_float()
    unit, update = document["privacy_unit"].as_string(), document["update_digest"].as_string()
    without = and_(unit == "none", update.is_not(None))  # scoring alone costs nothing
    return epsilon, or_(without, and_(unit == "patient", epsilon.is_(None)))
