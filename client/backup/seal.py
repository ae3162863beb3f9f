"""A backup's seal: an HMAC of its manifest under a key that is never in a backup.

The digests in a manifest show that a disk forgot something, not that somebody changed it: whoever
can write where the backups lie could change a file and its digest, and a site restored from
that would trust their plan keys, or let everybody in. So the manifest is sealed, and with it every
file and, by the rows that name them and their number, the images. An older backup is still a whole
one: it cannot be told from the newest, but it says when it was made.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from client.backup.contents import MANIFEST
from client.cases.pseudonyms import Pseudonyms
from common.errors import ConfigurationError
from common.folders import write_private

SEAL = "backup.seal"


def write_seal(folder: Path, pseudonyms: Pseudonyms) -> None:
    """Seal a backup whose manifest is written."""
    write_private(folder / SEAL, _seal(folder, pseudonyms).encode())


def check_seal(folder: Path, pseudonyms: Pseudonyms) -> None:
    """Refuse a backup whose manifest is not as it was written with these keys.

    Raises
    ------
    ConfigurationError
        With code ``backup-seal``.
    """
    try:
        found = (folder / SEAL).read_bytes().strip()
    except OSError:
        found = b""
    if not hmac.compare_digest(found, _seal(folder, pseudonyms).encode()):
        raise ConfigurationError(
            "The backup's seal is not by these keys.",
            meaning="The keys are another site's, or the backup was changed. Nothing was restored.",
            action="Name the site's own keys folder. If it is that, somebody wrote into the "
            "backup: use another one, and find out who.",
            code="backup-seal",
        )


def _seal(folder: Path, pseudonyms: Pseudonyms) -> str:
    key = pseudonyms.subkey("backup")
    return hmac.new(key, (folder / MANIFEST).read_bytes(), hashlib.sha256).hexdigest()
