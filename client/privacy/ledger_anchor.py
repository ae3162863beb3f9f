"""The newest ledger line, remembered outside the database."""

from __future__ import annotations

import fcntl
import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import PrivacyRefused
from common.folders import write_private
from common.plan import Hex64

logger = logging.getLogger(__name__)


class LedgerHead(BaseModel):
    """Sequence number and digest of the newest line that is known to be committed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence: int = Field(ge=1)
    digest: Hex64


class LedgerAnchor:
    """A file that only moves forward.

    It is written after the commit: after a crash in between it lags behind, which is harmless,
    because the line that it names must still be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> LedgerHead | None:
        """Return the head, or None before the first line.

        Raises
        ------
        PrivacyRefused
            With code ``ledger-damaged`` if the file cannot be understood.
        """
        try:
            return LedgerHead.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise PrivacyRefused(
                f"{self._path} cannot be read.",
                meaning="Whether the privacy ledger is whole cannot be told.",
                action="Restore the file from backup.",
                code="ledger-damaged",
            ) from error

    def advance(self, sequence: int, digest: str) -> None:
        """Move to a line, unless another process has moved further already."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            head = self.read()
            if head is None or head.sequence < sequence:
                new = LedgerHead(sequence=sequence, digest=digest)
                write_private(self._path, new.model_dump_json().encode())
