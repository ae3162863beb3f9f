"""Server optimizers: the mean update in, the next model out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.recipe import LocalTraining, ServerOptimizer
from common.update import Tensors, apply
from server.strategy.adaptive import FedAdagrad, FedAdam, FedYogi
from server.strategy.schedules import factor

Delta = Mapping[str, NDArray[np.float32]]
State = dict[str, NDArray[np.generic]]
ADAM_EPSILON = 1e-8


class Optimizer(Protocol):
    """Applies mean updates, round by round."""

    def step(self, base: Tensors, delta: Delta, *, number: int) -> dict[str, NDArray[np.generic]]:
        """Return the next model; ``number`` is the round, from 1."""

    def state(self) -> State:
        """Return what a checkpoint must hold beside the weights."""

    def restore(self, state: Tensors) -> None:
        """Go on from `state`."""


class Average:
    """FedAvg (McMahan et al. 2017, arXiv:1602.05629): add the mean update, times the rate."""

    def __init__(self, spec: ServerOptimizer, *, rounds: int) -> None:
        self._spec = spec
        self._rounds = rounds

    def step(self, base: Tensors, delta: Delta, *, number: int) -> dict[str, NDArray[np.generic]]:
        """Return ``base + rate * delta``."""
        rate = self._spec.learning_rate * factor(
            self._spec.schedule, number=number, rounds=self._rounds
        )
        return apply(base, {name: np.float32(rate) * change for name, change in delta.items()})

    def state(self) -> State:
        """Return nothing: there is no state."""
        return {}

    def restore(self, state: Tensors) -> None:
        """Do nothing: there is no state."""


class AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) on the mean update as a gradient.

    The gradient is ``-delta / (local rate * local steps)``, so that for one plain SGD step a
    site it is exactly the mean gradient. Moments are kept for each tensor with a step count of
    its own, so that tensors that begin to move later are bias-corrected rightly.
    """

    def __init__(self, spec: ServerOptimizer, training: LocalTraining, *, rounds: int) -> None:
        self._spec = spec
        self._rounds = rounds
        self._scale = 1.0 / (training.learning_rate * training.local_steps)
        self._first: dict[str, NDArray[np.float32]] = {}
        self._second: dict[str, NDArray[np.float32]] = {}
        self._steps: dict[str, int] = {}

    def step(self, base: Tensors, delta: Delta, *, number: int) -> dict[str, NDArray[np.generic]]:
        """Return the next model."""
        rate = self._spec.learning_rate * factor(
            self._spec.schedule, number=number, rounds=self._rounds
        )
        change = {name: self._change(name, base[name], d, rate) for name, d in delta.items()}
        return apply(base, change)

    def _change(
        self, name: str, weights: NDArray[np.generic], delta: NDArray[np.float32], rate: float
    ) -> NDArray[np.float64]:
        gradient = delta.astype(np.float64) * -self._scale
        beta1, beta2 = self._spec.betas
        steps = self._steps[name] = self._steps.get(name, 0) + 1
        first = self._first.get(name, np.zeros_like(delta))
        second = self._second.get(name, np.zeros_like(delta))
        m = beta1 * first + (1 - beta1) * gradient
        v = beta2 * second + (1 - beta2) * gradient**2
        self._first[name], self._second[name] = m.astype(np.float32), v.astype(np.float32)
        direction = (m / (1 - beta1**steps)) / (np.sqrt(v / (1 - beta2**steps)) + ADAM_EPSILON)
        decay = self._spec.weight_decay * np.asarray(weights, dtype=np.float64)
        return np.asarray(-rate * (direction + decay), dtype=np.float64)

    def state(self) -> State:
        """Return the moments and step counts."""
        state: State = {f"first/{name}": array for name, array in self._first.items()}
        state |= {f"second/{name}": array for name, array in self._second.items()}
        state |= {f"steps/{name}": np.array(steps) for name, steps in self._steps.items()}
        return state

    def restore(self, state: Tensors) -> None:
        """Go on from `state`."""
        parts: dict[str, dict[str, NDArray[np.generic]]] = {"first": {}, "second": {}, "steps": {}}
        for key, array in state.items():
            part, _, name = key.partition("/")
            if part in parts:
                parts[part][name] = array
        self._first = {n: a.astype(np.float32) for n, a in parts["first"].items()}
        self._second = {n: a.astype(np.float32) for n, a in parts["second"].items()}
        self._steps = {name: int(array) for name, array in parts["steps"].items()}


_ADAPTIVE: dict[str, type[FedAdagrad] | type[FedYogi] | type[FedAdam]] = {
    "adagrad": FedAdagrad,
    "yogi": FedYogi,
    "adam": FedAdam,
}


def choose_optimizer(spec: ServerOptimizer, training: LocalTraining, *, rounds: int) -> Optimizer:
    """Return the optimizer that a recipe names."""
    if spec.name == "adamw":
        return AdamW(spec, training, rounds=rounds)
    if spec.name in _ADAPTIVE:
        return _ADAPTIVE[spec.name](spec, rounds=rounds)
    return Average(spec, rounds=rounds)
