"""The site's own audit log."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine

from client.cases.tables import AUDIT
from client.settings import SiteSettings
from common.anchor import Anchor
from common.audit import AuditLog
from common.audit_entries import PolicyChanged
from common.database import migrate, open_database

MIGRATIONS = Path(__file__).parent / "migrations"


def site_audit(settings: SiteSettings, engine: Engine) -> AuditLog:
    """Return the site's audit log in its database, which is up to date."""
    return AuditLog(engine, AUDIT, anchor=Anchor(settings.data / "audit-head.json"))


@contextmanager
def open_site_audit(settings: SiteSettings) -> Iterator[AuditLog]:
    """Open the site's audit log, its database brought up to date, until the block ends.

    Raises
    ------
    ConfigurationError, StoreError
        If the database cannot be used.
    """
    engine = open_database(settings.database)
    try:
        migrate(engine, MIGRATIONS)
        yield site_audit(settings, engine)
    finally:
        engine.dispose()


def note_policy(log: AuditLog, policy: Path) -> None:
    """Write down that ``policy.toml`` is another than when it was last looked at.

    Raises
    ------
    StoreError
        If the log cannot be written.
    """
    try:
        digest = hashlib.sha256(policy.read_bytes()).hexdigest()
    except OSError:
        return  # whoever needs the policy says what is wrong with it
    newest = log.newest("policy-changed")
    known = newest.entry() if newest is not None else None
    if known != PolicyChanged(digest=digest):
        log.append(PolicyChanged(digest=digest))
