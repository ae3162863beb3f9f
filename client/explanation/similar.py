"""Which confirmed cases of this site look most like an image, to the model that answers.

Two images are near where the classifier sees nearly the same: the distance is that of the cosine
of their features. The features of the confirmed cases are computed beside the predictions and
after them, kept in memory alone, and made again when another model answers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from client.cases.store import Case, CaseCounts, CaseStore
from client.explanation.pool import step_back
from client.inference.engine import InferenceEngine, ModelHolder
from common.errors import NotFound, WardroundError
from common.imaging import Pixels, decode, prepare

log = logging.getLogger(__name__)

NEAREST = 5
POLL_SECONDS = 10.0
SAME_IMAGE = 1e-6
"""Below this distance it is the image itself, which says nothing about others."""
_AT_ONCE = 4
_PUBLISH_EVERY = 64
_EPOCH = datetime.min.replace(tzinfo=UTC)
Features: TypeAlias = NDArray[np.float32]
_Model: TypeAlias = tuple[str, str | None]
"""Digests of the release's weights and of the site's own layers, which may be below the head."""


@dataclass(frozen=True)
class SimilarCase:
    """A confirmed case, and the cosine distance of its features from the image's, 0 to 2."""

    case_id: str
    label: str
    distance: float


@dataclass(frozen=True)
class Similar:
    """The nearest cases, nearest first; ``compared`` of the site's ``confirmed`` were looked at.

    Fewer are compared while the index is made, and where the site has more than it may hold.
    """

    cases: tuple[SimilarCase, ...]
    compared: int
    confirmed: int


@dataclass(frozen=True, eq=False)
class _Index:
    """Features of cases, of length 1 each, as one model sees them; ``rows`` is (N, D)."""

    model: _Model
    ids: tuple[str, ...]
    rows: Features


class SimilarCases:
    """Keeps the features of a site's confirmed cases, and finds the nearest.

    Parameters
    ----------
    holder : ModelHolder
    store : CaseStore
    task : str
    maximum : int
        Of the newest cases that are compared; 0 compares none.
    poll_seconds : float
        How soon a new case or model is seen.
    """

    def __init__(
        self,
        holder: ModelHolder,
        store: CaseStore,
        task: str,
        *,
        maximum: int,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._holder, self._store, self._task = holder, store, task
        self._maximum, self._poll_seconds = maximum, poll_seconds
        self._index: _Index | None = None
        self._indexed: tuple[_Model, CaseCounts] | None = None
        self._confirmed = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="similar-cases", daemon=True)

    def start(self) -> None:
        """Begin to compute; without a maximum there is nothing to."""
        if self._maximum:
            self._thread.start()

    def close(self) -> None:
        """End after the images in hand."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def nearest(self, engine: InferenceEngine, image: bytes, *, count: int = NEAREST) -> Similar:
        """Return the nearest confirmed cases, as they are at this moment.

        A case that was withdrawn a moment ago is not among them, nor is the image itself.

        Parameters
        ----------
        engine : InferenceEngine
        image : bytes
            A file as uploaded.
        count : int
            Most cases to return.

        Raises
        ------
        ImageRefused
            As `common.imaging.decode`.
        StoreError
            If the database failed.
        """
        features = _features(engine, [prepare(decode(image), engine.recipe.image)])[0]
        index = self._index
        if index is None or index.model != _model(engine) or not index.ids:
            return Similar((), 0, self._confirmed)
        distances = 1 - index.rows @ features
        found: list[SimilarCase] = []
        for place in np.argsort(distances, kind="stable"):
            if len(found) == count:
                break
            distance = max(0.0, float(distances[place]))
            case = self._still_confirmed(index.ids[place]) if distance > SAME_IMAGE else None
            if case is not None and case.label is not None:
                found.append(SimilarCase(case.id, case.label, distance))
        return Similar(tuple(found), len(index.ids), self._confirmed)

    def update(self) -> bool:
        """Bring the index up to date; tell whether it is, for the model and cases of now."""
        engine = self._holder.current
        if engine is None:
            return False
        counts = self._store.counts(self._task)
        state = (_model(engine), counts)
        if self._indexed == state:
            return True
        self._confirmed = counts.confirmed
        for index in self._grown(engine):
            self._index = index
            if self._closing.is_set() or self._holder.current is not engine:
                return False
        self._indexed = state
        return True

    def _grown(self, engine: InferenceEngine) -> Iterator[_Index]:
        """Yield the index as it grows, last when it is whole."""
        wanted = self._wanted()
        known = self._known(_model(engine))
        rows = {case.id: known[case.id] for case in wanted if case.id in known}
        missing = [case for case in wanted if case.id not in rows]
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            rows |= self._computed(engine, part)
            if start % _PUBLISH_EVERY == 0:
                yield _indexed(_model(engine), rows)
        yield _indexed(_model(engine), rows)

    def _wanted(self) -> list[Case]:
        """Return the newest confirmed cases, newest first."""
        store = self._store
        cases = [*store.training_cases(self._task), *store.holdout_cases(self._task)]
        cases.sort(key=lambda case: case.confirmed_at or _EPOCH, reverse=True)
        return cases[: self._maximum]

    def _known(self, model: _Model) -> dict[str, Features]:
        index = self._index
        if index is None or index.model != model:
            return {}
        return dict(zip(index.ids, index.rows, strict=True))

    def _computed(self, engine: InferenceEngine, cases: Sequence[Case]) -> dict[str, Features]:
        ids: list[str] = []
        images: list[Pixels] = []
        for case in cases:
            try:
                pixels = decode(self._store.image_bytes(case))
            except WardroundError as error:  # withdrawn meanwhile, or damaged: others go on
                log.warning("event=similar-case-unread case=%s code=%s", case.id, error.code)
                continue
            ids.append(case.id)
            images.append(prepare(pixels, engine.recipe.image))
        if not images:
            return {}
        return dict(zip(ids, _features(engine, images), strict=True))

    def _still_confirmed(self, case_id: str) -> Case | None:
        try:
            case = self._store.get(case_id)
        except NotFound:
            return None
        return case if case.status == "confirmed" else None

    def _run(self) -> None:
        step_back()
        while not self._closing.is_set():
            try:
                self.update()
            except WardroundError as error:
                log.warning("event=similar-cases-wait code=%s", error.code)
            except Exception as error:  # the thread must live on
                log.error("event=similar-cases-failed type=%s", type(error).__name__)
            self._closing.wait(self._poll_seconds)


def _features(engine: InferenceEngine, images: Sequence[Pixels]) -> Features:
    features = engine.outputs(np.stack(images)).features
    length = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: Features = (features / np.maximum(length, 1e-12)).astype(np.float32)
    return scaled


def _model(engine: InferenceEngine) -> _Model:
    return (engine.digest, engine.head_digest)


def _indexed(model: _Model, rows: dict[str, Features]) -> _Index:
    matrix = np.stack(list(rows.values())) if rows else np.zeros((0, 1), np.float32)
    return _Index(model, tuple(rows), matrix)
