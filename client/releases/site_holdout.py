"""The site's own holdout as releases see it, scored at the lowest priority."""

from __future__ import annotations

import time
from collections.abc import Callable

from client.cases.case import Case
from client.cases.store import CaseStore
from client.inference.engine import InferenceEngine
from client.inference.holdout_scores import HoldoutScores, holdout_of, score_holdout
from client.inference.score_files import ScoreFiles
from client.releases.served import Between
from client.releases.shadow import shadow_figures
from client.releases.shadow_figures import ShadowFigures

PATIENCE_SECONDS = 0.25
GLANCE_SECONDS = 0.005


class SiteHoldout:
    """Scores engines on the confirmed holdout, letting clinicians' images go first.

    While somebody's image is handled, a batch of holdout images waits, though never longer than
    ``patience``: under load that has no gaps the scoring takes long, and ends all the same.

    Parameters
    ----------
    store : CaseStore
        The site's.
    files : ScoreFiles
        Where scores are kept.
    busy : callable
        Tells whether somebody waits for an answer now.
    patience : float, default 0.25
        Longest wait before a batch, in seconds.
    """

    def __init__(
        self,
        store: CaseStore,
        files: ScoreFiles,
        *,
        busy: Callable[[], bool],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._store = store
        self._files = files
        self._busy = busy
        self._patience = patience

    def scores(self, engine: InferenceEngine, between: Between) -> HoldoutScores:
        """Return an engine's scores; ``between`` may end it by raising. See `score_holdout`."""

        def gap() -> None:
            between()
            self._wait()

        return score_holdout(engine, self._store, between=gap, files=self._files)

    def compare(
        self, new: InferenceEngine, beside: InferenceEngine, between: Between
    ) -> ShadowFigures | None:
        """Hold a newer engine against the one that answers; None with too few cases.

        However that ends, scores of cases that are in the holdout no more are dropped.

        Raises
        ------
        StoreError
            If the database cannot be read.
        """
        sides = (new.manifest, beside.manifest)
        try:
            both = [self.scores(engine, between) for engine in (new, beside)]
            return shadow_figures((sides[0], both[0]), (sides[1], both[1]), between=between)
        finally:
            self.prune(new)

    def cases(self, engine: InferenceEngine) -> list[Case]:
        """Return the cases that an engine is scored on."""
        return holdout_of(engine, self._store)

    def prune(self, engine: InferenceEngine) -> None:
        """Drop kept scores of cases that are in the holdout no more, or leave it meanwhile."""
        live = self._ids(engine)
        self._files.prune(live)
        while live - (now := self._ids(engine)):
            self._files.prune(now)
            live = now

    def has_all(self, scores: HoldoutScores) -> bool:
        """Tell whether none of those that were scored has been withdrawn."""
        return not self._store.gone(case.id for case in scores.cases)

    def _ids(self, engine: InferenceEngine) -> set[str]:
        return {case.id for case in self.cases(engine)}

    def _wait(self) -> None:
        until = time.monotonic() + self._patience
        while self._busy() and time.monotonic() < until:
            time.sleep(GLANCE_SECONDS)
