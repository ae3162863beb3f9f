"""Training images in memory's reach: prepared once, and kept on disk.

Every round runs in a fresh process, so decoding thousands of files each time would cost more than
training. The cache of one task and image size is a flat file of uint8 pixels, read as a memory
map, and an index that says whose row is whose. The index is the commit: pixels are appended and
flushed first, then the index is replaced; what lies beyond it was never there.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from client.cases.case import Case
from client.training.cache_folder import locked, prepared_folders
from common.errors import StoreError, WardroundError
from common.folders import write_private
from common.imaging import Pixels, decode, prepare
from common.recipe import ImageSpec

logger = logging.getLogger(__name__)

CHUNK = 64


@dataclass(frozen=True)
class CachedPixels:
    """Prepared pixels, uint8 (M, size, size, 3), and the row of each image digest."""

    pixels: NDArray[np.uint8]
    row_of: dict[str, int]


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    pixels: str
    digests: tuple[str, ...]


class PixelCache:
    """The prepared pixels of one task at one image specification.

    Parameters
    ----------
    folder : Path
        The site's cache folder; all in it may be deleted at any time.
    task : str
        The recipe's name.
    spec : ImageSpec
        Its size and region decide what the pixels are.
    """

    def __init__(self, folder: Path, task: str, spec: ImageSpec) -> None:
        made_by = f"{spec.size}\0{spec.region}\0{version('wardround')}\0{version('pillow')}"
        self._task = task
        self._folder = folder / f"{task}-{hashlib.sha256(made_by.encode()).hexdigest()[:16]}"
        self._spec = spec

    def load(self, cases: Sequence[Case], read: Callable[[Case], bytes]) -> CachedPixels:
        """Return the pixels of all ``cases``, preparing those that are not there yet.

        Rows of images that are in no case any more (a withdrawn patient) are removed, here and
        from what was prepared at other sizes. An image that cannot be read is left out, with a
        log line; the rest goes on.

        Parameters
        ----------
        cases : sequence of Case
            All confirmed cases of the task, both sides of the split.
        read : callable
            Returns a case's file bytes.

        Raises
        ------
        StoreError
            If the cache folder cannot be written.
        """
        wanted = {case.digest: case for case in cases}
        try:
            with locked(self._folder.parent, self._task):
                self._folder.mkdir(exist_ok=True, mode=0o700)
                self._forget_elsewhere(wanted.keys())
                index = self._read_index()
                if index is not None and any(d not in wanted for d in index.digests):
                    index = self._without_others(index, wanted.keys())
                held = set(index.digests) if index is not None else set()
                missing = [case for digest, case in wanted.items() if digest not in held]
                if missing or index is None:
                    index = self._append(index, missing, read)
                return self._open(index)
        except OSError as error:
            raise StoreError(
                f"The pixel cache cannot be written ({error.strerror}).",
                action="Check that the disk has room; data/cache may be deleted.",
            ) from error

    def features(
        self,
        key: str,
        cached: CachedPixels,
        compute: Callable[[Pixels], NDArray[np.float32]] | None,
    ) -> NDArray[np.float32] | None:
        """Return what a frozen backbone makes of every row, computed unless it is kept already.

        It is kept where the cache still holds just these rows: a patient who withdrew since `load`
        leaves nothing behind.

        Parameters
        ----------
        key : str
            Stands for the backbone, hex.
        cached : CachedPixels
            As `load` returned it.
        compute : callable or None
            From pixels to features; None only looks.

        Returns
        -------
        ndarray of float32, shape (M, D), or None
            None if it is not kept and was not to be computed.

        Raises
        ------
        StoreError
            If the cache folder cannot be written.
        """
        rows = hashlib.sha256("\0".join(cached.row_of).encode()).hexdigest()
        path = self._folder / f"features-{key[:32]}-{rows[:32]}.npy"
        try:
            with locked(self._folder.parent, self._task):
                kept = _read_features(path, len(cached.row_of))
                if kept is not None or compute is None:
                    return kept
                if self._holds_just(cached):
                    return self._keep_features(path, compute(cached.pixels))
        except OSError as error:
            raise StoreError(
                f"The pixel cache cannot be written ({error.strerror}).",
                action="Check that the disk has room; data/cache may be deleted.",
            ) from error
        return compute(cached.pixels)

    def _holds_just(self, cached: CachedPixels) -> bool:
        """Tell whether the cache is as it was loaded: nobody withdrew since, and nobody came."""
        index = _read_index(self._folder)
        return index is not None and index.digests == tuple(cached.row_of)

    def _keep_features(
        self, path: Path, features: NDArray[np.float32]
    ) -> NDArray[np.float32] | None:
        for old in self._folder.glob("features-*.npy"):
            old.unlink()
        content = io.BytesIO()
        np.save(content, features)
        write_private(path, content.getvalue())
        return _read_features(path, len(features))

    def _forget_elsewhere(self, wanted: Set[str]) -> None:
        """Delete what was prepared at another size, if it holds an image of no case."""
        for folder in prepared_folders(self._folder.parent, self._task):
            if folder == self._folder:
                continue
            index = _read_index(folder)
            if index is None or any(digest not in wanted for digest in index.digests):
                shutil.rmtree(folder)

    @property
    def _row_bytes(self) -> int:
        return self._spec.size * self._spec.size * 3

    def _read_index(self) -> _Index | None:
        index = _read_index(self._folder)
        if index is None:
            return None
        path = self._folder / Path(index.pixels).name
        if not path.is_file() or path.stat().st_size < len(index.digests) * self._row_bytes:
            logger.warning("pixel-cache-rebuilt reason=pixels")
            return None
        return index

    def _append(
        self, index: _Index | None, missing: Sequence[Case], read: Callable[[Case], bytes]
    ) -> _Index:
        if index is None:
            index = _Index(pixels=f"{secrets.token_hex(8)}.u8", digests=())
        digests = list(index.digests)
        with _writable(self._folder / index.pixels) as stream:
            stream.truncate(len(digests) * self._row_bytes)
            stream.seek(0, os.SEEK_END)
            for case, pixels in self._prepared(missing, read):
                stream.write(pixels.tobytes())
                digests.append(case.digest)
            stream.flush()
            os.fsync(stream.fileno())
        return self._commit(_Index(pixels=index.pixels, digests=tuple(digests)))

    def _prepared(
        self, cases: Sequence[Case], read: Callable[[Case], bytes]
    ) -> Iterator[tuple[Case, Pixels]]:
        def one(case: Case) -> Pixels | None:
            try:
                return prepare(decode(read(case)), self._spec)
            except WardroundError as error:
                logger.warning("image-left-out case=%s code=%s", case.id, error.code)
                return None

        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            for start in range(0, len(cases), CHUNK):  # bounded memory
                chunk = cases[start : start + CHUNK]
                for case, pixels in zip(chunk, pool.map(one, chunk), strict=True):
                    if pixels is not None:
                        yield case, pixels

    def _without_others(self, index: _Index, wanted: Set[str]) -> _Index:
        source = self._open(index)
        digests = tuple(d for d in index.digests if d in wanted)
        name = f"{secrets.token_hex(8)}.u8"
        with _writable(self._folder / name) as stream:
            for digest in digests:
                stream.write(source.pixels[source.row_of[digest]].tobytes())
            stream.flush()
            os.fsync(stream.fileno())
        return self._commit(_Index(pixels=name, digests=digests))

    def _commit(self, index: _Index) -> _Index:
        write_private(self._folder / "index.json", index.model_dump_json().encode())
        for path in (*self._folder.glob("*.u8"), *self._folder.glob("features-*.npy")):
            if path.name != index.pixels:
                path.unlink()  # a process that has it mapped keeps it
        return index

    def _open(self, index: _Index) -> CachedPixels:
        size, count = self._spec.size, len(index.digests)
        shape = (count, size, size, 3)
        path = self._folder / index.pixels
        pixels: NDArray[np.uint8] = (
            np.memmap(path, dtype=np.uint8, mode="r", shape=shape)
            if count
            else np.zeros(shape, np.uint8)
        )
        return CachedPixels(pixels, {digest: row for row, digest in enumerate(index.digests)})


def _read_index(folder: Path) -> _Index | None:
    try:
        return _Index.model_validate_json((folder / "index.json").read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        logger.warning("pixel-cache-rebuilt reason=index")
        return None


def _read_features(path: Path, rows: int) -> NDArray[np.float32] | None:
    try:
        kept: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError):
        logger.warning("features-rebuilt")
        return None
    return kept if kept.ndim == 2 and len(kept) == rows and kept.dtype == np.float32 else None


@contextmanager
def _writable(path: Path) -> Iterator[BinaryIO]:
    """Open for reading and writing, made with mode 0600 where it is absent: it holds images."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+b") as stream:
        yield stream
