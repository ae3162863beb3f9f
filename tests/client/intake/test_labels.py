"""Labels as people write them, and the classes that they mean."""

from __future__ import annotations

import pytest

from client.intake.labels import LabelReader
from common.errors import CaseRefused, InputRefused
from common.recipe import load_recipe
from tests.client.intake.sources import RECIPE


def test_labels_are_read_exactly_then_without_case_then_by_alias() -> None:
    reader = LabelReader(RECIPE, {"Melanoma in situ": "mel"}, ("nv", "mel"))
    assert reader.read("nv") == reader.read(" NV ") == reader.read("0") == "nv"
    assert reader.read("melanoma IN SITU") == reader.read("1") == "mel"
    for label, code in (
        ("2", "label-unknown"),
        ("9" * 5000, "label-unknown"),
        ("", "label-missing"),
    ):
        with pytest.raises(CaseRefused) as caught:
            reader.read(label)
        assert caught.value.code == code


def test_optional_classes_are_left_out_and_told_apart() -> None:
    reader = LabelReader(load_recipe("breast-ultrasound"), {"healthy": "normal"}, ())
    for label in ("normal", "healthy"):
        with pytest.raises(CaseRefused) as caught:
            reader.read(label)
        assert caught.value.code == "label-optional"


def test_aliases_must_lead_to_classes() -> None:
    for aliases, order in (({"x": "naevus"}, ()), ({}, ("nv", "naevus"))):
        with pytest.raises(InputRefused) as caught:
            LabelReader(RECIPE, aliases, order)
        assert caught.value.code == "label-alias"
