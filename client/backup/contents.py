"""What a backup is: one folder with a manifest, which names every file but the images.

::

    backup.json             the manifest
    backup.seal             an HMAC of it (`client.backup.seal`)
    cases.db                the database, copied at one moment (SQLite)
    cases.dump  images.txt  its rows, as pg_dump wrote them (PostgreSQL; custom format), and the
                            SHA-256 of each image that they name
    images/ab/abcdef…       each under its own SHA-256; withdrawn ones are left out
    site.toml  policy.toml  paused.json  recipes/  trust/
    data/                   where the ledger and the audit log ended, the site's own head, profiles,
                            what was decided about releases, what was fetched from the PACS

The site's secrets (``keys/``) are never in it: whoever has the pseudonym key and the rows can ask
whether a patient is among them. They change seldom, and are kept apart, sealed. Models and
prepared pixels are left out too: they can be had again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError

from common.errors import InputRefused
from common.plan import Hex64, Identifier

MANIFEST = "backup.json"
DATABASE = "cases.db"
DUMP = "cases.dump"
IMAGE_LIST = "images.txt"
IMAGES = "images"
SETTINGS = "site.toml"
NAMED_IMAGES = "SELECT DISTINCT digest FROM cases WHERE status <> 'withdrawn'"
"""Images that the rows speak of, by SHA-256; plain SQL, for a copy is read without migrating it."""
_CHUNK = 1024 * 1024


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError("no path within a backup")
    return path


class BackupFile(BaseModel):
    """One file beside the images: its path in the backup, and the SHA-256 of its bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, AfterValidator(_inside)]
    sha256: Hex64


class Manifest(BaseModel):
    """What one backup holds.

    Attributes
    ----------
    made_at : datetime
        UTC; the database is as it was then or a moment later.
    database : {"sqlite", "postgresql"}
        Which kind the rows were in, and go back into.
    images, missing : int
        How many images the rows speak of and are here; how many could not be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    site: Identifier
    task: Identifier
    made_at: AwareDatetime
    program: str
    database: Literal["sqlite", "postgresql"]
    images: int
    missing: int
    files: tuple[BackupFile, ...]


def read_manifest(folder: Path) -> Manifest:
    """Read a backup's manifest.

    Raises
    ------
    InputRefused
        With code ``backup-unreadable``.
    """
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise InputRefused(
            f"{folder} is no backup that this program can read.",
            action="Name the folder that `wardround site backup` made, with backup.json in it.",
            code="backup-unreadable",
        ) from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
