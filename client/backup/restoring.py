"""A site made of a backup: every byte checked first, and training paused until somebody looks.

A backup knows nothing of what came after it. Rounds that were trained since are in no ledger
then; patients who withdrew since are back, and so are users and keys that were removed. So a
restored site answers no plan before hospital IT has dealt with all of it and said
`wardround site resume --after-restore`.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

from client.backup.contents import (
    DATABASE,
    DUMP,
    IMAGE_LIST,
    IMAGES,
    Manifest,
    read_manifest,
    sha256_of,
)
from client.backup.new_database import fill_database, own_settings
from client.backup.rows import is_whole, named_images
from client.backup.seal import check_seal
from client.cases.pseudonyms import Pseudonyms
from client.pause import RESTORED_BY, Pause, switch_of
from common.errors import ConfigurationError, InputRefused
from common.folders import new_folder, write_private

_OF_THE_BACKUP = (DUMP, IMAGE_LIST)
"""Files that no site has."""


class Restored(BaseModel):
    """What was restored; training is paused."""

    model_config = ConfigDict(frozen=True)

    site: str
    folder: str
    backup_of: AwareDatetime
    database: str
    images: int
    missing: int
    ledger_lines: int


def restore_backup(backup: Path, folder: Path, *, keys: Path) -> Restored:
    """Make a site folder of a backup and of the keys that were kept apart, whole or not at all.

    Parameters
    ----------
    backup : Path
        As `client.backup.making` made it.
    folder : Path
        Must not exist, or be empty.
    keys : Path
        The site's ``keys`` folder.

    Raises
    ------
    InputRefused
        If the backup is not whole: ``backup-unreadable``, ``backup-damaged``.
    ConfigurationError
        If ``folder`` is filled, or, with code ``backup-seal``, the keys are not those of the
        backup or somebody changed it, or, with code ``database-elsewhere`` or
        ``database-filled``, the database is not one for it alone.
    PrivacyRefused
        With code ``ledger-damaged``.
    StoreError
        If the rows cannot be loaded into PostgreSQL.
    """
    manifest = read_manifest(backup)
    if not (keys / "pseudonyms").is_file():
        raise ConfigurationError(
            f"{keys} holds no key named pseudonyms.",
            meaning="Without it the site cannot tell its patients apart.",
            action="Name the keys folder that was kept apart from the backups.",
            code="keys-missing",
        )
    check_seal(backup, Pseudonyms.read(keys / "pseudonyms"))
    check_backup(backup, manifest)
    with new_folder(folder) as draft:
        lines = _fill(draft, backup, manifest, keys)
    return Restored(
        site=manifest.site,
        folder=str(folder),
        backup_of=manifest.made_at,
        database=manifest.database,
        images=manifest.images,
        missing=manifest.missing,
        ledger_lines=lines,
    )


def check_backup(backup: Path, manifest: Manifest) -> None:
    """Hold every file against the manifest, and every image against the rows; `InputRefused`."""
    names = {file.path for file in manifest.files}
    for name in (DATABASE,) if manifest.database == "sqlite" else (DUMP, IMAGE_LIST):
        if name not in names:
            raise _damaged(name)  # of PostgreSQL, backups once had none
    for file in manifest.files:
        path = backup / file.path
        if not path.is_file() or sha256_of(path) != file.sha256:
            raise _damaged(file.path)
    if manifest.database == "sqlite" and not is_whole(backup / DATABASE):
        raise _damaged(DATABASE)
    _check_images(backup, manifest)


def _check_images(backup: Path, manifest: Manifest) -> None:
    """Refuse all but the very images that were copied: of those that rows name, so many."""
    named = named_images(backup, manifest)
    found = [path for path in (backup / IMAGES).rglob("*") if path.is_file()]
    for path in found:
        place = path.relative_to(backup / IMAGES)
        if path.name not in named or place != Path(path.name[:2], path.name):
            raise _damaged("the folder of images")
        if sha256_of(path) != path.name:
            raise _damaged("an image")
    if len(found) != manifest.images:
        raise _damaged("the folder of images")


def _fill(draft: Path, backup: Path, manifest: Manifest, keys: Path) -> int:
    for file in manifest.files:
        if file.path in _OF_THE_BACKUP:
            continue
        name = f"data/{DATABASE}" if file.path == DATABASE else file.path
        target = draft / name
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copyfile(backup / file.path, target)
    settings = own_settings(draft, manifest)
    shutil.copytree(keys, draft / "keys")
    shutil.copytree(backup / IMAGES, draft / "data" / "images", copy_function=shutil.copyfile)
    for path in draft.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    (draft / "logs").mkdir(mode=0o700)
    reason = f"Restored from the backup of {manifest.made_at:%Y-%m-%d %H:%M} UTC."
    paused = Pause(since=datetime.now(UTC), by=RESTORED_BY, reason=reason)
    write_private(switch_of(draft / "policy.toml"), paused.model_dump_json().encode())
    return fill_database(settings, backup, manifest)


def _damaged(what: str) -> InputRefused:
    return InputRefused(
        f"The backup is not whole: {what} is missing or was changed.",
        meaning="Nothing was restored.",
        action="Use another backup, and check the disk.",
        code="backup-damaged",
    )
