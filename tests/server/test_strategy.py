import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.recipe import LocalTraining, ServerOptimizer
from server.strategy.averaging import WeightAverage
from server.strategy.optimizers import AdamW, Average, choose_optimizer
from server.strategy.schedules import Schedule, factor

BASE = {"w": np.array([1.0, -2.0, 3.0], dtype=np.float32), "n": np.array(4, dtype=np.int64)}
TRAINING = LocalTraining(learning_rate=0.1, local_steps=5)


def gradients(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(size=3).astype(np.float32) for _ in range(count)]


def test_average_adds_the_mean_delta() -> None:
    optimizer = Average(ServerOptimizer(), rounds=5)
    result = optimizer.step(BASE, {"w": np.array([1, 1, 1], dtype=np.float32)}, number=1)
    np.testing.assert_allclose(result["w"], [2, -1, 4])
    assert result["n"] == 4
    assert result["n"].dtype == np.int64


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_adamw_is_torchs_on_the_mean_gradient(schedule: Schedule) -> None:
    rounds = 12
    spec = ServerOptimizer(
        name="adamw", learning_rate=0.05, betas=(0.9, 0.99), weight_decay=0.1, schedule=schedule
    )
    optimizer = choose_optimizer(spec, TRAINING, rounds=rounds)
    assert isinstance(optimizer, AdamW)
    parameter = torch.nn.Parameter(torch.tensor(BASE["w"]))
    reference = torch.optim.AdamW([parameter], lr=0.05, betas=(0.9, 0.99), weight_decay=0.1)
    scheduler = None
    if schedule == "one_cycle":
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            reference, max_lr=0.05, total_steps=rounds, cycle_momentum=False
        )
    weights = dict(BASE)
    for number, gradient in enumerate(gradients(rounds), start=1):
        delta = {"w": -gradient * np.float32(0.1 * 5)}
        weights = optimizer.step(weights, delta, number=number)
        parameter.grad = torch.tensor(gradient)
        reference.step()
        if scheduler is not None:
            scheduler.step()
        np.testing.assert_allclose(weights["w"], parameter.detach().numpy(), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("rounds", [1, 2, 3, 7, 69, 279])
@pytest.mark.parametrize("schedule", ["constant", "one_cycle", "cosine_restarts"])
def test_schedules_stay_within_bounds_and_are_never_idle_at_the_start(
    schedule: Schedule, rounds: int
) -> None:
    factors = [factor(schedule, number=n, rounds=rounds) for n in range(1, rounds + 1)]
    assert all(0 <= f <= 1 for f in factors)
    assert max(factors) > 0.5
    assert factors[0] > 0


def test_one_cycle_is_torchs() -> None:
    for rounds in (5, 30, 100):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=rounds)
        for number in range(1, rounds + 1):
            rate = optimizer.param_groups[0]["lr"]
            assert factor("one_cycle", number=number, rounds=rounds) == pytest.approx(rate)
            optimizer.step()
            if number < rounds:
                reference.step()


def test_cosine_restarts_three_times() -> None:
    factors = [factor("cosine_restarts", number=n, rounds=70) for n in range(1, 71)]
    assert [i for i, f in enumerate(factors) if f == 1.0] == [0, 10, 30]


def test_an_optimizer_goes_on_from_its_state() -> None:
    spec = ServerOptimizer(name="adamw", learning_rate=0.05)
    straight = choose_optimizer(spec, TRAINING, rounds=6)
    halved = choose_optimizer(spec, TRAINING, rounds=6)
    a, b = dict(BASE), dict(BASE)
    for number, gradient in enumerate(gradients(6), start=1):
        a = straight.step(a, {"w": gradient}, number=number)
        if number == 4:
            state, halved = halved.state(), choose_optimizer(spec, TRAINING, rounds=6)
            halved.restore(state)
        b = halved.step(b, {"w": gradient}, number=number)
    np.testing.assert_array_equal(a["w"], b["w"])


def test_tensors_that_move_later_are_corrected_for_their_own_steps() -> None:
    """Else a thawed backbone would start with a step that is far too small."""
    spec = ServerOptimizer(name="adamw", learning_rate=0.1)
    base = {"head": np.zeros(1, dtype=np.float32), "body": np.zeros(1, dtype=np.float32)}
    one = np.ones(1, dtype=np.float32)
    late = choose_optimizer(spec, TRAINING, rounds=50)
    for number in range(1, 30):
        late.step(base, {"head": one}, number=number)
    result = late.step(base, {"head": one, "body": one}, number=30)
    assert result["body"] == pytest.approx(0.1, rel=1e-3)


@given(decay=st.floats(0.1, 0.99), steps=st.integers(1, 20))
def test_an_average_lies_between_what_it_saw(decay: float, steps: int) -> None:
    average = WeightAverage(decay)
    seen = [{"w": g, "n": np.array(i)} for i, g in enumerate(gradients(steps))]
    for weights in seen:
        average.update(weights)
    result = average.weights(seen[-1])
    stacked = np.stack([weights["w"] for weights in seen])
    assert (result["w"] >= stacked.min(axis=0) - 1e-6).all()
    assert (result["w"] <= stacked.max(axis=0) + 1e-6).all()
    assert result["n"] == steps - 1
    assert result["w"].dtype == np.float32


def test_without_decay_the_average_is_the_newest_model() -> None:
    average = WeightAverage(0.0)
    average.update({"w": np.zeros(3, dtype=np.float32)})
    np.testing.assert_array_equal(average.weights(BASE)["w"], BASE["w"])
    assert average.state() == {}


def test_an_average_goes_on_from_its_state() -> None:
    straight, halved = WeightAverage(0.9), WeightAverage(0.9)
    for step, gradient in enumerate(gradients(6)):
        straight.update({"w": gradient})
        if step == 3:
            state, halved = halved.state(), WeightAverage(0.9)
            halved.restore(state)
        halved.update({"w": gradient})
    np.testing.assert_array_equal(straight.weights(BASE)["w"], halved.weights(BASE)["w"])
