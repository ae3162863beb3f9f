import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from common.errors import UpdateRefused
from common.plan import RoundPlan
from common.recipe import LocalTraining
from common.records import SiteReply
from common.update import ModelUpdate
from server.rounds.update_checks import (
    Expected,
    NormHistory,
    check_reply,
    check_update,
    private_norm_limit,
)
from tests.fakes import TARGET, FakeSite, first_model, make_receipt
from tests.plans import make_plan

SHAPES = {name: array.shape for name, array in TARGET.items()}
PLAN = make_plan()
OPEN_PLAN = make_plan(epsilon=None)


def expected(plan: RoundPlan = PLAN) -> Expected:
    return Expected("north", plan, SHAPES)


def reply(plan: RoundPlan = PLAN) -> SiteReply:
    return FakeSite("north").honest(plan, first_model())


def code(call: Callable[[], object]) -> str:
    with pytest.raises(UpdateRefused) as caught:
        call()
    return caught.value.code


def update_code(
    tensors: dict[str, np.ndarray], plan: RoundPlan = PLAN, history: NormHistory | None = None
) -> str:
    honest = reply(plan)
    assert honest.update is not None
    assert honest.receipt is not None
    update = replace(honest.update, tensors=tensors)
    receipt = honest.receipt
    return code(lambda: check_update(update, receipt, expected(plan), history or NormHistory()))


def test_an_honest_reply_passes() -> None:
    honest = reply()
    receipt = check_reply(honest, expected())
    assert honest.update is not None
    norm = check_update(honest.update, receipt, expected(), NormHistory())
    assert norm == pytest.approx(honest.update.norm)


@pytest.mark.parametrize(
    ("change", "expected_code"),
    [
        ({"campaign": "other"}, "reply-binding"),
        ({"round": 2}, "reply-binding"),
        ({"nonce": "cd" * 32}, "reply-binding"),
        ({"base_digest": "cd" * 32}, "reply-binding"),
        ({"public_patients": 0}, "reply-receipt"),
        ({"steps": 3}, "reply-receipt"),
        ({"privacy_unit": "none"}, "reply-receipt"),
        ({"epsilon_campaign": None}, "reply-receipt"),
        ({"epsilon_campaign": math.inf}, "reply-receipt"),
        ({"epsilon_campaign": math.nan}, "reply-receipt"),
        ({"epsilon_campaign": 8.1}, "reply-receipt"),
        ({"delta": None}, "reply-receipt"),
        ({"delta": 0.0}, "reply-receipt"),
        ({"delta": 0.5}, "reply-receipt"),
        ({"sampling_rate": 1e-9}, "reply-receipt"),
        ({"max_grad_norm": 1.1}, "reply-receipt"),
        ({"max_grad_norm": None}, "reply-receipt"),
        ({"noise_multiplier": 0.0}, "reply-receipt"),
        ({"noise_multiplier": 1e9}, "reply-receipt"),
        ({"noise_multiplier": None}, "reply-receipt"),
    ],
)
def test_a_receipt_that_is_false_or_for_another_request_is_refused(
    change: dict[str, object], expected_code: str
) -> None:
    honest = reply()
    assert honest.receipt is not None
    false = replace(honest, receipt=honest.receipt.model_copy(update=change))
    assert code(lambda: check_reply(false, expected())) == expected_code


def test_no_bound_over_a_sites_life_is_no_fault_of_the_campaigns_receipt() -> None:
    honest = reply()
    assert honest.receipt is not None
    told = honest.receipt.model_copy(update={"epsilon_life": None})
    assert check_reply(replace(honest, receipt=told), expected()) == told
    beyond = told.model_copy(update={"epsilon_campaign": 8.1})
    assert code(lambda: check_reply(replace(honest, receipt=beyond), expected())) == "reply-receipt"


def test_another_sites_name_is_refused() -> None:
    assert code(lambda: check_reply(FakeSite("south").honest(PLAN, {**first_model()}), expected()))


def test_other_classes_are_refused() -> None:
    honest = reply()
    assert honest.evaluation is not None
    other = honest.evaluation.model_copy(update={"classes": ("a", "b")})
    false = replace(honest, evaluation=other)
    assert code(lambda: check_reply(false, expected())) == "reply-evaluation"


def test_an_update_that_nobody_asked_for_is_refused() -> None:
    plan = make_plan(purpose="evaluate")
    honest = reply(PLAN)
    unasked = replace(honest, receipt=make_receipt("north", plan, honest.update))
    assert code(lambda: check_reply(unasked, expected(plan))) == "reply-receipt"


GOOD = {name: np.zeros(shape, dtype=np.float32) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("tensors", "expected_code"),
    [
        ({}, "update-names"),
        ({"head.weight": GOOD["head.weight"]}, "update-names"),
        ({**GOOD, "batches": np.array(1, dtype=np.float32)}, "update-names"),
        ({**GOOD, "head.bias": np.zeros((2, 1), dtype=np.float32)}, "update-shape"),
        ({**GOOD, "head.bias": np.array([0, np.nan], dtype=np.float32)}, "update-not-finite"),
        ({**GOOD, "head.bias": np.array([0, -np.inf], dtype=np.float32)}, "update-not-finite"),
        ({**GOOD, "head.bias": np.array([0, 3e38], dtype=np.float32)}, "update-norm"),
    ],
)
def test_an_update_unlike_the_model_is_refused(
    tensors: dict[str, np.ndarray], expected_code: str
) -> None:
    assert update_code(tensors) == expected_code


def test_a_missing_update_is_refused() -> None:
    receipt = make_receipt("north", PLAN, None)
    assert code(lambda: check_update(None, receipt, expected(), NormHistory())) == "update-missing"


def test_an_update_for_another_request_is_refused() -> None:
    honest = reply()
    assert honest.update is not None
    assert honest.receipt is not None
    stale = ModelUpdate(replace(honest.update.binding, nonce="cd" * 32), honest.update.tensors)
    receipt = honest.receipt
    assert code(lambda: check_update(stale, receipt, expected(), NormHistory())) == "update-binding"


def test_without_privacy_a_norm_a_thousand_times_the_median_is_refused() -> None:
    history = NormHistory()
    for norm in (1.0, 1.2, 0.8):
        history.add(norm)
    large = {**GOOD, "head.bias": np.array([0, 1001], dtype=np.float32)}
    assert update_code(large, OPEN_PLAN, history) == "update-norm"
    history.forget()
    assert history.limit() == math.inf


def test_a_refused_norm_does_not_move_the_median() -> None:
    history = NormHistory()
    for _ in range(3):
        history.add(1.0)
    for _ in range(20):
        large = {**GOOD, "head.bias": np.array([0, 5000], dtype=np.float32)}
        assert update_code(large, OPEN_PLAN, history) == "update-norm"
    assert history.limit() == pytest.approx(1000.0)


def test_norms_may_differ_between_rounds_as_those_of_random_weights_do() -> None:
    """Measured: efficientnet_b0 with random weights, one step a round, three sites alike."""
    history = NormHistory()
    for norm in (0.28, 0.28, 0.28):
        history.add(norm)
    honest = reply(OPEN_PLAN)
    assert honest.update is not None
    assert honest.receipt is not None
    tensors = {**GOOD, "head.bias": np.array([0, 28.2], dtype=np.float32)}
    update = replace(honest.update, tensors=tensors)
    norm = check_update(update, honest.receipt, expected(OPEN_PLAN), history)
    assert norm == pytest.approx(28.2, rel=1e-2)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("patients", "sigma"), [(200, 1.0), (3000, 0.7), (50, 4.0)])
def test_an_honest_private_update_is_within_its_bound(
    optimizer: str, patients: int, sigma: float
) -> None:
    """DP-SGD simulated from its definition, every clipped gradient pulling the same way."""
    generator = np.random.default_rng(1)
    size, rate, clip, steps = 20_000, 0.05, 1.0, 15
    training = LocalTraining.model_validate(
        {"optimizer": optimizer, "learning_rate": 0.1, "local_steps": steps, "sampling_rate": rate}
    )
    receipt = make_receipt("north", PLAN, None, patients=patients).model_copy(
        update={"steps": steps, "noise_multiplier": sigma, "sampling_rate": rate}
    )
    direction = generator.normal(size=size)
    direction *= clip / np.linalg.norm(direction)
    weights, m, v = np.zeros(size), np.zeros(size), np.zeros(size)
    for step in range(1, steps + 1):
        sampled = generator.binomial(patients, rate)
        noise = generator.normal(scale=sigma * clip, size=size)
        gradient = (sampled * direction + noise) / (rate * patients)
        if optimizer == "sgd":
            weights -= 0.1 * gradient
        else:
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            scale = np.sqrt(v / (1 - 0.999**step)) + 1e-8
            weights -= 0.1 * (m / (1 - 0.9**step)) / scale
    norm = float(np.linalg.norm(weights))
    limit = private_norm_limit(receipt, training, size)
    assert norm < limit
    assert limit < 60 * norm, "a bound that refuses nothing is none"
