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
    """The one who explains at a site; its thread starts with the first explanation.

    Parameters
    ----------
    settings : ExplanationSettings
    similar : SimilarCases
    """

    def __init__(self, settings: ExplanationSettings, similar: SimilarCases) -> None:
        self._similar = similar
        self._explainer = Explainer()
        self._pool = ExplanationPool(settings)

    def explain(
        self,
        engine: InferenceEngine,
        image: bytes,
        *,
        method: Method = Method.grad_cam,
        class_name: str | None = None,
    ) -> Future[Explanation]:
        """Have an image explained; see `Explainer.explain` and `ExplanationPool.submit`."""
        return self._pool.submit(
            lambda budget: self._explainer.explain(
                engine, image, method=method, class_name=class_name, budget=budget
            )
        )

    def similar(self, engine: InferenceEngine, image: bytes) -> Future[Similar]:
        """Have the nearest confirmed cases found; see `SimilarCases.nearest`."""
        return self._pool.submit(lambda _budget: self._similar.nearest(engine, image))

    def start(self) -> None:
        """Begin to compute the features of the confirmed cases."""
        self._similar.start()

    def close(self) -> None:
        """Break off what is computed, and end."""
        self._similar.close()
        self._pool.close()
