"""Checkpoints of a running campaign: its weights and what the server's optimizer remembers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import StoreError
from common.update import Tensors
from server.model_store import ModelStore, read_tensors, write_tensors

KEPT = 2
Purpose = Literal["turns", "best"]
"""What weights are held for: a site's newest turn, or as the best so far."""

_NAME = re.compile(r"(\d{6})-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """After round ``number``: the digest of the weights, and the optimizer's state."""

    number: int
    digest: str
    state: dict[str, NDArray[np.generic]]


class Checkpoints:
    """The newest two checkpoints of a campaign.

    The weights are written before the state that names them, so that a crash in between leaves
    the previous checkpoint whole. Both are on disk before `save` returns, and a round is marked
    as finished only then: every finished round can be gone on from.

    Parameters
    ----------
    models : ModelStore
        Holds the weights.
    folder : Path
        Holds the states, ``<round>-<digest>.safetensors``.
    """

    def __init__(self, models: ModelStore, folder: Path) -> None:
        self._models = models
        self._folder = folder
        self._protected: set[str] = set()
        self._held: dict[Purpose, frozenset[str]] = {}

    @property
    def folder(self) -> Path:
        """The campaign's own, for what else must lie on the coordinator's disk."""
        return self._folder

    def protect(self, digest: str) -> None:
        """Never remove these weights: something else refers to them."""
        self._protected.add(digest)

    def hold(self, digests: Iterable[str], *, purpose: Purpose) -> None:
        """Keep these weights, too, and no longer those that were held for this purpose before."""
        before = self._held.get(purpose, frozenset())
        self._held[purpose] = frozenset(digests)
        for digest in before - {digest for _, _, digest in self._files()}:
            self._remove(digest)

    def save(self, number: int, digest: str, weights: Tensors, state: Tensors) -> None:
        """Write a checkpoint.

        Raises
        ------
        StoreError
            If the disk failed.
        """
        self._models.save(weights, digest=digest)
        write_tensors(self._folder / f"{number:06d}-{digest}.safetensors", dict(state))
        self._prune(KEPT)

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that can be read; None when there is none."""
        for path, number, digest in reversed(self._files()):
            if digest not in self._models:
                continue
            try:
                return Checkpoint(number, digest, read_tensors(path))
            except StoreError:
                continue  # cut off by a crash: the one before it is whole
        return None

    def clear(self) -> None:
        """Remove all checkpoints and their weights, but what is protected."""
        self._prune(0)

    def _prune(self, kept: int) -> None:
        files = self._files()
        stay = files[len(files) - kept :] if kept else []
        for path, _, digest in files[: len(files) - len(stay)]:
            path.unlink(missing_ok=True)
            if all(digest != other for _, _, other in stay):
                self._remove(digest)

    def _remove(self, digest: str) -> None:
        if digest not in self._protected.union(*self._held.values()):
            self._models.remove(digest)

    def _files(self) -> list[tuple[Path, int, str]]:
        found = [(path, _NAME.fullmatch(path.name)) for path in self._folder.glob("*.safetensors")]
        return sorted(((p, int(m[1]), m[2]) for p, m in found if m), key=lambda entry: entry[1])
