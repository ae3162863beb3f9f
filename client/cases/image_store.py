"""Image bytes on disk, each under its own SHA-256: ``images/ab/abcdef…``.

A name appears only after its bytes are whole and flushed (write to a temporary file, fsync,
rename, fsync the folder), so a crash leaves at worst a nameless temporary file, or bytes that no
row speaks of. Both are cleared an hour later, when the store is opened (`client.cases.leftovers`).
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from common.errors import StoreError

_TEMPORARY_PREFIX = ".writing-"
_UNNAMED_LIFE_SECONDS = 3600.0
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FLUSH_THREADS = 16


class ImageStore:
    """Content-addressed files, mode 0600 in folders of mode 0700.

    Parameters
    ----------
    root : Path
        Folder; made when absent.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        with _as_store_error():
            root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, data: bytes) -> str:
        """Write bytes durably and return their digest. Writing the same bytes again is free."""
        return self.put_many([data])[0]

    def put_many(self, contents: Iterable[bytes]) -> list[str]:
        """Write many; all are durable when this returns.

        The flushes run side by side, so that the disk can serve them together.

        Raises
        ------
        StoreError
            If the disk is full or not writable. Some may have been written.
        """
        new: dict[str, bytes] = {}
        digests = []
        for data in contents:
            digest = hashlib.sha256(data).hexdigest()
            digests.append(digest)
            if digest not in new and not self.holds(digest):
                new[digest] = data
        with _as_store_error():
            # Also where nothing is written: another process may have renamed, and not flushed yet.
            folders = {self._path(digest).parent for digest in digests}
            self._make_folders(folders)
            if len(digests) == 1:
                for digest, data in new.items():
                    self._write(digest, data)
                _flush_folder(*folders)
            elif digests:
                with ThreadPoolExecutor(_FLUSH_THREADS) as pool:
                    list(pool.map(self._write, new.keys(), new.values()))
                    list(pool.map(_flush_folder, folders))
        return digests

    def get(self, digest: str) -> bytes:
        """Return the bytes, checked against their digest.

        Raises
        ------
        StoreError
            ``image-missing`` or ``image-damaged``.
        """
        try:
            data = self._path(digest).read_bytes()
        except OSError as error:
            raise StoreError(
                f"A stored image cannot be read ({type(error).__name__}).",
                action="Restore the images folder from backup.",
                code="image-missing",
            ) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise StoreError(
                "A stored image is damaged on disk.",
                action="Restore the images folder from backup, and check the disk.",
                code="image-damaged",
            )
        return data

    def holds(self, digest: str) -> bool:
        """Tell whether the bytes are there."""
        return self._path(digest).is_file()

    def remove(self, digest: str) -> None:
        """Delete the bytes, if they are there."""
        with _as_store_error():
            self._path(digest).unlink(missing_ok=True)

    def remove_many(self, digests: Iterable[str]) -> None:
        """Delete all that can be deleted; raise once, at the end, if something could not be.

        Raises
        ------
        StoreError
            The first failure.
        """
        failures: list[StoreError] = []
        for digest in digests:
            try:
                self.remove(digest)
            except StoreError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def digests(self) -> list[str]:
        """Return the digests of all images that lie here, in no order."""
        names = (name for _, _, files in os.walk(self._root) for name in files)
        return [name for name in names if _DIGEST.fullmatch(name)]

    def is_stale(self, digest: str) -> bool:
        """Tell whether the bytes were written more than an hour ago, and are still there."""
        with _as_store_error():
            try:
                written = self._path(digest).stat().st_mtime
            except FileNotFoundError:
                return False
        return written < time.time() - _UNNAMED_LIFE_SECONDS

    def clear_temporary(self) -> int:
        """Delete what writers that died left over; return how many. Live writers are spared."""
        oldest = time.time() - _UNNAMED_LIFE_SECONDS
        cleared = 0
        with _as_store_error():
            for path in self._root.glob(f"*/{_TEMPORARY_PREFIX}*"):
                try:
                    stale = path.stat().st_mtime < oldest
                except FileNotFoundError:
                    continue
                if stale:
                    path.unlink(missing_ok=True)
                    cleared += 1
        return cleared

    def _path(self, digest: str) -> Path:
        if _DIGEST.fullmatch(digest) is None:
            raise StoreError("An image digest is malformed.", code="image-missing")
        return self._root / digest[:2] / digest

    def _make_folders(self, folders: set[Path]) -> None:
        missing = [folder for folder in folders if not folder.is_dir()]
        for folder in missing:
            folder.mkdir(exist_ok=True, mode=0o700)
        if missing:
            _flush_folder(self._root)

    def _write(self, digest: str, data: bytes) -> None:
        path = self._path(digest)
        temporary = path.with_name(f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _as_store_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"The images folder cannot be used ({error.strerror or type(error).__name__}).",
            action="Check that the disk has room and that this user may write there.",
        ) from error
