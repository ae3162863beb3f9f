"""Explaining as the site's service does it: bounded, beside and after the predictions."""

from __future__ import annotations

from concurrent.futures import Future

from client.explanation.explanation import Explainer, Explanation
from client.explanation.methods import Method
from client.explanation.pool import ExplanationPool
from client.explanation.settings import ExplanationSettings
from client.inference.engine import InferenceEngine


class Explanations:
    """The one who explains at a site; its thread starts with the first explanation.

    Parameters
    ----------
    settings : ExplanationSettings
    """

    def __init__(self, settings: ExplanationSettings) -> None:
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

    def close(self) -> None:
        """Break off what is computed, and end."""
        self._pool.close()
