"""The campaign's model: its weights, the server's optimizer, its average, its way down."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.errors import RoundFailed
from common.update import Tensors, tensors_digest
from server.registry.records import Campaign
from server.rounds.downlink import DownLink
from server.strategy.averaging import WeightAverage
from server.strategy.optimizers import choose_optimizer

Weights = dict[str, NDArray[np.generic]]


class GlobalModel:
    """The weights, and everything at the coordinator that moves with them.

    Parameters
    ----------
    campaign : Campaign
        Says which optimizer, average and compression.
    """

    def __init__(self, campaign: Campaign) -> None:
        spec, rounds = campaign.server_optimizer, campaign.settings.rounds
        self.weights: Weights = {}
        self.downlink = DownLink(campaign.recipe.federation.compression)
        self._optimizer = choose_optimizer(spec, campaign.training, rounds=rounds)
        self._average = WeightAverage(spec.ema_decay)

    @property
    def digest(self) -> str:
        """Of the weights."""
        return tensors_digest(self.weights)

    def step(self, delta: dict[str, NDArray[np.float32]], *, number: int) -> None:
        """Move by what the sites' updates became.

        Parameters
        ----------
        delta : mapping of str to ndarray
            The aggregate.
        number : int
            The round, from 1.

        Raises
        ------
        RoundFailed
            With code ``aggregate-not-finite``.
        """
        weights = self._optimizer.step(self.weights, delta, number=number)
        floating = (a for a in weights.values() if np.issubdtype(a.dtype, np.floating))
        if not all(np.isfinite(array).all() for array in floating):
            raise RoundFailed(
                f"The model is not finite after round {number}.",
                meaning="Training diverged.",
                action="Start a campaign with a lower learning rate.",
                code="aggregate-not-finite",
            )
        self.weights = self.downlink.advance(self.weights, weights, number=number)
        self._average.update(self.weights)

    def averaged(self) -> Tensors:
        """Return the average of the weights where the recipe keeps one, else the weights."""
        return self._average.weights(self.weights)

    def state(self) -> Weights:
        """Return what a checkpoint must hold beside the weights."""
        return self._optimizer.state() | self._average.state() | self.downlink.state()

    def restore(self, weights: Weights, state: Weights) -> None:
        """Go on from a checkpoint."""
        self.weights = weights
        self._optimizer.restore(state)
        self._average.restore(state)
        self.downlink.restore(state)
