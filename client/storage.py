"""Whether the site's disk and database can be written, looked at every few seconds.

Answers need neither. So while one of them is away the service goes on answering, and this is who
says, by codes that stay the same, what is wrong: ``disk-full``, ``disk-low``, ``database-away``,
``database-locked``, ``database-moved``. An alarm goes by itself when its cause does.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from client.releases.alarms import Alarm
from client.settings import SiteSettings
from common.database import open_database

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
LOCKED_SECONDS = 2.0
CONNECT_SECONDS = 5
PROBE_BYTES = 64 * 1024
LOW_BYTES = 512 * 1024 * 1024
STOP_SECONDS = 3.0


class StorageWatch:
    """Tries disk and database in a thread of its own.

    Parameters
    ----------
    settings : SiteSettings
        ``data`` and ``database`` are looked at.
    look_seconds : float, default 5
        Time between two looks.
    low_bytes : int
        Below this much free space it is an alarm.
    """

    def __init__(
        self,
        settings: SiteSettings,
        *,
        look_seconds: float = LOOK_SECONDS,
        low_bytes: int = LOW_BYTES,
    ) -> None:
        self._data = settings.data
        self._database = _Database(settings.database)
        self._look_seconds = look_seconds
        self._low_bytes = low_bytes
        self._alarms: tuple[Alarm, ...] = ()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def alarms(self) -> tuple[Alarm, ...]:
        """Return what was wrong at the last look."""
        return self._alarms

    def look(self) -> None:
        """Look once."""
        found = dict(filter(None, (self._disk(), self._database.trouble())))
        since = {alarm.code: alarm.since for alarm in self._alarms}
        for code in found.keys() - since.keys():
            log.error("event=storage-trouble code=%s", code)
        for code in since.keys() - found.keys():
            log.info("event=storage-recovered code=%s", code)
        now = datetime.now(UTC)
        self._alarms = tuple(Alarm(c, said, since.get(c, now)) for c, said in found.items())

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:  # the thread must outlive any one look
                log.error("event=storage-look-failed type=%s", type(error).__name__)
            if self._stopping.wait(self._look_seconds):
                return

    def _disk(self) -> tuple[str, str] | None:
        try:
            _try_to_write(self._data)
            free = shutil.disk_usage(self._data).free
        except OSError as error:
            reason = error.strerror or type(error).__name__
            return "disk-full", (
                f"The site's disk cannot be written ({reason}). Answers go on; cases, reviews and "
                "releases are not kept. Free space under data/."
            )
        if free < self._low_bytes:
            return "disk-low", f"The site's disk has {free // 2**20} MiB left. Free some."
        return None


class _Database:
    """The site's database as a stranger sees it, over a connection of its own each time."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self._file: Path | None = None
        if parsed.get_backend_name() == "sqlite":
            self._file = Path(parsed.database or "")
            self._engine = create_engine(
                parsed, poolclass=NullPool, connect_args={"timeout": LOCKED_SECONDS}
            )
        else:
            driver = open_database(url)  # refuses what is neither; makes no connection
            self._engine = create_engine(
                driver.url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS}
            )
            driver.dispose()
        self._identity = self._seen()

    def trouble(self) -> tuple[str, str] | None:
        """Return a code and what it means, None where the database can be written."""
        seen = self._seen()
        if self._file is not None and seen is None:
            return "database-away", (
                f"The database {self._file} is not there. Answers go on; put it back, or restore "
                "a backup with the service stopped."
            )
        if self._identity is None:
            self._identity = seen
        if seen != self._identity:
            return "database-moved", (
                "The database is another file than the one that the service has open. Restart it."
            )
        try:
            with self._engine.connect() as connection:
                begin = "BEGIN IMMEDIATE" if self._file is not None else "SELECT 1"
                connection.exec_driver_sql(begin)
                connection.rollback()
        except SQLAlchemyError as error:
            if "locked" in str(error.__cause__):
                return "database-locked", "Another program holds the database. Answers go on."
            kind = type(error).__name__
            return "database-away", (
                f"The database cannot be reached ({kind}). Answers go on; cases, reviews and the "
                "audit log are not kept."
            )
        return None

    def _seen(self) -> tuple[int, int] | None:
        if self._file is None:
            return None
        try:
            stat = self._file.stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino


def _try_to_write(folder: Path) -> None:
    path = folder / f".probe-{secrets.token_hex(4)}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, b"\0" * PROBE_BYTES)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
