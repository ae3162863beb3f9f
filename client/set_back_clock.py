"""How far this machine's clock was ever set back, as the site's own records show it.

Ledger and audit log number their lines. Where a later line bears an earlier time, the clock was set
back between the two, and times from before and after cannot be compared any closer than that.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from client.cases.tables import AUDIT
from client.settings import SiteSettings
from common.database import open_database
from common.errors import StoreError

_AT_ONCE = 10_000


def most_set_back(
    settings: SiteSettings, ledger: Iterable[datetime], others: Iterable[datetime]
) -> timedelta:
    """Return the largest step back that the records show; zero where times are in order.

    Parameters
    ----------
    settings : SiteSettings
    ledger : iterable of datetime
        Of the ledger's lines, in the order of their numbers.
    others : iterable of datetime
        Further moments that are past, in any order.

    Raises
    ------
    StoreError
        If the database cannot be read.
    """
    now = datetime.now(UTC)
    sequences = ([*ledger, now], [*_audited(settings), now], *([other, now] for other in others))
    return max(largest_step_back(moments) for moments in sequences)


def largest_step_back(moments: Iterable[datetime]) -> timedelta:
    """Return by how much a moment is at most before an earlier one of a sequence."""
    latest, most = None, timedelta()
    for moment in moments:
        if latest is None or moment > latest:
            latest = moment
        most = max(most, latest - moment)
    return most


def _audited(settings: SiteSettings) -> list[datetime]:
    query = select(AUDIT.c.written_at).order_by(AUDIT.c.sequence)
    engine = open_database(settings.database)
    try:
        with engine.connect() as connection, closing(connection.execute(query)) as result:
            parts = result.scalars().partitions(_AT_ONCE)
            return [datetime.fromisoformat(text) for part in parts for text in part]
    except SQLAlchemyError as error:
        raise StoreError(f"The audit log cannot be read ({type(error).__name__}).") from error
    finally:
        engine.dispose()
