import pytest
from pydantic import ValidationError

from common.records import Receipt, Refusal
from tests.fakes import make_receipt
from tests.plans import make_plan

RECEIPT = make_receipt("north", make_plan(), None)


def test_a_receipt_survives_json() -> None:
    assert Receipt.model_validate_json(RECEIPT.model_dump_json()) == RECEIPT


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon_campaign": -1.0},
        {"epsilon_life": float("nan")},
        {"noise_multiplier": float("inf")},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.5},
        {"steps": -1},
        {"public_patients": -1},
        {"public_patients": 10**400},
        {"steps": 10**400},
        {"privacy_unit": "image"},
        {"site": "North Hospital"},
        {"nonce": "x"},
        {"note": "patient 17 was hard"},
    ],
)
def test_a_receipt_out_of_bounds_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Receipt.model_validate(RECEIPT.model_dump() | changes)


@pytest.mark.parametrize("code", ["", "Budget", "no such file /data/jane", "a" * 64, "-x"])
def test_a_refusal_has_no_room_for_text(code: str) -> None:
    with pytest.raises(ValidationError):
        Refusal(code=code)
