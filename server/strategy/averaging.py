"""Exponential moving average of the weights over rounds: free under privacy, and steadier.

See De et al. 2022 (arXiv:2204.13650, section 3), whose warm-up is used here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.update import Tensors


class WeightAverage:
    """The average ``a <- d a + (1 - d) w`` with ``d = min(decay, (1 + t) / (10 + t))``.

    A decay of 0 keeps nothing: the average is the newest model.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._average: dict[str, NDArray[np.float64]] = {}
        self._steps = 0

    def update(self, weights: Tensors) -> None:
        """Take in the model after a round."""
        if self._decay == 0:
            return
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps)) if self._steps else 0.0
        self._steps += 1
        for name, array in weights.items():
            if np.issubdtype(array.dtype, np.floating):
                old = self._average.get(name, np.zeros(array.shape))
                self._average[name] = decay * old + (1 - decay) * array.astype(np.float64)

    def weights(self, newest: Tensors) -> dict[str, NDArray[np.generic]]:
        """Return the average in the dtypes of ``newest``, whose integers are kept."""
        result = {name: np.array(array) for name, array in newest.items()}
        for name, array in self._average.items():
            result[name] = array.astype(result[name].dtype)
        return result

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return what a checkpoint must hold."""
        state: dict[str, NDArray[np.generic]] = {
            f"average/{name}": array for name, array in self._average.items()
        }
        return state | ({"average-steps": np.array(self._steps)} if self._steps else {})

    def restore(self, state: Tensors) -> None:
        """Go on from `state`."""
        self._average = {
            key.removeprefix("average/"): array.astype(np.float64)
            for key, array in state.items()
            if key.startswith("average/")
        }
        self._steps = int(state["average-steps"]) if "average-steps" in state else 0
