from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.errors import PlanRefused
from common.plan import CLOCK_SKEW_SECONDS, MAXIMUM_PLAN_BYTES, SignedPlan, sign_plan, verify_plan
from common.signing import SigningKey
from tests.plans import ISSUED, make_plan

KEY = SigningKey.generate()
SIGNED = sign_plan(make_plan(), KEY)


def refusal(signed: SignedPlan, *, now: float = ISSUED + 1, key: SigningKey = KEY) -> str:
    with pytest.raises(PlanRefused) as caught:
        verify_plan(signed, [key.verify_key], now=now)
    return caught.value.code


def test_a_signed_plan_is_read() -> None:
    keys = [SigningKey.generate().verify_key, KEY.verify_key]
    assert verify_plan(SIGNED, keys, now=ISSUED + 1) == make_plan()


def test_a_strangers_signature_is_refused() -> None:
    assert refusal(SIGNED, key=SigningKey.generate()) == "plan-signature"
    with pytest.raises(PlanRefused):
        verify_plan(SIGNED, [], now=ISSUED + 1)


@given(position=st.integers(0, len(SIGNED.payload) - 1), flip=st.integers(1, 255))
def test_any_changed_byte_is_refused(position: int, flip: int) -> None:
    payload = bytearray(SIGNED.payload)
    payload[position] ^= flip
    assert refusal(replace(SIGNED, payload=bytes(payload))) == "plan-signature"


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (ISSUED + 600, "plan-expired"),
        (ISSUED + 10_000, "plan-expired"),
        (ISSUED - CLOCK_SKEW_SECONDS - 1, "plan-not-yet-valid"),
    ],
)
def test_a_plan_has_its_time(now: float, code: str) -> None:
    assert refusal(SIGNED, now=now) == code


def test_clocks_may_differ_a_little() -> None:
    assert verify_plan(SIGNED, [KEY.verify_key], now=ISSUED - CLOCK_SKEW_SECONDS + 1)


def test_a_huge_plan_is_refused_before_its_signature_is_checked() -> None:
    payload = b" " * (MAXIMUM_PLAN_BYTES + 1)
    assert refusal(SignedPlan(payload, KEY.sign(payload))) == "plan-too-large"


@given(payload=st.one_of(st.binary(max_size=50), st.text(max_size=50).map(str.encode)))
def test_even_a_signed_plan_must_keep_to_the_schema(payload: bytes) -> None:
    assert refusal(SignedPlan(payload, KEY.sign(payload))) == "plan-malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 4},
        {"round": 0},
        {"expires_at": ISSUED},
        {"nonce": "short"},
        {"campaign": "../escape"},
        {"purpose": "exfiltrate"},
        {"version": 2},
        {"trainable": "everything"},
        {"surprise": 1},
        {"privacy": {"epsilon": -1.0, "max_grad_norm": 1.0}},
        {"privacy": {"epsilon": float("inf"), "max_grad_norm": 1.0}},
        {"privacy": {"epsilon": 8.0, "max_grad_norm": 1e-7}},
    ],
)
def test_a_plan_out_of_bounds_cannot_be_made(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        make_plan(**changes)  # type: ignore[arg-type]
