"""What every site was asked last, and what it has spent, over all campaigns at once."""

from __future__ import annotations

from sqlalchemy import JSON, ColumnElement, Select, cast, func, select, type_coerce
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from common.records import Receipt
from server.registry import rows
from server.registry.records import Contribution
from server.registry.sessions import Sessions
from server.registry.tables import ContributionRow


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

    def spent(self) -> dict[str, Receipt]:
        """Return each site's receipt with the greatest epsilon of its life; none without privacy.

        A ledger only grows, at one delta, so no other of its receipts says more: neither one of a
        campaign that was created earlier and ran longer, nor one from before the coordinator's
        clock was set back.
        """
        row = ContributionRow
        with self._sessions.reading() as session:
            epsilon = _epsilon_life(session, row.receipt)
            receipts = select(row).where(epsilon.is_not(None))
            found = session.scalars(_first_of_each_site(receipts, [epsilon.desc()])).all()
        return {
            one.site: Receipt.model_validate_json(one.receipt)
            for one in found
            if one.receipt is not None
        }


def _first_of_each_site(
    query: Select[tuple[ContributionRow]], order: list[ColumnElement[object]]
) -> Select[tuple[ContributionRow]]:
    place = func.row_number().over(partition_by=ContributionRow.site, order_by=order)
    ranked = query.add_columns(place.label("place")).subquery()
    return select(aliased(ContributionRow, ranked)).where(ranked.c.place == 1)


def _epsilon_life(
    session: Session, receipt: InstrumentedAttribute[str | None]
) -> ColumnElement[float]:
    # The column is text. PostgreSQL must be told that it is JSON; SQLite would take the cast for
    # one to a number.
    sqlite = session.get_bind().dialect.name == "sqlite"
    document = type_coerce(receipt, JSON) if sqlite else cast(receipt, JSON)
    return document["epsilon_life"].as_float()
