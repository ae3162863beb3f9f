"""Adaptive server optimizers: FedAdagrad, FedYogi and FedAdam.

Reddi et al. 2021, "Adaptive Federated Optimization" (arXiv:2003.00295), algorithm 2. The mean
update is the pseudo-gradient, as it is: without bias correction, without division by the local
rate. ``server.strategy.optimizers.AdamW`` is another method: Loshchilov's on the mean gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from common.recipe import ServerOptimizer
from common.update import Tensors, apply
from server.strategy.schedules import factor

Moment = NDArray[np.float64]
Floats = Mapping[str, NDArray[np.float32]]
State = dict[str, NDArray[np.generic]]


class Adaptive(ABC):
    """The skeleton: first moments, and second ones as `second_moment` makes them.

    One round: ``m <- b1 m + (1 - b1) delta``; ``v`` as the method says; the model moves by
    ``rate * m / (sqrt(v) + tau)``. ``v`` begins at ``tau ** 2``, the least that the paper allows.

    Parameters
    ----------
    spec : ServerOptimizer
        Its rate, betas, schedule and ``adaptivity`` (the paper's tau) are used.
    rounds : int
        Of the whole campaign.
    """

    def __init__(self, spec: ServerOptimizer, *, rounds: int) -> None:
        self.spec = spec
        self._rounds = rounds
        self._first: dict[str, Moment] = {}
        self._second: dict[str, Moment] = {}

    @abstractmethod
    def second_moment(self, before: Moment, square: Moment) -> Moment:
        """Return v after a round, from v before it and the squared mean update."""

    def step(self, base: Tensors, delta: Floats, *, number: int) -> State:
        """Return the next model; ``number`` is the round, from 1."""
        rate = self.spec.learning_rate * factor(
            self.spec.schedule, number=number, rounds=self._rounds
        )
        return apply(base, {name: rate * self._direction(name, d) for name, d in delta.items()})

    def _direction(self, name: str, delta: NDArray[np.float32]) -> Moment:
        tau, beta = self.spec.adaptivity, self.spec.betas[0]
        wide = delta.astype(np.float64)
        first = beta * self._first.get(name, np.zeros_like(wide)) + (1 - beta) * wide
        before = self._second.get(name, np.full_like(wide, tau**2))
        second = self.second_moment(before, wide**2)
        self._first[name], self._second[name] = first, second
        return np.asarray(first / (np.sqrt(second) + tau), dtype=np.float64)

    def state(self) -> State:
        """Return the moments."""
        state: State = {f"first/{name}": array for name, array in self._first.items()}
        return state | {f"second/{name}": array for name, array in self._second.items()}

    def restore(self, state: Tensors) -> None:
        """Go on from `state`."""
        for prefix, moments in (("first/", self._first), ("second/", self._second)):
            moments.clear()
            for key, array in state.items():
                if key.startswith(prefix):
                    moments[key.removeprefix(prefix)] = array.astype(np.float64)


class FedAdagrad(Adaptive):
    """Reddi et al. 2021, algorithm 2, FedAdagrad: ``v <- v + delta ** 2``."""

    def second_moment(self, before: Moment, square: Moment) -> Moment:
        """Add up."""
        return before + square


class FedYogi(Adaptive):
    """The same, FedYogi: ``v <- v - (1 - b2) delta ** 2 sign(v - delta ** 2)``."""

    def second_moment(self, before: Moment, square: Moment) -> Moment:
        """Move towards the square by a share of the square, whichever is larger."""
        share = 1 - self.spec.betas[1]
        return np.asarray(before - share * square * np.sign(before - square), dtype=np.float64)


class FedAdam(Adaptive):
    """The same, FedAdam: ``v <- b2 v + (1 - b2) delta ** 2``."""

    def second_moment(self, before: Moment, square: Moment) -> Moment:
        """Average exponentially."""
        beta = self.spec.betas[1]
        return beta * before + (1 - beta) * square
