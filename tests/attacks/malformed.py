"""Malformed plans and updates by the thousand: true ones, broken on the way or by who sent them."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from client.policy import SitePolicy
from common.errors import PlanRefused, PrivacyRefused, UpdateRefused
from common.plan import RoundPlan, SignedPlan, verify_plan
from common.records import SiteReply
from common.signing import VerifyKey
from common.update import ModelUpdate, tensors_digest
from common.wire import records_to_reply, records_to_request, reply_to_records, request_to_records
from server.rounds import update_checks
from server.rounds.update_checks import Expected, NormHistory
from tests.attacks.attack import Attack, Finding
from tests.attacks.breaking import (
    SHORT,
    SPOILT,
    Accepted,
    broken_records,
    tried,
    with_broken_bytes,
    with_broken_field,
)
from tests.attacks.hospital import BASE
from tests.client.rounds import KEY, TOY, make_plan, signed
from tests.fakes import TARGET, FakeSite, first_model
from tests.plans import make_plan as toy_plan

PLANS, UPDATES = 4000, 4000


def broken_plan(data: st.DataObject) -> None:
    """A request that was altered on the way, or that a coordinator itself has signed broken."""
    plan = make_plan(base=BASE)
    true = signed(plan)
    by = data.draw(st.sampled_from(["thief", "thief-bytes", "envelope", "coordinator"]))
    if by == "envelope":
        whole = request_to_records(true, {"w": np.ones(3, np.float32)})
        records = broken_records(data, whole)
    else:
        edited = with_broken_bytes if by == "thief-bytes" else with_broken_field
        payload = edited(data, true.payload)
        signature = KEY.sign(payload) if by == "coordinator" else true.signature
        sent = SignedPlan(payload, signature)
        records = request_to_records(sent, {"w": np.ones(3, np.float32)})
    policy = SitePolicy(allowed_recipes=("toy",), declared_patients=25, max_grad_norm=2.0)
    try:
        got, tensors = records_to_request(records)
        found = verify_plan(got, [KEY.verify_key], now=plan.issued_at)
        policy.check(found, own=TOY, now=plan.issued_at)
        if by == "coordinator" and _within_bounds(found):
            return  # another plan, that this coordinator may well ask
        if tensors_digest(tensors) != found.base_digest:
            raise PlanRefused("The base model is not the plan's.", code="plan-base-mismatch")
    except (PlanRefused, PrivacyRefused):
        return
    raise Accepted(f"plan by {by}")


def _within_bounds(plan: RoundPlan) -> bool:
    epsilon, training = plan.privacy.epsilon, plan.training
    return (
        1 <= plan.round <= plan.rounds
        and plan.issued_at < plan.expires_at
        and epsilon is not None
        and 0 < epsilon <= 1000
        and 1e-6 <= plan.privacy.max_grad_norm <= 1e6
        and 0 < training.sampling_rate <= 1
        and 0 < training.learning_rate < np.inf
        and 1 <= training.local_steps <= 10_000
    )


_PLAN = toy_plan()
_EXPECTED = Expected("north", _PLAN, {name: array.shape for name, array in TARGET.items()})
_HONEST = FakeSite("north").honest(_PLAN, first_model())


def broken_update(data: st.DataObject) -> None:
    """A reply that was altered, or that a site made up, receipt and all."""
    if data.draw(st.booleans()):
        records = broken_records(data, reply_to_records(_HONEST))
    else:
        records = reply_to_records(_made_up(data))
    try:
        reply = records_to_reply(records)
        receipt = update_checks.check_reply(reply, _EXPECTED)
        update_checks.check_update(reply.update, receipt, _EXPECTED, NormHistory())
    except UpdateRefused:
        return
    if not _is_sound(reply):
        raise Accepted("update")


def _is_sound(reply: SiteReply) -> bool:
    """Tell whether an edit left the honest update as it was, and a receipt that could be true.

    A site may well say another number of seconds or patients: that is no malformed message. Nor is
    it one to state no epsilon for its life, as a site does that once trained without privacy.
    """
    assert reply.update is not None
    assert _HONEST.update is not None
    receipt = reply.receipt
    assert receipt is not None
    life = 0.0 if receipt.life_unbounded else receipt.epsilon_life
    numbers = (receipt.epsilon_campaign, life, receipt.delta, receipt.seconds)
    finite = all(n is not None and np.isfinite(n) and n >= 0 for n in numbers)
    return finite and reply.update.digest == _HONEST.update.digest and reply.site == "north"


def _made_up(data: st.DataObject) -> SiteReply:
    assert _HONEST.update is not None
    assert _HONEST.receipt is not None
    tensors = dict(_HONEST.update.tensors)
    binding = _HONEST.update.binding
    name = data.draw(st.sampled_from(sorted(tensors)))
    how = data.draw(st.sampled_from(["spoil", "drop", "add", "bind", "none"]))
    if how == "spoil":
        tensors[name] = data.draw(st.sampled_from(SPOILT))(tensors[name])
    elif how == "drop":
        del tensors[name]
    elif how == "add":
        tensors[f"{name}.{data.draw(st.text(max_size=4))}"] = tensors[name]
    elif how == "bind":
        binding = replace(binding, round=data.draw(st.integers(2, 9)))
    if how == "none":
        return replace(_HONEST, update=None, receipt=_receipt(None, binding.round))
    update = ModelUpdate(binding, tensors)
    return replace(_HONEST, update=update, receipt=_receipt(update.digest, binding.round))


def _receipt(digest: str | None, number: int) -> Any:
    assert _HONEST.receipt is not None
    return _HONEST.receipt.model_copy(update={"update_digest": digest, "round": number})


def _plans(count: int, _folder: Path) -> Finding:
    return tried(broken_plan, count)


def _updates(count: int, _folder: Path) -> Finding:
    return tried(broken_update, count)


def believe_any_signature(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(VerifyKey, "accepts", lambda *_: True)
    patch.setattr(sys.modules[__name__], "tensors_digest", lambda _: _Anything("any"))


class _Anything(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __ne__(self, _other: object) -> bool:
        return False


def check_no_update(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(update_checks, "check_reply", lambda reply, _expected: reply.receipt)
    patch.setattr(update_checks, "check_update", lambda *_: 0.0)


ATTACKS = (
    Attack(
        "malformed-plans",
        "network thief",
        "broken plans by the thousand",
        "limits, signature, schema, policy",
        partial(_plans, SHORT),
        believe_any_signature,
        partial(_plans, PLANS),
    ),
    Attack(
        "malformed-updates",
        "poisoned neighbour",
        "broken updates by the thousand",
        "wire format and update checks",
        partial(_updates, SHORT),
        check_no_update,
        partial(_updates, UPDATES),
    ),
)
