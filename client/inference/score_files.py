"""Kept rows of scored holdout cases: one file a model, mode 0600, deletable at any time.

A row speaks of a patient as much as a prepared picture does. So rows of cases that are no holdout
cases any more (a withdrawal, a correction) go from every file as soon as one is written or
`ScoreFiles.prune` is called.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import StoreError
from common.folders import write_private

log = logging.getLogger(__name__)

KEPT = 4
"""Files: of the model that answers, the one before, and newer ones that are being judged."""


@dataclass(frozen=True, eq=False)
class KeptRow:
    """One case: its image's digest, logits (K,), features (D,) and input statistics (M,)."""

    image: str
    logits: NDArray[np.float64]
    features: NDArray[np.float32]
    statistics: NDArray[np.float64]


class ScoreFiles:
    """Rows by model and case id.

    Parameters
    ----------
    folder : Path
        Made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> dict[str, KeptRow]:
        """Return what is kept under a key; a damaged file counts as none."""
        path = self._path(key)
        try:
            with np.load(path, allow_pickle=False) as kept:
                columns = [kept[n] for n in ("images", "logits", "features", "statistics")]
                names = [str(name) for name in kept["cases"]]
            found = {
                name: KeptRow(str(image), *rest)
                for name, image, *rest in zip(names, *columns, strict=True)
            }
            path.touch()
        except FileNotFoundError:
            return {}
        except Exception as error:  # numpy and zipfile raise many kinds on damaged bytes
            log.warning("event=holdout-scores-unreadable type=%s", type(error).__name__)
            return {}
        return found

    def keep(self, key: str, rows: Mapping[str, KeptRow]) -> None:
        """Keep rows, in the place of what was kept; the least used files go."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(self._path(key), rows)
            files = sorted(self._folder.glob("*.npz"), key=lambda path: path.stat().st_mtime)
            for old in files[:-KEPT]:
                old.unlink(missing_ok=True)
        except (OSError, StoreError) as error:
            log.warning("event=holdout-scores-not-kept type=%s", type(error).__name__)

    def prune(self, cases: Set[str]) -> None:
        """Remove the rows of all but these cases from every file."""
        for path in self._folder.glob("*.npz"):
            rows = self.find(path.stem)
            left = {name: row for name, row in rows.items() if name in cases}
            if len(left) < len(rows) or not rows:
                path.unlink(missing_ok=True)
                if left:
                    self.keep(path.stem, left)

    def forget(self) -> None:
        """Remove every file."""
        for path in self._folder.glob("*.npz"):
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npz"

    def _write(self, path: Path, rows: Mapping[str, KeptRow]) -> None:
        if not rows:
            path.unlink(missing_ok=True)
            return
        content = io.BytesIO()
        np.savez(
            content,
            cases=np.array(list(rows)),
            images=np.array([row.image for row in rows.values()]),
            logits=np.stack([row.logits for row in rows.values()]),
            features=np.stack([row.features for row in rows.values()]),
            statistics=np.stack([row.statistics for row in rows.values()]),
        )
        write_private(path, content.getvalue())
