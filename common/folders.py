"""Folders and files that appear whole or not at all, with modes that keep secrets secret."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import ConfigurationError, StoreError

PRIVATE = 0o600
PUBLIC = 0o644


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a draft beside ``folder``; when the block ends well, it becomes ``folder``.

    The result has mode 0700. A draft whose block failed is removed.

    Raises
    ------
    ConfigurationError
        If ``folder`` holds something already, with code ``folder-exists``.
    StoreError
        If it cannot be made.
    """
    refuse_filled(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise _cannot_be_made(folder, error) from error
    try:
        yield draft
        try:
            draft.rename(folder)  # POSIX: replaces an empty folder, refuses a filled one
        except OSError as error:
            refuse_filled(folder)  # another process was faster
            raise _cannot_be_made(folder, error) from error
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def refuse_filled(folder: Path) -> None:
    """Raise ConfigurationError (code ``folder-exists``) if ``folder`` is a file or not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            f"{folder} holds something already.",
            action="Name a new folder; nothing was changed.",
            code="folder-exists",
        )


def write_private(path: Path, data: bytes) -> None:
    """Write a secret with mode 0600, atomically and durably."""
    _write(path, data, PRIVATE)


def write_public(path: Path, data: bytes) -> None:
    """Write a file with mode 0644, atomically and durably."""
    _write(path, data, PUBLIC)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _cannot_be_made(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(draft).replace(path)
    except OSError as error:
        Path(draft).unlink(missing_ok=True)
        raise _cannot_be_made(path, error) from error
    sync_folder(path.parent)


def _cannot_be_made(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be written ({error.strerror or type(error).__name__}).",
        action="Check that the parent folder exists, is yours, and that the disk has room.",
    )


def refuse_readable_by_others(path: Path) -> None:
    """Raise ConfigurationError (code ``key-readable``) if group or others may touch a secret."""
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(
            f"The key {path} can be read by other users of this machine.",
            meaning="Whoever reads it can sign or serve in this service's name.",
            action=f"Run `chmod 600 {path}`; if others had access, provision new keys.",
            code="key-readable",
        )
