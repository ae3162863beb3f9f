"""Model weights on the coordinator's disk, named by their digest. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.errors import StoreError
from common.folders import write_public
from common.update import Tensors, tensors_digest


class ModelStore:
    """A folder of ``<digest>.safetensors``, written atomically and checked when read.

    Parameters
    ----------
    folder : Path
        Made when it is absent.
    named : callable, optional
        Tells of a digest whether a record refers to it. Without it nothing is ever removed: a
        release that lost its weights would stop the task, and they are nowhere else.
    """

    def __init__(self, folder: Path, *, named: Callable[[str], bool] = lambda _: True) -> None:
        self._folder = folder
        self._named = named

    def save(self, tensors: Tensors, *, digest: str | None = None) -> str:
        """Keep tensors, and return their digest (64 hex digits), which may be known already.

        Raises
        ------
        StoreError
            If the disk failed.
        """
        digest = digest or tensors_digest(tensors)
        if not self._path(digest).is_file():
            write_tensors(self._path(digest), tensors)
        return digest

    def load(self, digest: str) -> dict[str, NDArray[np.generic]]:
        """Read tensors.

        Raises
        ------
        StoreError
            With code ``model-missing`` or ``model-damaged``.
        """
        tensors = read_tensors(self._path(digest))
        if tensors_digest(tensors) != digest:
            raise _damaged(self._path(digest))
        return tensors

    def remove(self, digest: str) -> None:
        """Remove tensors, unless something refers to them; harmless where there are none.

        Raises
        ------
        StoreError
            If it cannot be told.
        """
        if digest in self and not self._named(digest):
            self._path(digest).unlink(missing_ok=True)

    def __contains__(self, digest: str) -> bool:
        return self._path(digest).is_file()

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, NDArray[np.generic]]) -> None:
    """Write a safetensors file, atomically and durably; its folder is made when absent.

    Raises
    ------
    StoreError
        If the disk failed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_public(path, save({name: np.array(array, order="C") for name, array in tensors.items()}))


def read_tensors(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read a safetensors file.

    Raises
    ------
    StoreError
        With code ``model-missing`` or ``model-damaged``.
    """
    try:
        tensors = load(path.read_bytes())
    except OSError as error:
        raise StoreError(
            f"The weights {path.name} cannot be read ({error.strerror}).",
            action="Restore data/models from backup.",
            code="model-missing",
        ) from error
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise _damaged(path) from error
    return {name: np.array(array) for name, array in tensors.items()}


def _damaged(path: Path) -> StoreError:
    return StoreError(
        f"The weights {path.name} are damaged.",
        action="Restore data/models from backup.",
        code="model-damaged",
    )
