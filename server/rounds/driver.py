"""Who drives a campaign on this machine: a lock that the kernel takes back, however it ends.

The lock says that a ServerApp is alive more surely than any heartbeat: one that is killed loses it
at once, one that is only slow keeps it. The registry's epoch (`server.registry.campaign_moves`)
guards against one on another machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from common.errors import RoundFailed
from server.settings import CoordinatorSettings

PATIENCE_SECONDS = 5.0
LOCK_NAME = "driver.lock"
"""Of the file in a campaign's folder that is never removed: who waits for it holds it open."""


def campaign_folder(settings: CoordinatorSettings, campaign: str) -> Path:
    """Return the folder of a campaign's checkpoints and kept answers."""
    return settings.data / "campaigns" / campaign


@contextmanager
def driving(folder: Path) -> Iterator[None]:
    """Hold a campaign's lock while the block runs.

    Raises
    ------
    RoundFailed
        With code ``campaign-driven``, if another process holds it.
    """
    lock = _lock(folder)
    try:
        lock.acquire(timeout=PATIENCE_SECONDS)  # who only looks holds it for an instant
    except Timeout as error:
        raise RoundFailed(
            f"Another ServerApp drives campaign {folder.name}.",
            meaning="This one leaves it alone and ends; the campaign goes on.",
            action=f"`wardround coordinator campaign show {folder.name}` says how it stands.",
            code="campaign-driven",
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_driven(folder: Path) -> bool:
    """Tell whether a process on this machine drives the campaign now."""
    lock = _lock(folder)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


def _lock(folder: Path) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return FileLock(folder / LOCK_NAME, timeout=0, is_singleton=False)
