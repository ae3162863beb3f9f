"""The part of an ultrasound picture that shows tissue."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.tissue_region import tissue_region
from tests.common.image_files import picture


def _ultrasound() -> NDArray[np.uint8]:
    """A bright sector with black margins, text in a corner, and a black shadow at the bottom."""
    grey = np.zeros((200, 300), np.uint8)
    grey[20:180, 50:250] = np.random.default_rng(3).integers(60, 180, (160, 200))
    grey[150:180, 50:250] = 5
    grey[4:9, 5:45:3] = 255
    return np.repeat(grey[..., None], 3, axis=2)


def test_margins_text_and_shadow_are_cropped() -> None:
    top, bottom, left, right = tissue_region(_ultrasound())
    assert max(abs(top - 20), abs(left - 50), abs(right - 250)) <= 4
    assert abs(bottom - 150) <= 6


def test_a_muscle_band_is_cropped() -> None:
    pixels = _ultrasound()
    pixels[135:150, 50:250] = 250
    assert tissue_region(pixels)[1] <= 140


@pytest.mark.parametrize("value", [0, 5])
def test_an_implausible_region_is_the_whole_frame(value: int) -> None:
    assert tissue_region(np.full((90, 120, 3), value, np.uint8)) == (0, 90, 0, 120)
    stamp = np.zeros((200, 200, 3), np.uint8)
    stamp[90:110, 90:110] = 200
    assert tissue_region(stamp) == (0, 200, 0, 200)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1), st.booleans())
def test_the_region_lies_in_the_frame(height: int, width: int, seed: int, dark: bool) -> None:
    pixels = picture(height, width, seed) // (20 if dark else 1)
    top, bottom, left, right = tissue_region(pixels.astype(np.uint8))
    assert 0 <= top < bottom <= height
    assert 0 <= left < right <= width
