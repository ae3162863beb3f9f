"""What a model says of the site's own confirmed holdout: computed beside the running service.

Images are decoded and asked about a few at a time, so that memory is bounded, and each batch waits
its turn: the caller's ``between`` runs before every one of them, lets clinicians' images go first,
and may end the whole thing by raising. Rows are kept (`client.inference.score_files`): a release
that is judged, swapped in and rolled back, or a holdout that grew, costs its new cases alone.

That takes minutes, in which somebody may withdraw. So each time rows were written it is looked up
who is still there, and who is not is taken out: a withdrawal comes before the look, or deletes what
was written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from client.cases.case import Case
from client.cases.store import CaseStore
from client.inference.engine import InferenceEngine
from client.inference.score_files import KeptRow, ScoreFiles
from client.monitoring.input_statistics import IMAGE_STATISTICS, image_statistics
from common.errors import StoreError, WardroundError
from common.imaging import decode, prepare

log = logging.getLogger(__name__)

MAXIMUM_CASES = 2000
BATCH = 2
"""Images a call: small, because a request may have to wait for it."""
KEEP_SECONDS = 10.0
"""How much of the work a kill may cost."""
FORM = 1

Between: TypeAlias = Callable[[], None]


@dataclass(frozen=True, eq=False)
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
        SHA-256 (hex) of the cases that were asked for and are there still, with their labels.
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
        Runs before each batch; what it raises ends the scoring, and what was done is kept.
    files : ScoreFiles, optional
        Where rows are kept, and looked for first.

    Returns
    -------
    HoldoutScores
        Without cases whose image cannot be read, or whose label is none of the model's classes,
        and without those that were withdrawn meanwhile.

    Raises
    ------
    StoreError
        If the database cannot be read; rows that could not be looked up are not kept.
    ModelError
        If the model gives no finite numbers.
    """
    cases = holdout_of(engine, store, maximum=maximum)
    key = _key(engine)
    rows = files.find(key) if files is not None else {}
    rows = {case.id: rows[case.id] for case in cases if _fits(rows.get(case.id), case)}
    missing = [case for case in cases if case.id not in rows]
    kept_at = time.monotonic()
    try:
        for start in range(0, len(missing), BATCH):
            between()
            rows |= _scored(engine, store, missing[start : start + BATCH])
            if files is not None and time.monotonic() - kept_at >= KEEP_SECONDS:
                # A service that is killed again and again gets on.
                rows = _kept(files, key, rows, engine, store)
                kept_at = time.monotonic()
    finally:
        if files is not None and missing:
            rows = _kept(files, key, rows, engine, store)
    live = _live(engine, store)
    cases = [case for case in cases if case.id in live]
    return _joined([case for case in cases if case.id in rows], rows, engine, holdout_digest(cases))


def holdout_of(
    engine: InferenceEngine, store: CaseStore, *, maximum: int = MAXIMUM_CASES
) -> list[Case]:
    """Return the cases that `score_holdout` would ask about; StoreError without the database."""
    classes = engine.recipe.classes
    return [c for c in store.holdout_cases(engine.recipe.name) if c.label in classes][:maximum]


def holdout_digest(cases: Sequence[Case]) -> str:
    """Return SHA-256 (hex) over images, patients and labels of cases, in their order."""
    rows = [(case.id, case.digest, case.patient, case.label) for case in cases]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _kept(
    files: ScoreFiles,
    key: str,
    rows: dict[str, KeptRow],
    engine: InferenceEngine,
    store: CaseStore,
) -> dict[str, KeptRow]:
    """Keep rows, and return those of cases that are in the holdout still: no other stays kept."""
    while True:
        files.keep(key, rows)
        try:
            live = _live(engine, store)
        except StoreError:
            files.keep(key, {})
            raise
        left = {case_id: row for case_id, row in rows.items() if case_id in live}
        if len(left) == len(rows):
            return rows
        rows = left


def _live(engine: InferenceEngine, store: CaseStore) -> set[str]:
    return {case.id for case in store.holdout_cases(engine.recipe.name)}


def _key(engine: InferenceEngine) -> str:
    image = engine.recipe.image.model_dump(mode="json")
    made_by = (FORM, engine.digest, engine.head_digest, image, IMAGE_STATISTICS)
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:32]


def _fits(row: KeptRow | None, case: Case) -> bool:
    return row is not None and row.image == case.digest


def _scored(engine: InferenceEngine, store: CaseStore, cases: Sequence[Case]) -> dict[str, KeptRow]:
    """Score a few cases; without those whose image cannot be read."""
    readable, pixels = [], []
    for case in cases:
        try:
            pixels.append(prepare(decode(store.image_bytes(case)), engine.recipe.image))
        except WardroundError as error:  # one damaged image must not keep a release away
            log.warning("event=holdout-image-unusable code=%s", error.code)
            continue
        readable.append(case)
    if not readable:
        return {}
    outputs = engine.outputs(np.stack(pixels))
    return {
        case.id: KeptRow(
            case.digest, outputs.logits[n], outputs.features[n], np.array(image_statistics(one))
        )
        for n, (case, one) in enumerate(zip(readable, pixels, strict=True))
    }


def _joined(
    cases: Sequence[Case], rows: dict[str, KeptRow], engine: InferenceEngine, digest: str
) -> HoldoutScores:
    classes = engine.recipe.classes
    chosen = [rows[case.id] for case in cases]
    if not chosen:
        nothing = KeptRow(
            "", np.zeros(len(classes)), np.zeros(0, np.float32), np.zeros(len(IMAGE_STATISTICS))
        )
        return _stacked((), [nothing], classes, digest)
    return _stacked(tuple(cases), chosen, classes, digest)


def _stacked(
    cases: tuple[Case, ...], rows: Sequence[KeptRow], classes: Sequence[str], digest: str
) -> HoldoutScores:
    count = len(cases)  # of no cases, a row that says how wide one is
    return HoldoutScores(
        cases,
        np.stack([row.logits for row in rows])[:count],
        np.stack([row.features for row in rows])[:count],
        np.array([classes.index(case.label or "") for case in cases], np.int64),
        np.stack([row.statistics for row in rows])[:count],
        digest,
    )
