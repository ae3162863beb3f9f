"""Making a backup while the site goes on: the database at one moment, then what its rows name."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from client.backup.contents import (
    IMAGES,
    MANIFEST,
    SETTINGS,
    BackupFile,
    Manifest,
    read_manifest,
    sha256_of,
)
from client.backup.images import copy_images
from client.backup.rows import copy_rows
from client.backup.seal import write_seal
from client.cases.pseudonyms import Pseudonyms
from client.settings import SiteSettings
from common.errors import InputRefused, StoreError
from common.folders import new_folder, write_private

RECORD = "last-backup.json"
_FILES = (SETTINGS, "policy.toml", "paused.json", "data/releases/decisions.json")
_FOLDERS = ("recipes", "trust", "data/profiles")
_BEFORE_ROWS = ("data/ledger-head.json", "data/audit-head.json", "data/dicom/pulled.json")
"""What speaks of rows, and is copied before them: all that it speaks of is in their copy then."""
_DRAFT = re.compile(r"-\d{8}T\d{6}Z\.[a-z0-9_]{8}")
_DRAFT_SECONDS = 24 * 3600.0


class BackupMade(BaseModel):
    """What was copied, and where to; ``missing`` images could not be read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    site: str
    folder: str
    made_at: AwareDatetime
    images: int
    missing: int
    bytes: int
    database: str
    removed: tuple[str, ...] = ()


def make_backup(settings: SiteSettings, target: Path, *, keep: int = 0) -> BackupMade:
    """Copy a site's records into a new folder in ``target``, whole or not at all.

    Images that the backup before it has are linked, not copied, where the disk allows it.

    Parameters
    ----------
    settings : SiteSettings
        The site; its services may run.
    target : Path
        Where its backups lie, on another disk if it is to be of use.
    keep : int
        How many of this site's backups stay there, the newest first; 0 keeps all, as does a
        backup that lacks an image.

    Raises
    ------
    StoreError
        If the database or the disk failed, or ``pg_dump`` is not there: then nothing new is in
        ``target``.
    ConfigurationError
        If the site's pseudonym key, which seals it, cannot be read.
    """
    pseudonyms = Pseudonyms.read(settings.keys / "pseudonyms")
    _remove_drafts(target, settings.name)
    made_at = datetime.now(UTC).replace(microsecond=0)
    earlier = backups_in(target, settings.name)
    folder = target / f"{settings.name}-{made_at:%Y%m%dT%H%M%SZ}"
    with _as_store_error(), new_folder(folder) as draft:
        _copy_files(settings.folder, draft, _BEFORE_ROWS)
        rows = copy_rows(settings, draft)
        _copy_files(settings.folder, draft, tuple(_other_files(settings)))
        known = earlier[-1] / IMAGES if earlier else None
        (draft / IMAGES).mkdir(mode=0o700)
        images, missing = copy_images(rows.images, settings.images, draft / IMAGES, known)
        made = _manifest(settings, draft, made_at, rows.kind, (images, missing))
        for path in draft.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        write_private(draft / MANIFEST, made.model_dump_json(indent=1).encode())
        write_seal(draft, pseudonyms)
        os.sync()
    # While an image cannot be had, an old backup may hold the last good copy of it.
    gone = () if missing else _remove_old(earlier, keep)
    done = BackupMade(
        site=settings.name,
        folder=str(folder),
        made_at=made_at,
        images=images,
        missing=missing,
        bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        database=rows.kind,
        removed=gone,
    )
    write_private(settings.data / RECORD, done.model_dump_json().encode())
    return done


def last_backup(settings: SiteSettings) -> BackupMade | None:
    """Return what the newest backup that was made of this site was; None where none is known."""
    try:
        return BackupMade.model_validate_json((settings.data / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None


def backups_in(target: Path, site: str) -> list[Path]:
    """Return this site's backups in a folder, oldest first."""
    found = []
    for path in sorted(target.glob(f"{site}-*T*Z")):
        try:
            if read_manifest(path).site == site:
                found.append(path)
        except InputRefused:
            continue
    return found


def _other_files(settings: SiteSettings) -> Iterator[str]:
    yield from _FILES
    yield from (f"data/{path.name}" for path in settings.data.glob("personal-head.*"))
    for folder in _FOLDERS:
        found = sorted((settings.folder / folder).rglob("*"))
        yield from (str(path.relative_to(settings.folder)) for path in found if path.is_file())


def _copy_files(source: Path, draft: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if not (source / name).is_file():
            continue
        copy = draft / name
        copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copyfile(source / name, copy)
        copy.chmod(0o600)


def _manifest(
    settings: SiteSettings, draft: Path, made_at: datetime, kind: str, images: tuple[int, int]
) -> Manifest:
    files = (path for path in sorted(draft.rglob("*")) if path.is_file())
    names = ((path, str(path.relative_to(draft))) for path in files)
    return Manifest.model_validate(
        {
            **{"site": settings.name, "task": settings.task, "made_at": made_at},
            **{"program": version("wardround"), "database": kind},
            **{"images": images[0], "missing": images[1]},
            "files": [
                BackupFile(path=name, sha256=sha256_of(path))
                for path, name in names
                if not name.startswith(f"{IMAGES}/")
            ],
        }
    )


def _remove_drafts(target: Path, site: str) -> None:
    """Remove what a backup that was killed left: patients' images, which nobody would miss."""
    for draft in target.glob(f".{site}-*"):
        old = draft.stat().st_mtime < time.time() - _DRAFT_SECONDS
        if old and _DRAFT.fullmatch(draft.name.removeprefix(f".{site}")):
            shutil.rmtree(draft, ignore_errors=True)


def _remove_old(earlier: list[Path], keep: int) -> tuple[str, ...]:
    old = earlier[: max(0, len(earlier) - keep + 1)] if keep > 0 else []
    for folder in old:
        shutil.rmtree(folder, ignore_errors=True)
    return tuple(folder.name for folder in old)


class _as_store_error:  # noqa: N801 - used as a function
    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, (OSError, sqlite3.Error, SQLAlchemyError)):
            raise StoreError(
                f"The backup failed ({getattr(error, 'strerror', None) or type(error).__name__}).",
                meaning="Nothing of it was kept; earlier backups are as they were.",
                action="Check that the target has room and that this user may write there.",
                code="backup-failed",
            ) from error
