"""The newest line of an append-only log, remembered in a file outside its database.

A hash chain alone does not show that its tail was cut off, or that all of it came back from an
old backup: what is left is whole. The anchor does.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import StoreError
from common.folders import write_private
from common.plan import Hex64


class Head(BaseModel):
    """Sequence number and digest of the newest line that is known to be committed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence: int = Field(ge=1)
    digest: Hex64


class Anchor:
    """A file that only moves forward.

    It is written after the commit: after a crash in between it lags behind, which is harmless,
    because the line that it names must still be there.

    Parameters
    ----------
    path : Path
        The file; its folder is made when it is absent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Head | None:
        """Return the head, or None before the first line.

        Raises
        ------
        StoreError
            With code ``anchor-unreadable`` if the file cannot be understood.
        """
        try:
            return Head.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise StoreError(
                f"{self._path} cannot be read.",
                meaning="Whether the log that it belongs to is whole cannot be told.",
                action="Restore the file from backup.",
                code="anchor-unreadable",
            ) from error

    def advance(self, sequence: int, digest: str) -> None:
        """Move to a line, unless another process has moved further already.

        Raises
        ------
        StoreError
            If the file cannot be read or written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                head = self.read()
                if head is None or head.sequence < sequence:
                    new = Head(sequence=sequence, digest=digest)
                    write_private(self._path, new.model_dump_json().encode())
        except OSError as error:
            raise StoreError(
                f"{self._path} cannot be written ({error.strerror or type(error).__name__}).",
                action="Check that the disk has room and that this user may write there.",
            ) from error
