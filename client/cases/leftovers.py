"""Image bytes that no live case speaks of: a refused case's, and what a crash left behind.

Bytes are written before their row is decided on, so a case that is refused (its patient withdrew),
or a writer that died, leaves bytes without a row. They are a patient's picture all the same: the
writer removes them as soon as it knows, and whoever opens the store removes what is older than an
hour. Always inside the transaction that no other writer shares: a writer of the same bytes
finds them gone in its own transaction, and writes them again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from client.cases.image_store import ImageStore
from client.cases.tables import CaseRow
from client.cases.transactions import Transactions
from common.errors import StoreError

logger = logging.getLogger(__name__)

_QUERY_SIZE = 400  # SQLite takes at most 999 parameters where it is old


def remove_unless_live(session: Session, images: ImageStore, digests: Collection[str]) -> int:
    """Delete those of some images that no live case names; return how many.

    Parameters
    ----------
    session : Session
        Inside a write transaction, after the rows of this transaction were flushed.
    images : ImageStore
    digests : collection of str
    """
    ordered, live = sorted(digests), set[str]()
    for start in range(0, len(ordered), _QUERY_SIZE):
        part = ordered[start : start + _QUERY_SIZE]
        query = select(CaseRow.digest).where(
            CaseRow.digest.in_(part), CaseRow.status != "withdrawn"
        )
        live.update(session.scalars(query))
    gone = [digest for digest in ordered if digest not in live]
    images.remove_many(gone)
    return len(gone)


def clear_what_can_be(*steps: Callable[[], object]) -> None:
    """Do each step that deletes something, whatever becomes of the others; a failure is logged.

    One image that stays where it is must stop no start, no round and nobody else's withdrawal:
    the next opening of the store tries it again. The log names no image.
    """
    for step in steps:
        try:
            step()
        except StoreError as error:
            logger.warning("images-not-cleared code=%s", error.code)
        except OSError as error:
            logger.warning("images-not-cleared code=%s", type(error).__name__)


def clear_leftovers(transactions: Transactions, images: ImageStore) -> int:
    """Delete images older than an hour that no live case names; return how many.

    One query and one listing of the folder where there are none: other writers wait only while
    something is removed. Where the database knows fewer images than it lacks, it is more likely
    the wrong database, or an old one, than a crash that left them: nothing is removed then.
    """
    with transactions.reading() as session:
        live = set(session.scalars(select(CaseRow.digest).where(CaseRow.status != "withdrawn")))
        known = session.scalar(select(func.count()).select_from(CaseRow)) or 0
    unnamed = [digest for digest in images.digests() if digest not in live]
    stale = [digest for digest in unnamed if images.is_stale(digest)]
    if not stale:
        return 0
    if len(stale) > known:
        logger.warning("images-unnamed left=%d cases=%d", len(stale), known)
        return 0
    with transactions.writing() as session:
        cleared = remove_unless_live(session, images, stale)
    logger.info("images-unnamed cleared=%d", cleared)
    return cleared
