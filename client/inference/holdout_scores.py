"""What a model says of the site's own confirmed holdout: computed beside the running service.

Images are decoded and asked about a few at a time, so that memory is bounded, and each batch waits
its turn: the caller's ``between`` runs before every one of them, lets clinicians' images go first,
and may end the whole thing by raising. What was computed is kept on disk by the digests of model,
head and holdout: a release that is judged, swapped in and rolled back is asked for more than once.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from client.cases.case import Case
from client.cases.store import CaseStore
from client.inference.engine import InferenceEngine
from client.monitoring.input_statistics import IMAGE_STATISTICS, image_statistics
from common.errors import StoreError, WardroundError
from common.folders import write_private
from common.imaging import decode, prepare

log = logging.getLogger(__name__)

MAXIMUM_CASES = 2000
BATCH = 2
"""Images a call: small, because a request may have to wait for it."""
KEPT = 4
"""Files of scores that are kept: of the model that answers, the one before and newer ones."""
FORM = 1

Between: TypeAlias = Callable[[], None]


@dataclass(frozen=True)
class HoldoutScores:
    """A model's outputs on holdout cases, row by row.

    Attributes
    ----------
    cases : tuple of Case
        Confirmed holdout cases whose image could be read, N of them.
    logits : ndarray of float64, (N, K)
        Before softmax and before any calibration.
    features : ndarray of float32, (N, D)
        What the classifier sees.
    labels : ndarray of int64, (N,)
        Positions in the recipe's classes.
    statistics : ndarray of float64, (N, M)
        `client.monitoring.input_statistics` of the prepared images.
    digest : str
        SHA-256 (hex) of the cases and their labels.
    """

    cases: tuple[Case, ...]
    logits: NDArray[np.float64]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    statistics: NDArray[np.float64]
    digest: str

    @property
    def patients(self) -> NDArray[np.int64]:
        """Number of each case's patient, int64 (N,)."""
        number: dict[str, int] = {}
        return np.array([number.setdefault(c.patient, len(number)) for c in self.cases], np.int64)


class ScoreFiles:
    """Kept scores; files of mode 0600 that may be deleted at any time.

    Parameters
    ----------
    folder : Path
        Made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str, cases: Sequence[Case]) -> HoldoutScores | None:
        """Return what is kept under a key; damaged files count as absent."""
        try:
            with np.load(self._path(key), allow_pickle=False) as kept:
                rows = kept["rows"]
                found = HoldoutScores(
                    tuple(cases[row] for row in rows),
                    kept["logits"],
                    kept["features"],
                    kept["labels"],
                    kept["statistics"],
                    str(kept["digest"]),
                )
            self._path(key).touch()
        except FileNotFoundError:
            return None
        except Exception as error:  # numpy and zipfile raise many kinds on damaged bytes
            log.warning("event=holdout-scores-unreadable type=%s", type(error).__name__)
            return None
        return found

    def keep(self, key: str, scores: HoldoutScores, rows: Sequence[int]) -> None:
        """Keep scores; ``rows`` are the positions of their cases among the cases asked for."""
        content = io.BytesIO()
        np.savez(
            content,
            rows=np.array(rows, np.int64),
            logits=scores.logits,
            features=scores.features,
            labels=scores.labels,
            statistics=scores.statistics,
            digest=np.array(scores.digest),
        )
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self._path(key), content.getvalue())
            files = sorted(self._folder.glob("*.npz"), key=lambda path: path.stat().st_mtime)
            for old in files[:-KEPT]:
                old.unlink(missing_ok=True)
        except (OSError, StoreError) as error:
            log.warning("event=holdout-scores-not-kept type=%s", type(error).__name__)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npz"


def score_holdout(
    engine: InferenceEngine,
    store: CaseStore,
    *,
    maximum: int = MAXIMUM_CASES,
    between: Between = lambda: None,
    files: ScoreFiles | None = None,
) -> HoldoutScores:
    """Return what a model says of the confirmed holdout cases of its task.

    Parameters
    ----------
    engine : InferenceEngine
        Self-tested; it need not be the one that answers.
    store : CaseStore
        The site's.
    maximum : int, default 2000
        Of more cases, those with the lowest image digests are taken: the same ones each time, and
        chosen by nothing that has to do with them.
    between : callable, optional
        Runs before each batch; what it raises ends the scoring.
    files : ScoreFiles, optional
        Where scores are kept, and looked for first.

    Returns
    -------
    HoldoutScores
        Without cases whose image cannot be read, or whose label is none of the model's classes.

    Raises
    ------
    StoreError
        If the database cannot be read.
    ModelError
        If the model gives no finite numbers.
    """
    classes = {name: number for number, name in enumerate(engine.recipe.classes)}
    cases = [c for c in store.holdout_cases(engine.recipe.name) if c.label in classes][:maximum]
    digest = holdout_digest(cases)
    key = _key(engine, digest)
    kept = files.find(key, cases) if files is not None else None
    if kept is not None and kept.digest == digest:
        return kept
    parts: list[_Part] = []
    for start in range(0, len(cases), BATCH):
        between()
        rows = range(start, min(start + BATCH, len(cases)))
        part = _scored(engine, store, rows, cases)
        if part is not None:
            parts.append(part)
    scores, used = _joined(parts, cases, classes, digest)
    if files is not None:
        files.keep(key, scores, used)
    return scores


def holdout_digest(cases: Sequence[Case]) -> str:
    """Return SHA-256 (hex) over images, patients and labels of cases, in their order."""
    rows = [(case.id, case.digest, case.patient, case.label) for case in cases]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@dataclass(frozen=True)
class _Part:
    rows: tuple[int, ...]
    logits: NDArray[np.float64]
    features: NDArray[np.float32]
    statistics: NDArray[np.float64]


def _key(engine: InferenceEngine, digest: str) -> str:
    image = engine.recipe.image.model_dump(mode="json")
    made_by = (FORM, engine.digest, engine.head_digest, digest, image, IMAGE_STATISTICS)
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:32]


def _scored(
    engine: InferenceEngine, store: CaseStore, rows: Sequence[int], cases: Sequence[Case]
) -> _Part | None:
    """Score a few cases; None where none of their images can be read."""
    readable, pixels = [], []
    for row in rows:
        try:
            pixels.append(prepare(decode(store.image_bytes(cases[row])), engine.recipe.image))
        except WardroundError as error:  # one damaged image must not keep a release away
            log.warning("event=holdout-image-unusable code=%s", error.code)
            continue
        readable.append(row)
    if not readable:
        return None
    outputs = engine.outputs(np.stack(pixels))
    statistics = np.array([image_statistics(one) for one in pixels])
    return _Part(tuple(readable), outputs.logits, outputs.features, statistics)


def _joined(
    parts: Sequence[_Part], cases: Sequence[Case], classes: Mapping[str, int], digest: str
) -> tuple[HoldoutScores, tuple[int, ...]]:
    rows = tuple(row for part in parts for row in part.rows)
    chosen = tuple(cases[row] for row in rows)
    none = _Part(
        (),
        np.zeros((0, len(classes))),
        np.zeros((0, 0), np.float32),
        np.zeros((0, len(IMAGE_STATISTICS))),
    )
    known = parts or [none]
    scores = HoldoutScores(
        chosen,
        np.concatenate([part.logits for part in known]),
        np.concatenate([part.features for part in known]),
        np.array([classes[case.label or ""] for case in chosen], np.int64),
        np.concatenate([part.statistics for part in known]),
        digest,
    )
    return scores, rows
