"""A round's accepted updates on disk, until they are aggregated.

Robust aggregators look at all updates at once, and so does a norm bound that is taken from the
round itself. On disk they cost no memory, however many sites there are; they are read back a
block of coordinates at a time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from common.errors import StoreError

BLOCK_BYTES = 16 * 2**20
"""Of one block in float64; aggregating holds a few times as much at once."""


@dataclass(frozen=True)
class SpooledUpdate:
    """Whose update it is, the weight that the site declared, and the update's norm."""

    site: str
    weight: float
    norm: float


class UpdateSpool:
    """The updates of one round, as rows of one file that has no name.

    The file is unlinked as soon as it is opened, so that no update of a single site outlives the
    round, even where the process is killed.

    Parameters
    ----------
    folder : Path
        On whose file system the updates are kept; made if it is missing.
    shapes : mapping of str to tuple of int
        Of the trainable tensors.
    block_bytes : int, optional
        Size of the blocks that `blocks` yields.

    Raises
    ------
    StoreError
        If the disk failed, here or later.
    """

    def __init__(
        self,
        folder: Path,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._shapes = {name: tuple(shapes[name]) for name in sorted(shapes)}
        self._size = sum(int(np.prod(shape)) for shape in self._shapes.values())
        self._block_bytes = block_bytes
        self._updates: list[SpooledUpdate] = []
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by close()
        except OSError as error:
            raise _disk(error) from error

    def __enter__(self) -> UpdateSpool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def add(
        self, site: str, delta: Mapping[str, NDArray[np.float32]], *, weight: float, norm: float
    ) -> None:
        """Write one update, which `server.rounds.update_checks` has accepted.

        Parameters
        ----------
        site : str
            Each at most once.
        delta : mapping of str to ndarray, float32
            Of the spool's names and shapes.
        weight : float
            Above 0; declared by the site.
        norm : float
            The update's Euclidean norm.
        """
        try:
            self._file.seek(4 * self._size * len(self._updates))
            for name in self._shapes:
                # A tensor at a time: no second copy of the whole update.
                self._file.write(np.ascontiguousarray(delta[name], dtype=np.float32).data)
            self._file.flush()
        except OSError as error:
            raise _disk(error) from error
        self._updates.append(SpooledUpdate(site, weight, norm))

    @property
    def updates(self) -> tuple[SpooledUpdate, ...]:
        """The updates in order of site names: what comes first must not matter."""
        return tuple(self._updates[row] for row in self._order())

    @property
    def size(self) -> int:
        """Coordinates of an update."""
        return self._size

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Yield all coordinates of all updates, a block at a time.

        Yields
        ------
        where : slice
            The block's place among the coordinates.
        rows : ndarray, float64, shape (updates, block)
            In the order of `updates`.
        """
        count, order = len(self._updates), self._order()
        if not count or not self._size:
            return
        step = max(1, self._block_bytes // (8 * count))
        for first in range(0, self._size, step):
            where = slice(first, min(first + step, self._size))
            yield where, self._block(order, where)

    def _block(self, order: list[int], where: slice) -> NDArray[np.float64]:
        # Read, not mapped: pages of a mapping stay in resident memory until it is closed, which
        # would be all updates in the end.
        wide = np.empty((len(order), where.stop - where.start))
        for index, row in enumerate(order):
            try:
                data = os.pread(
                    self._file.fileno(), 4 * wide.shape[1], 4 * (row * self._size + where.start)
                )
            except OSError as error:
                raise _disk(error) from error
            if len(data) != 4 * wide.shape[1]:
                raise _disk(OSError("the file is shorter than what was written"))
            wide[index] = np.frombuffer(data, dtype=np.float32)
        return wide

    def row(self, index: int) -> NDArray[np.float32]:
        """Return one whole update, of those in `updates`, shape (size,).

        Raises
        ------
        StoreError
            If the disk failed.
        """
        place = self._order()[index]
        whole = self._block([place], slice(0, self._size))[0]
        return np.asarray(whole, dtype=np.float32)

    def flat(self, tensors: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
        """Return tensors of the spool's names and shapes as a row, shape (size,)."""
        parts = [np.asarray(tensors[name], dtype=np.float32).reshape(-1) for name in self._shapes]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)

    def tensors(self, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return a row as tensors, which share its memory."""
        found, first = {}, 0
        for name, shape in self._shapes.items():
            size = int(np.prod(shape))
            found[name] = flat[first : first + size].reshape(shape)
            first += size
        return found

    def _order(self) -> list[int]:
        return sorted(range(len(self._updates)), key=lambda row: self._updates[row].site)


def _disk(error: OSError) -> StoreError:
    return StoreError(
        f"A round's updates cannot be kept on disk: {error}.",
        action="Free disk space at the coordinator, then start a new campaign.",
        code="updates-disk",
    )
