"""What a file was made of, told by one number: how many cases had been withdrawn before.

What a round or a fit writes is forgotten when a patient of it withdraws. It may be written after
that, though, by a process that dies before it looks once more. So each such file carries the
number of cases that had been withdrawn when its maker read the site's cases. Where the number is
smaller than today's, it may know somebody who is gone: nobody uses it, and whoever looks for what
withdrawals have left deletes it (`client.unfinished_withdrawals`).

A file of an earlier version says no number; it counts as made before anybody withdrew.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from client.cases.tables import CaseRow
from client.cases.transactions import Transactions

log = logging.getLogger(__name__)

_KEY = "withdrawn"


def withdrawn_cases(database: Session | Connection) -> int:
    """Count the cases that were withdrawn after they had been confirmed; it never falls.

    Only a case that was confirmed once was ever learnt from.
    """
    gone = CaseRow.status == "withdrawn", CaseRow.confirmed_at.is_not(None)
    return database.scalar(select(func.count()).where(*gone)) or 0


def withdrawn_now(transactions: Transactions) -> int:
    """Return `withdrawn_cases`; `StoreError` if the database cannot be read."""
    with transactions.reading() as session:
        return withdrawn_cases(session)


def mark(withdrawn: int) -> dict[str, str]:
    """Return what a file's metadata (safetensors) say of it."""
    return {_KEY: str(withdrawn)}


def read_mark(metadata: Mapping[str, str] | None) -> int:
    """Return the number that `mark` wrote; 0 where there is none."""
    told = (metadata or {}).get(_KEY, "")
    return int(told) if told.isdecimal() else 0


def forget_made_before(path: Path, withdrawn: int) -> None:
    """Delete a file that was made before so many cases were withdrawn.

    One that cannot be read stays: nobody can use it.

    Raises
    ------
    OSError
        If it cannot be deleted.
    """
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            made = read_mark(file.metadata())
    except (OSError, SafetensorError):
        return
    if made < withdrawn:
        path.unlink(missing_ok=True)
        log.warning("event=withdrawn-made-before file=%s", path.name)
