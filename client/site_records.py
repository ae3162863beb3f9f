"""One site's records of what it was asked and what it spent, over one database connection pool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from client.audit import site_audit
from client.plan_memory import PlanMemory
from client.privacy.ledger import PrivacyLedger
from client.settings import SiteSettings
from common.audit import AuditLog


@dataclass(frozen=True)
class SiteRecords:
    """The privacy ledger, the accepted plans and the audit log."""

    ledger: PrivacyLedger
    plans: PlanMemory
    audit: AuditLog

    @classmethod
    @contextmanager
    def open(cls, settings: SiteSettings) -> Iterator[SiteRecords]:
        """Open all, the database brought up to date, until the block ends.

        Raises
        ------
        ConfigurationError, StoreError
            If the database cannot be used.
        """
        with PrivacyLedger.open(settings) as ledger:
            yield cls(ledger, PlanMemory(ledger.engine), site_audit(settings, ledger.engine))
