"""One site's records of what it was asked and what it spent, over one database connection pool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from client.plan_memory import PlanMemory
from client.privacy.ledger import PrivacyLedger
from client.settings import SiteSettings


@dataclass(frozen=True)
class SiteRecords:
    """The privacy ledger and the accepted plans."""

    ledger: PrivacyLedger
    plans: PlanMemory

    @classmethod
    @contextmanager
    def open(cls, settings: SiteSettings) -> Iterator[SiteRecords]:
        """Open both, the database brought up to date, until the block ends.

        Raises
        ------
        ConfigurationError, StoreError
            If the database cannot be used.
        """
        with PrivacyLedger.open(settings) as ledger:
            yield cls(ledger, PlanMemory(ledger.engine))
