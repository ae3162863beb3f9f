"""The database of a restored site: its own, and never the living site's."""

from __future__ import annotations

import tomllib
from pathlib import Path

import tomli_w
from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError

from client.access.tables import KeptAnswerRow, SiteSessionRow
from client.backup.contents import DUMP, SETTINGS, Manifest
from client.backup.postgres import load_rows, refuse_filled
from client.cases.store import CaseStore
from client.privacy.ledger import PrivacyLedger
from client.settings import SiteSettings
from common.database import open_database
from common.errors import ConfigurationError, StoreError
from common.folders import write_private


def own_settings(draft: Path, manifest: Manifest) -> SiteSettings:
    """Return a restored site's settings, whose database nobody else works on.

    With SQLite it is the one in the site's folder: a ``database_url`` in ``site.toml`` would be
    the living site's, and is taken out. With PostgreSQL it is an empty one, which the environment
    or ``site.toml`` names; what the environment names stands in ``site.toml`` afterwards, if a
    ``database_url`` did before.

    Raises
    ------
    ConfigurationError
        With code ``database-elsewhere`` or ``database-filled``.
    StoreError
        If the database cannot be read, or what loads its rows is not there.
    """
    settings = SiteSettings.read(draft)
    if manifest.database == "sqlite":
        _write_url(draft, None)
        settings = SiteSettings.read(draft)
        if settings.database_url:
            raise ConfigurationError(
                "WARDROUND_SITE_DATABASE_URL names another database than the restored one.",
                meaning="The restored site would work on that, perhaps the living site's. "
                "Nothing was restored.",
                action="Unset it, here and where the restored site's services start.",
                code="database-elsewhere",
            )
        return settings
    try:
        refuse_filled(settings.database)
    except SQLAlchemyError as error:
        raise StoreError(
            f"The database for the backup's rows cannot be read ({type(error).__name__}).",
            meaning="Nothing was restored.",
            action="Check the URL in WARDROUND_SITE_DATABASE_URL or site.toml, and that it runs.",
        ) from error
    _write_url(draft, settings.database_url)
    return settings


def fill_database(settings: SiteSettings, backup: Path, manifest: Manifest) -> int:
    """Load the rows where they are not in the folder, end all sessions, check the ledger.

    Returns
    -------
    int
        The ledger's lines.

    Raises
    ------
    ConfigurationError
        If the keys are not this store's.
    PrivacyRefused
        With code ``ledger-damaged``.
    StoreError
        If the rows cannot be loaded.
    """
    if manifest.database == "postgresql":
        load_rows(settings.database, backup / DUMP)
    CaseStore.open(settings).close()  # refuses keys that are not this store's
    _end_sessions(settings)
    with PrivacyLedger.open(settings) as ledger:
        return ledger.verify_chain()


def _write_url(draft: Path, url: str | None) -> None:
    fields = tomllib.loads((draft / SETTINGS).read_text("utf-8"))
    if fields.get("database_url", url) == url:
        return
    if url is None:
        del fields["database_url"]
    else:
        fields["database_url"] = url
    write_private(draft / SETTINGS, tomli_w.dumps(fields).encode())


def _end_sessions(settings: SiteSettings) -> None:
    """End the sessions of then, and forget the answers kept for who asks again."""
    engine = open_database(settings.database)
    try:
        with engine.begin() as connection:
            connection.execute(delete(SiteSessionRow))
            connection.execute(delete(KeptAnswerRow))
    finally:
        engine.dispose()
