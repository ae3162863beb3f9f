"""Which images of the PACS a site has dealt with: one file, that says nothing of whose they are."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import Busy
from common.folders import write_private

log = logging.getLogger(__name__)

_DAY = 86_400.0
_WRITE_EVERY = 20
_WAIT_SECONDS = 60.0


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    listed: float


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: dict[str, _Entry]


class PullCursor:
    """Images by keyed id, each with what came of it.

    An image that the PACS lists no more is forgotten some days later. A file that is lost or
    damaged costs no more than to fetch again what is stored already.

    Parameters
    ----------
    path : Path
        Written mode 0600, whole or not at all.
    keep_days : float
        For how long an image is remembered after it was listed last.
    """

    def __init__(self, path: Path, *, keep_days: float) -> None:
        self._path, self._keep_days = path, keep_days
        self._entries: dict[str, _Entry] = {}
        self._unwritten = 0

    @contextmanager
    def open(self) -> Iterator[PullCursor]:
        """Read the file, and write it when the block ends; one process at a time.

        Raises
        ------
        Busy
            If another process holds it for a minute.
        StoreError
            If the disk failed.
        """
        lock = self._path.with_suffix(".lock")
        with lock.open("ab") as held:
            _take(held.fileno())
            self._entries = self._read()
            try:
                yield self
            finally:
                self._forget_old()
                self._write()

    def knows(self, identifier: str) -> bool:
        """Tell whether an image was dealt with, and note that it is still listed."""
        known = self._entries.get(identifier)
        if known is None:
            return False
        self._entries[identifier] = _Entry(code=known.code, listed=time.time())
        return True

    def note(self, identifier: str, code: str) -> None:
        """Remember what came of an image; durable soon, and at the block's end."""
        self._entries[identifier] = _Entry(code=code, listed=time.time())
        self._unwritten += 1
        if self._unwritten >= _WRITE_EVERY:
            self._write()

    def _read(self) -> dict[str, _Entry]:
        try:
            return dict(_File.model_validate_json(self._path.read_bytes()).entries)
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            log.warning("event=dicomweb-cursor-lost %s", type(error).__name__)
            return {}

    def _forget_old(self) -> None:
        since = time.time() - self._keep_days * _DAY
        self._entries = {name: e for name, e in self._entries.items() if e.listed >= since}

    def _write(self) -> None:
        self._unwritten = 0
        write_private(self._path, _File(entries=self._entries).model_dump_json().encode())


def _take(descriptor: int) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise Busy(
                    "Images are being fetched from the PACS already.",
                    action="Try again when that is done.",
                    code="dicomweb-busy",
                ) from None
            time.sleep(0.1)
