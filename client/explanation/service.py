"""Explaining as the site's service does it: bounded, beside and after the predictions."""

from __future__ import annotations

from concurrent.futures import Future

from client.explanation.explanation import Explainer, Explanation
from client.explanation.methods import Method
from client.explanation.pool import ExplanationPool
from client.explanation.settings import ExplanationSettings
from client.explanation.similar import Similar, SimilarCases
from client.inference.engine import InferenceEngine


class Explanations:
    """The one who explains at a site, in two threads: what takes long holds up only its like.

    Parameters
    ----------
    settings : ExplanationSettings
    similar : SimilarCases
    """

    def __init__(self, settings: ExplanationSettings, similar: SimilarCases) -> None:
        self._similar = similar
        self._quick, self._slow = ExplanationPool(settings), ExplanationPool(settings)
        self._explainers = {self._quick: Explainer(), self._slow: Explainer()}

    def explain(
        self,
        engine: InferenceEngine,
        image: bytes,
        *,
        method: Method = Method.grad_cam,
        class_name: str | None = None,
    ) -> Future[Explanation]:
        """Have an image explained; see `Explainer.explain` and `ExplanationPool.submit`."""
        pool = self._quick if method.quick else self._slow
        explainer = self._explainers[pool]
        return pool.submit(
            lambda budget: explainer.explain(
                engine, image, method=method, class_name=class_name, budget=budget
            )
        )

    def similar(self, engine: InferenceEngine, image: bytes) -> Future[Similar]:
        """Have the nearest confirmed cases found; see `SimilarCases.nearest`."""
        return self._quick.submit(lambda _budget: self._similar.nearest(engine, image))

    def start(self) -> None:
        """Begin to compute the features of the confirmed cases."""
        self._similar.start()

    def close(self) -> None:
        """Break off what is computed, and end."""
        self._similar.close()
        self._quick.close()
        self._slow.close()
