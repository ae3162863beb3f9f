"""Drift is told where it is there, and chance is not taken for it."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from client.cases.case import Case
from client.drift import FEWEST, drift_level
from common.recipe import load_recipe

SINCE = datetime(2026, 3, 1, tzinfo=UTC)
SPEC = load_recipe("dermoscopy").with_changes(model="test_resnet", image_size=32).image


def hospital(old: int, new: int) -> list[Case]:
    """So many patients from before and after, half of each malignant."""
    return [
        Case(
            id=f"{i:032x}", task="toy", patient=f"{i:064x}", digest=f"{i:064x}",
            label=("benign", "malignant")[i % 2], status="confirmed", split="train",
            age_band=None, sex=None, created_at=SINCE,
            confirmed_at=SINCE + timedelta(days=-1 if i < old else 1),
        )
        for i in range(old + new)
    ]  # fmt: skip


def image(case: Case, brightness: float) -> bytes:
    generator = np.random.default_rng(int(case.id, 16))
    level = generator.normal(brightness, 20)
    pixels = np.clip(generator.normal(level, 15, size=(40, 40, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def level(cases: list[Case], after: float) -> int | None:
    def read(case: Case) -> bytes:
        assert case.confirmed_at is not None
        return image(case, after if case.confirmed_at > SINCE else 120.0)

    return drift_level(cases, read, since=SINCE, spec=SPEC)


def test_another_camera_is_noticed_and_the_same_one_is_not() -> None:
    cases = hospital(80, 80)
    assert level(cases, 120.0) == 0
    assert level(cases, 170.0) == 2


def test_another_mix_of_labels_is_noticed() -> None:
    from dataclasses import replace

    cases = hospital(80, 80)
    changed = [replace(c, label="benign") if i >= 80 else c for i, c in enumerate(cases)]
    assert level(changed, 120.0) == 2


@pytest.mark.parametrize(("old", "new"), [(FEWEST - 1, 80), (80, FEWEST - 1), (0, 200)])
def test_of_few_patients_nothing_is_told(old: int, new: int) -> None:
    assert level(hospital(old, new), 200.0) is None


def test_images_that_cannot_be_read_are_no_drift() -> None:
    assert drift_level(hospital(80, 80), lambda _: b"no image", since=SINCE, spec=SPEC) is None


def test_what_the_network_does_not_see_is_no_drift() -> None:
    """Newer images come twice as large, and are scaled to the same size as ever."""
    cases = hospital(80, 80)

    def read(case: Case) -> bytes:
        flat = Image.new("L", (40, 40), 60 + int(case.id, 16) % 80)
        assert case.confirmed_at is not None
        file = io.BytesIO()
        (flat.resize((80, 80)) if case.confirmed_at > SINCE else flat).save(file, "PNG")
        return file.getvalue()

    assert drift_level(cases, read, since=SINCE, spec=SPEC) == 0


def test_chance_is_rarely_taken_for_drift() -> None:
    generator = np.random.default_rng(0)
    raised = 0
    for _ in range(12):
        cases = hospital(60, 60)
        shades = generator.normal(120, 25, size=len(cases))

        def read(case: Case, shades: np.ndarray = shades) -> bytes:
            return image(case, float(shades[int(case.id, 16)]))

        raised += drift_level(cases, read, since=SINCE, spec=SPEC) != 0
    assert raised == 0  # 0.012 expected
