"""One task's part of the pixel cache: who holds it, and that it can be forgotten meanwhile.

Whoever prepares images holds the lock while it decodes them, which may take minutes. A withdrawal
does not wait for that: it leaves a mark, which the holder obeys when it lets go, or, where the
holder died, whoever takes the lock next.
"""

from __future__ import annotations

import fcntl
import logging
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from common.errors import StoreError
from common.folders import write_private

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.5
_BETWEEN_TRIES_SECONDS = 0.02
_MARK = ".forget"


@contextmanager
def locked(folder: Path, task: str) -> Iterator[None]:
    """Hold a task's part of the cache; what is marked to be forgotten goes before and after.

    Files that a process has mapped stay with it until it lets go of them.
    """
    with _lock_file(folder, task) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system if the process dies
        _obey(folder, task)
        try:
            yield
        finally:
            _obey(folder, task)


def prepared_folders(folder: Path, task: str) -> list[Path]:
    """Return what is prepared of a task, at all sizes; of no task whose name begins as its."""
    name = re.compile(re.escape(task) + "-[0-9a-f]{16}")
    return [found for found in folder.glob(f"{task}-*") if name.fullmatch(found.name)]


def forget_prepared(folder: Path, task: str, *, seconds: float = PATIENCE_SECONDS) -> bool:
    """Delete all that was prepared of a task, as when one of its patients withdraws.

    Returns
    -------
    bool
        Whether it is gone; if not, whoever holds it deletes it when done.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    try:
        with _lock_file(folder, task) as lock:
            if not _taken(lock, seconds=0):
                # Before waiting: a holder that looked for a mark just before lets go at once.
                write_private(_mark(folder, task), b"")
                if not _taken(lock, seconds=seconds):
                    logger.info("pixel-cache-marked task=%s", task)
                    return False
            _forget(folder, task)
            return True
    except OSError as error:
        raise StoreError(
            f"The pixel cache cannot be emptied ({error.strerror}).",
            meaning="Prepared pixels of a patient who withdrew may still be in it.",
            action="Delete data/cache by hand.",
        ) from error


def forget_marked(folder: Path) -> None:
    """Obey the marks whose holders died; raises as `forget_prepared`."""
    for mark in folder.glob(f"*{_MARK}"):
        forget_prepared(folder, mark.name.removesuffix(_MARK), seconds=0)


def _obey(folder: Path, task: str) -> None:
    if _mark(folder, task).exists():
        _forget(folder, task)


def _forget(folder: Path, task: str) -> None:
    for prepared in prepared_folders(folder, task):
        shutil.rmtree(prepared)
    _mark(folder, task).unlink(missing_ok=True)


def _mark(folder: Path, task: str) -> Path:
    return folder / f"{task}{_MARK}"


@contextmanager
def _lock_file(folder: Path, task: str) -> Iterator[TextIO]:
    """Open the file to be locked; it lies beside what may be deleted."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / f"{task}.lock").open("w") as lock:
        yield lock


def _taken(lock: TextIO, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_BETWEEN_TRIES_SECONDS)
