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
_ORDINARY, _UNSEEN = timedelta(minutes=1), timedelta(days=1)


def clock_slack(settings: SiteSettings, ledger: Iterable[datetime]) -> timedelta:
    """Return by how much two of the site's times may be in the wrong order; zero where none are.

    The largest step back that the records show, and a day more: the clock may have gone on for
    some time between the last line and the moment when it was set back. A step of less than a
    minute is that of writers who came at once, or of a clock that is kept by the network.

    Parameters
    ----------
    settings : SiteSettings
    ledger : iterable of datetime
        Of the ledger's lines, in the order of their numbers.

    Raises
    ------
    StoreError
        If the database cannot be read.
    """
    now = datetime.now(UTC)
    most = max(largest_step_back([*ledger, now]), largest_step_back([*_audited(settings), now]))
    return most if most < _ORDINARY else most + _UNSEEN


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
