"""What the policy and the outbox say of compressed updates."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from client.outbox_checks import Grounds, _check_packed
from client.policy import SitePolicy
from common.compression import Compression, Packed, compress
from common.errors import PlanRefused, PrivacyRefused
from common.plan import RoundPlan
from common.update import ModelUpdate, UpdateBinding
from tests.plans import make_plan


def plan_with(kind: Compression) -> RoundPlan:
    plan = make_plan(base={})
    spec = plan.recipe.federation.model_copy(update={"compression": kind})
    return plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"federation": spec})})


def grounds(kind: Compression) -> Grounds:
    return cast(Grounds, SimpleNamespace(plan=plan_with(kind), trainable={"w": (9,)}))


def packed_update(kind: Compression) -> ModelUpdate:
    delta = {"w": np.random.default_rng(0).normal(size=9).astype(np.float32)}
    found = compress(delta, kind, seed=b"s", fraction=0.5)
    return ModelUpdate(UpdateBinding("c", 1, "0" * 64, "0" * 64), found.decoded, found.packed)


@pytest.mark.parametrize("kind", ["fp16", "int8", "top-k"])
def test_what_the_plan_asks_for_passes(kind: Compression) -> None:
    _check_packed(packed_update(kind), grounds(kind))
    _check_packed(replace(packed_update(kind), packed=None), grounds(kind))


def test_bytes_that_say_something_else_do_not_leave() -> None:
    update = packed_update("int8")
    assert update.packed is not None
    other = {**update.packed.arrays, "values/w": np.zeros(9, dtype=np.int8)}
    extra = {**update.packed.arrays, "values/patients": np.zeros(9, dtype=np.int8)}
    for arrays in (other, extra, {}):
        with pytest.raises(PrivacyRefused):
            _check_packed(replace(update, packed=Packed("int8", arrays)), grounds("int8"))
    with pytest.raises(PrivacyRefused):
        _check_packed(update, grounds("fp16"))


def test_a_policy_may_refuse_a_form() -> None:
    policy = SitePolicy(
        allowed_recipes=("toy",), allowed_compression=("none", "fp16"), declared_patients=100
    )
    policy._check_training(plan_with("fp16"))
    with pytest.raises(PlanRefused) as refused:
        policy._check_training(plan_with("int8"))
    assert refused.value.code == "compression-not-allowed"
