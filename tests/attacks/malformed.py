"""Malformed plans, updates and outbox messages by the thousand (Hypothesis).

Each begins as a true message and is then broken: bytes flipped, cut or doubled, JSON fields set to
what they must not hold, tensors of NaN, wrong types and huge shapes. Three things must never
happen: an exception outside the error tree, one of the wrong branch, and acceptance.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client import outbox, outbox_checks
from client.policy import SitePolicy
from common.errors import PlanRefused, PrivacyRefused, UpdateRefused
from common.evaluation import SiteEvaluation
from common.plan import RoundPlan, SignedPlan, verify_plan
from common.records import Refusal, SiteReply
from common.signing import VerifyKey
from common.update import ModelUpdate, tensors_digest
from common.wire import records_to_reply, records_to_request, reply_to_records, request_to_records
from server.rounds import update_checks
from server.rounds.update_checks import Expected, NormHistory
from tests.attacks.attack import Attack, Finding
from tests.attacks.hospital import BASE, Hospital
from tests.client.rounds import KEY, TOY, make_plan, signed
from tests.fakes import TARGET, FakeSite, first_model
from tests.plans import make_plan as toy_plan

PLANS, UPDATES, MESSAGES = 4000, 4000, 3000
SHORT = 400


class Accepted(Exception):
    """What was broken was taken in all the same."""


# How a message is broken.

DEEP = "[" * 3000 + "]" * 3000
VALUES = st.sampled_from(
    [
        *("-1", "0", "1e999", "-1e999", "NaN", "Infinity", "1e308", "9" * 400, "-0.0"),
        *("null", "true", '""', "[]", "{}", '"\\u0000"', '"\\ud800"', '"../../x"', DEEP),
        f'"{"A" * 5000}"',
    ]
)
"""Raw JSON, so that numbers can be put there that no serialiser writes."""


def _edited(data: st.DataObject, document: bytes) -> bytes:
    """Set one field of a JSON document, at any depth, to what it must not hold; or add one."""
    tree = json.loads(document)
    node, path = tree, []
    while True:
        if data.draw(st.booleans()) and data.draw(st.booleans()):
            key: Any = "surprise" if isinstance(node, dict) else 0
            break
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys)) if keys else "surprise"
        child = node[key] if keys else None
        if not isinstance(child, dict | list) or not child or data.draw(st.booleans()):
            break
        path.append(key)
        node = child
    marker = "@@marker@@"
    if isinstance(node, dict):
        node[key] = marker
    elif node:
        node[0 if key == "surprise" else key] = marker
    else:
        node.append(marker)
    return json.dumps(tree).replace(f'"{marker}"', data.draw(VALUES), 1).encode()


def _bytes(data: st.DataObject, whole: bytes) -> bytes:
    """Flip, cut, repeat or insert bytes; never returns what it was given."""
    at = data.draw(st.integers(0, len(whole) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "repeat", "insert", "empty"]))
    if how == "flip":
        flip = data.draw(st.integers(1, 255))
        return whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
    if how == "insert":
        return whole[:at] + data.draw(st.binary(min_size=1, max_size=40)) + whole[at:]
    return {"cut": whole[:at], "repeat": whole + whole[at:], "empty": b""}[how]


def _records(data: st.DataObject, records: RecordDict) -> RecordDict:
    """Break the envelope, the header or the tensors."""
    header = records["wardround.header"]["json"]
    assert isinstance(header, bytes)
    blob = records["wardround.tensors"]["safetensors"].data
    kind = data.draw(st.sampled_from(["edit", "header", "blob", "shape", "envelope"]))
    stype, dtype = "safetensors", "uint8"
    if kind == "edit":
        header = _edited(data, header)
    elif kind == "header":
        header = _bytes(data, header)
    elif kind == "blob":
        blob = _bytes(data, blob)
    elif kind == "shape":
        blob = _reshaped(data, blob)
    else:
        return _enveloped(data, records)
    tensors = ArrayRecord({"safetensors": Array(dtype, (len(blob),), stype, blob)})
    broken = ConfigRecord({"json": header})
    return RecordDict({"wardround.header": broken, "wardround.tensors": tensors})


def _reshaped(data: st.DataObject, blob: bytes) -> bytes:
    """Claim another shape, type or place for a tensor in the blob's own header."""
    (length,) = struct.unpack("<Q", blob[:8])
    inner = _edited(data, blob[8 : 8 + length])
    claimed = data.draw(st.sampled_from([len(inner), 0, 2**40, 2**63]))
    return struct.pack("<Q", claimed) + inner + blob[8 + length :]


def _enveloped(data: st.DataObject, records: RecordDict) -> RecordDict:
    how = data.draw(st.integers(0, 4))
    broken = RecordDict(dict(records))
    if how == 0:
        del broken["wardround.header"]
    elif how == 1:
        del broken["wardround.tensors"]
    elif how == 2:
        broken["wardround.header"] = ConfigRecord({"json": data.draw(st.text(max_size=5))})
    elif how == 3:
        broken["wardround.tensors"] = ConfigRecord({"safetensors": b"x"})
    else:
        array = Array("uint8", (1,), "numpy.ndarray", b"\x80\x04.")  # a pickle
        broken["wardround.tensors"] = ArrayRecord({"safetensors": array})
    return broken


# Plans.


def broken_plan(data: st.DataObject) -> None:
    """A request that was altered on the way, or that a coordinator itself has signed broken."""
    plan = make_plan(base=BASE)
    true = signed(plan)
    by = data.draw(st.sampled_from(["thief", "thief-bytes", "envelope", "coordinator"]))
    if by == "envelope":
        whole = request_to_records(true, {"w": np.ones(3, np.float32)})
        records = _records(data, whole)
    else:
        edited = _bytes if by == "thief-bytes" else _edited
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
        and 0 < plan.privacy.max_grad_norm <= 1e6
        and 0 < training.sampling_rate <= 1
        and 0 < training.learning_rate < np.inf
        and 1 <= training.local_steps <= 10_000
    )


def _run(test: Callable[[st.DataObject], None], count: int) -> Finding:
    quiet = settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=count == SHORT,
        suppress_health_check=list(HealthCheck),
    )
    seen = 0

    @quiet
    @given(data=st.data())
    def each(data: st.DataObject) -> None:
        nonlocal seen
        seen += 1
        test(data)

    try:
        each()
    except Exception as error:  # Accepted, or whatever should not have come out
        what = str(error) if isinstance(error, Accepted) else f"{type(error).__name__}: {error}"
        return Finding(True, f"after {seen}: {what[:200]}", f"{seen:,} inputs")
    return Finding(False, "none taken in, no exception but a refusal", f"{seen:,} inputs")


# Updates.

_PLAN = toy_plan()
_EXPECTED = Expected("north", _PLAN, {name: array.shape for name, array in TARGET.items()})
_HONEST = FakeSite("north").honest(_PLAN, first_model())


def broken_update(data: st.DataObject) -> None:
    """A reply that was altered, or that a site made up, receipt and all."""
    if data.draw(st.booleans()):
        records = _records(data, reply_to_records(_HONEST))
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

    A site may well say another number of seconds or patients: that is no malformed message.
    """
    assert reply.update is not None
    assert _HONEST.update is not None
    receipt = reply.receipt
    assert receipt is not None
    numbers = (receipt.epsilon_campaign, receipt.epsilon_life, receipt.delta, receipt.seconds)
    finite = all(n is not None and np.isfinite(n) and n >= 0 for n in numbers)
    return finite and reply.update.digest == _HONEST.update.digest and reply.site == "north"


_SPOILT: tuple[Callable[[Any], Any], ...] = (
    lambda a: np.full_like(a, np.nan),
    lambda a: np.full_like(a, np.inf),
    lambda a: np.full_like(a, 3e38),
    lambda a: a.astype(np.float64),
    lambda a: a.astype(np.int64),
    lambda a: a[..., None],
    lambda a: a.reshape(-1)[:-1],
    lambda a: np.zeros((0,), np.float32),
    lambda a: a * np.float32(1e6),
)


def _made_up(data: st.DataObject) -> SiteReply:
    assert _HONEST.update is not None
    assert _HONEST.receipt is not None
    tensors = dict(_HONEST.update.tensors)
    binding = _HONEST.update.binding
    name = data.draw(st.sampled_from(sorted(tensors)))
    how = data.draw(st.sampled_from(["spoil", "drop", "add", "bind", "none"]))
    if how == "spoil":
        tensors[name] = data.draw(st.sampled_from(_SPOILT))(tensors[name])
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


# The outbox.


@dataclass(frozen=True)
class _Leaving:
    reply: SiteReply
    grounds: outbox_checks.Grounds


def _leaving(folder: Path) -> _Leaving:
    """An honest reply of a real round, and what the outbox judges it by."""
    caught: list[_Leaving] = []
    check = outbox.check_reply

    def catch(reply: SiteReply, grounds: outbox_checks.Grounds) -> None:
        caught.append(_Leaving(reply, grounds))
        check(reply, grounds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "check_reply", catch)
        assert Hospital.build(folder).ask(make_plan(base=BASE)).update is not None
    return caught[0]


_FIGURES = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.integers(-(10**30), 10**30), st.none()
)


def broken_message(honest: _Leaving, data: st.DataObject) -> None:
    """What the site's own code might hand to the outbox by a mistake, or by malice."""
    reply = _spoilt_reply(data, honest)
    try:
        outbox_checks.check_reply(reply, honest.grounds)
    except PrivacyRefused:
        return
    told, true = reply.receipt, honest.reply.receipt
    assert told is not None
    assert true is not None
    # More epsilon than was spent, or other rounded seconds, tell nobody anything.
    free = {"epsilon_campaign": 0, "epsilon_life": 0, "seconds": 0}
    changed = {
        n for n in free.keys() ^ type(true).model_fields if getattr(told, n) != getattr(true, n)
    }
    others = (reply.refusal, reply.update, reply.evaluation)
    if changed or others != (None, honest.reply.update, honest.reply.evaluation):
        raise Accepted(f"outbox message with another {', '.join(sorted(changed)) or 'part'}")
    for name in ("epsilon_campaign", "epsilon_life"):
        if not getattr(told, name) >= getattr(true, name) * (1 - 1e-6):
            raise Accepted("outbox message that tells less than was spent")


def _spoilt_reply(data: st.DataObject, honest: _Leaving) -> SiteReply:
    reply = honest.reply
    assert reply.update is not None
    assert reply.receipt is not None
    how = data.draw(st.sampled_from(["tensor", "receipt", "evaluation", "refusal", "part"]))
    if how == "tensor":
        name = data.draw(st.sampled_from(sorted(reply.update.tensors)))
        spoil = data.draw(st.sampled_from(_SPOILT[:-1]))
        tensors = {**reply.update.tensors, name: spoil(reply.update.tensors[name])}
        if data.draw(st.booleans()):
            tensors = {n: a for n, a in reply.update.tensors.items() if n != name}
        digest = {} if data.draw(st.booleans()) else {"update_digest": "0" * 64}
        if np.isinf(tensors.get(name, np.zeros(1))).any() or name not in tensors or digest:
            digest = {"update_digest": "1" * 64}
        receipt = reply.receipt.model_copy(update=digest)
        return replace(reply, update=ModelUpdate(reply.update.binding, tensors), receipt=receipt)
    if how == "receipt":
        field = data.draw(st.sampled_from(sorted(type(reply.receipt).model_fields)))
        old = getattr(reply.receipt, field)
        new: Any = data.draw(st.text(max_size=20)) if isinstance(old, str) else data.draw(_FIGURES)
        return replace(reply, receipt=reply.receipt.model_copy(update={field: new}))
    if how == "evaluation":
        return replace(reply, evaluation=_spoilt_evaluation(data, reply.evaluation))
    if how == "refusal":
        return replace(reply, refusal=Refusal.model_construct(code=data.draw(st.text(max_size=60))))
    gone = data.draw(st.sampled_from(["update", "receipt"]))
    return replace(reply, **{gone: None})  # type: ignore[arg-type]


def _spoilt_evaluation(data: st.DataObject, honest: SiteEvaluation | None) -> SiteEvaluation:
    assert honest is not None
    change = data.draw(
        st.sampled_from(
            [
                {"classes": ("Jane Doe", "bright")},
                {"minimum_cell": 1},
                {"confusion": ((1, 0), (0, 1))},
                {"unresolved": (1, 1)},
            ]
        )
    )
    return honest.model_copy(update=change)


def _plans(count: int, _folder: Path) -> Finding:
    return _run(broken_plan, count)


def _updates(count: int, _folder: Path) -> Finding:
    return _run(broken_update, count)


def _messages(count: int, folder: Path) -> Finding:
    return _run(partial(broken_message, _leaving(folder)), count)


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


def hold_nothing_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outbox_checks, "_hold", lambda _kept, _rule: None)


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
    Attack(
        "malformed-outbox-messages",
        "curious coordinator",
        "broken replies by the thousand",
        "the outbox's own rules",
        partial(_messages, SHORT),
        hold_nothing_back,
        partial(_messages, MESSAGES),
    ),
)
