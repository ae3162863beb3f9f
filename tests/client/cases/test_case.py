"""What is kept of a patient's age and sex."""

from __future__ import annotations

import pytest

from client.cases.case import age_band, normal_sex


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (45, "40-49"), (45.9, "40-49"), ("45.0", "40-49"), ("045Y", "40-49"), ("0", "0-9"),
        ("007M", "0-9"), ("130M", "10-19"), ("012W", "0-9"), (89, "80-89"), (90, "90+"),
        (130, "90+"), (131, None), (-3, None), ("", None), (None, None), ("nan", None),
        ("unknown", None), ("1954-11-07", None), (float("nan"), None),
    ],
)  # fmt: skip
def test_ages_become_bands(age: float | str | None, band: str | None) -> None:
    assert age_band(age) == band


@pytest.mark.parametrize(
    ("sex", "normal"),
    [("F", "female"), ("female", "female"), (" Male ", "male"), ("O", "other"), ("unknown", None),
     ("", None), (None, None), ("Jane Doe", None)],
)  # fmt: skip
def test_sexes_are_normalised(sex: str | None, normal: str | None) -> None:
    assert normal_sex(sex) == normal
