import math

import numpy as np
import pytest

from common.recipe import (
    AlgorithmName,
    FederationSpec,
    LocalTraining,
    ServerOptimizer,
    load_recipe,
)
from server.strategy.adaptive import Adaptive, FedAdagrad, FedAdam, FedYogi
from server.strategy.optimizers import AdamW, Average, choose_optimizer

TRAINING = LocalTraining(learning_rate=0.1)
BASE = {"w": np.array([1.0], dtype=np.float32)}
DELTAS = (2.0, -0.5, 0.25)
B1, B2, RATE, TAU = 0.9, 0.99, 0.1, 0.1


def spec(name: str) -> ServerOptimizer:
    return ServerOptimizer.model_validate(
        {"name": name, "learning_rate": RATE, "betas": (B1, B2), "adaptivity": TAU}
    )


def by_hand(name: str) -> list[float]:
    """Reddi et al. 2021, algorithm 2, one number at a time."""
    x, m, v, found = 1.0, 0.0, TAU**2, []
    for delta in DELTAS:
        m = B1 * m + (1 - B1) * delta
        if name == "adagrad":
            v = v + delta**2
        elif name == "yogi":
            v = v - (1 - B2) * delta**2 * math.copysign(1, v - delta**2)
        else:
            v = B2 * v + (1 - B2) * delta**2
        x = x + RATE * m / (math.sqrt(v) + TAU)
        found.append(x)
    return found


@pytest.mark.parametrize("name", ["adagrad", "yogi", "adam"])
def test_each_is_its_papers_update(name: str) -> None:
    optimizer = choose_optimizer(spec(name), TRAINING, rounds=3)
    weights = dict(BASE)
    for number, (delta, expected) in enumerate(zip(DELTAS, by_hand(name), strict=True), start=1):
        change = {"w": np.array([delta], dtype=np.float32)}
        weights = optimizer.step(weights, change, number=number)
        np.testing.assert_allclose(weights["w"], expected, rtol=1e-6)
    assert len({round(by_hand(n)[-1], 6) for n in ("adagrad", "yogi", "adam")}) == 3


@pytest.mark.parametrize("kind", [FedAdagrad, FedYogi, FedAdam])
def test_a_checkpoint_continues_exactly(kind: type[Adaptive]) -> None:
    change = {"w": np.array([0.3], dtype=np.float32)}
    whole = kind(spec("adam"), rounds=2)
    middle = whole.step(BASE, change, number=1)
    resumed = kind(spec("adam"), rounds=2)
    resumed.restore(whole.state())
    expected = whole.step(middle, change, number=2)["w"]
    np.testing.assert_array_equal(resumed.step(middle, change, number=2)["w"], expected)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        ("fedavg", Average),
        ("fedprox", Average),
        ("fedadam", FedAdam),
        ("fedyogi", FedYogi),
        ("fedadagrad", FedAdagrad),
        (None, AdamW),
    ],
)
def test_an_algorithm_replaces_the_recipes_optimizer(
    algorithm: AlgorithmName | None, kind: type
) -> None:
    recipe = load_recipe("dermoscopy").with_changes(algorithm=algorithm)
    found = recipe.federation.optimizer(private=False)
    optimizer = choose_optimizer(found, TRAINING, rounds=3)
    assert type(optimizer) is kind
    if kind is Average:
        assert (found.learning_rate, found.schedule) == (1.0, "constant")


def test_the_proximal_term_is_fedprox_alone() -> None:
    for algorithm, mu in (("fedprox", 0.3), ("fedavg", 0.0), ("fedadam", 0.0)):
        federation = FederationSpec.model_validate({"algorithm": algorithm, "proximal_mu": 0.3})
        assert federation.local(TRAINING).proximal_mu == mu
    own = TRAINING.model_copy(update={"proximal_mu": 0.7})
    assert FederationSpec().local(own).proximal_mu == 0.7


def test_fedprox_without_mu_is_fedavg() -> None:
    prox = FederationSpec.model_validate({"algorithm": "fedprox", "proximal_mu": 0.0})
    average = FederationSpec.model_validate({"algorithm": "fedavg"})
    for private in (False, True):
        assert prox.optimizer(private=private) == average.optimizer(private=private)
    assert prox.local(TRAINING) == average.local(TRAINING)
