"""What follows from a withdrawal: what learnt from the cases is forgotten, then a line is written.

Each thing to do is written down in the transaction that withdrew the cases, and struck out when it
is done. So where the process dies in between, or a step fails, the next withdrawal, the next round
or the next start of the service does the rest, and the audit log has one line for each withdrawal.
So does it with what a round wrote after the withdrawal and, having died, did not forget by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from sqlalchemy import Engine

from client.audit import site_audit
from client.cases.tables import UnfinishedRow
from client.cases.transactions import CASES_LOCK, Transactions
from client.cases.unfinished import strike, unfinished
from client.dicom.withdrawn_reports import forget_reports
from client.kept_reply import forget_reply, reply_file
from client.local_layers import LocalLayerStore
from client.personalisation.head import PersonalHeads
from client.releases.holdout_traces import forget_holdout_traces
from client.settings import SiteSettings
from client.training.cache_folder import forget_marked, forget_prepared
from client.update_feedback import feedback_file, forget_feedback
from client.withdrawn_mark import forget_made_before, withdrawn_cases
from common.audit_entries import PatientWithdrawn
from common.errors import WardroundError

logger = logging.getLogger(__name__)


def finish_withdrawals(settings: SiteSettings, engine: Engine) -> tuple[str, ...]:
    """Do what withdrawals have still to do; nothing where none has.

    Of two processes that do the same at once, neither does harm.

    Parameters
    ----------
    settings : SiteSettings
    engine : Engine
        The site's database, migrated.

    Returns
    -------
    tuple of str
        What could not be done, in words; it stays to be done.

    Raises
    ------
    StoreError
        If the database cannot be read.
    """
    transactions = Transactions(engine, CASES_LOCK)
    problems = tried("Prepared pixels", lambda: forget_marked(settings.cache))
    problems += tried("Reports for the PACS", lambda: forget_reports(settings, transactions))
    with transactions.reading() as session:
        rows, withdrawn = unfinished(session), withdrawn_cases(session)
    for row in rows:
        if row.step == "forget":
            problems += _forget(settings, transactions, row)
        else:
            tell = partial(_tell, settings, engine, transactions, row)
            problems += tried("The line in the audit log", tell)
    if not any(row.step == "forget" for row in rows):  # which forgets all of it
        problems += _forget_late(settings, withdrawn)
    return problems


def tried(what: str, step: Callable[[], object]) -> tuple[str, ...]:
    """Do a step of a withdrawal; return why it failed, in words, or nothing."""
    try:
        step()
    except (OSError, WardroundError) as error:
        if isinstance(error, WardroundError):
            why = error.line()
        else:
            why = error.strerror or type(error).__name__
        logger.warning("withdrawal-unfinished what=%r reason=%s", what, why)
        return (f"{what}: {why}",)
    return ()


def _forget(
    settings: SiteSettings, transactions: Transactions, row: UnfinishedRow
) -> tuple[str, ...]:
    """Delete what a model, a score or the cache may know of a task's cases, and strike it out."""
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("The newest reply", lambda: forget_reply(settings)),
        ("What compression left over", lambda: forget_feedback(settings)),
        ("Layers that stay here", LocalLayerStore(settings).forget),
        ("The site's own head", PersonalHeads(settings).forget),
        ("Profiles and scores", lambda: forget_holdout_traces(settings.data, settings.cache)),
        ("Prepared pixels", lambda: forget_prepared(settings.cache, row.task or "")),
    )
    problems = tuple(problem for what, step in steps for problem in tried(what, step))
    return problems or tried("The note of it", partial(_strike, transactions, row))


def _forget_late(settings: SiteSettings, withdrawn: int) -> tuple[str, ...]:
    """Delete what was written after the withdrawal, by a round or a fit that had begun before.

    They look for that themselves at their end. This is for those that died before it.
    """
    files = (
        ("The newest reply", reply_file(settings)),
        ("What compression left over", feedback_file(settings)),
        *(("Layers that stay here", path) for path in LocalLayerStore(settings).files()),
        ("The site's own head", PersonalHeads(settings).file),
    )
    late = partial(forget_made_before, withdrawn=withdrawn)
    return tuple(problem for what, path in files for problem in tried(what, partial(late, path)))


def _strike(transactions: Transactions, row: UnfinishedRow) -> None:
    with transactions.writing() as session:
        strike(session, row)


def _tell(
    settings: SiteSettings, engine: Engine, transactions: Transactions, row: UnfinishedRow
) -> None:
    """Write the line and strike it out together: it is there once, whoever dies when."""
    audit = site_audit(settings, engine)
    with transactions.writing() as session:
        if not strike(session, row):
            return
        session.flush()
        entry = PatientWithdrawn(cases=row.cases or 0, by=row.by)
        lines = audit.append_in(session.connection(), entry)
    audit.remember(lines[-1])
