"""Copying a site's rows at one moment, while its services go on."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy.engine import make_url

from client.backup.contents import DATABASE, DUMP, IMAGE_LIST, NAMED_IMAGES, Manifest
from client.backup.postgres import dump_rows
from client.settings import SiteSettings
from common.errors import StoreError
from common.folders import write_private


@dataclass(frozen=True)
class CopiedRows:
    """What was copied: from which kind of database, and the SHA-256 of each image it names."""

    kind: Literal["sqlite", "postgresql"]
    images: tuple[str, ...]


def copy_rows(settings: SiteSettings, draft: Path) -> CopiedRows:
    """Copy a site's rows into a backup that is being made.

    Raises
    ------
    StoreError
        With code ``database-damaged``, or as `client.backup.postgres.dump_rows`.
    OSError, sqlite3.Error, SQLAlchemyError
        If the database or the disk failed.
    """
    url = make_url(settings.database)
    if url.get_backend_name() != "sqlite" or not url.database:
        images = dump_rows(settings.database, draft / DUMP)
        # A dump's rows cannot be read without a server.
        write_private(draft / IMAGE_LIST, "\n".join(sorted(images)).encode())
        return CopiedRows("postgresql", images)
    _copy_sqlite(Path(url.database), draft / DATABASE)
    return CopiedRows("sqlite", _images_in(draft / DATABASE))


def named_images(backup: Path, manifest: Manifest) -> frozenset[str]:
    """Return the SHA-256 of each image that a backup's rows name; the rows are checked before."""
    if manifest.database == "sqlite":
        return frozenset(_images_in(backup / DATABASE))
    return frozenset((backup / IMAGE_LIST).read_text("ascii").split())


def is_whole(copy: Path) -> bool:
    """Tell whether a copied SQLite database passes SQLite's own check."""
    try:
        with closing(sqlite3.connect(f"{_uri(copy)}?mode=ro&immutable=1", uri=True)) as database:
            return bool(database.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    except sqlite3.Error:
        return False


def _images_in(copy: Path) -> tuple[str, ...]:
    with closing(sqlite3.connect(f"{_uri(copy)}?mode=ro&immutable=1", uri=True)) as database:
        return tuple(str(row[0]) for row in database.execute(NAMED_IMAGES))


def _copy_sqlite(database: Path, copy: Path) -> None:
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with (
        closing(sqlite3.connect(f"{_uri(database)}?mode=ro", uri=True, timeout=30)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)  # one step: as the database is at this moment
        target.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
    if not is_whole(copy):
        raise StoreError(
            "The database's copy is not whole, so the database is damaged.",
            action="Check the disk; keep the earlier backups.",
            code="database-damaged",
        )


def _uri(path: Path) -> str:
    return path.resolve().as_uri()
