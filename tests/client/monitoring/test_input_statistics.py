"""The figures of an image say how it was taken, cheaply, and the same each time."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from client.monitoring.answer_statistics import INPUTS, PROJECTIONS, answer_statistics, projection
from client.monitoring.input_statistics import DIGITS, IMAGE_STATISTICS, image_statistics

Pixels = NDArray[np.uint8]


def picture(side: int = 224, seed: int = 0) -> Pixels:
    generator = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(generator.normal(0, 1, (side, side, 3)), (4, 4, 0))
    return np.clip(120 + 300 * smooth + generator.normal(0, 4, smooth.shape), 1, 255).astype("u1")


def figures(pixels: Pixels) -> dict[str, float]:
    return dict(zip(IMAGE_STATISTICS, image_statistics(pixels), strict=True))


def test_each_change_of_a_device_moves_its_own_figure() -> None:
    base = picture()
    plain = figures(base)
    blurred = ndimage.gaussian_filter(base, (2, 2, 0))
    noise = np.random.default_rng(1).normal(0, 12, base.shape)
    noisy = np.clip(base + noise, 1, 255).astype("u1")
    cast = base.copy()
    cast[..., 2] //= 2
    shade = np.ones((224, 224, 1))
    shade[:28], shade[-28:], shade[:, :28], shade[:, -28:] = 0.4, 0.4, 0.4, 0.4
    assert figures(blurred)["sharpness"] < plain["sharpness"] - 0.5
    assert figures(blurred)["grain"] < 0.5 * plain["grain"]
    assert figures(noisy)["grain"] > 1.8 * plain["grain"]
    assert figures(cast)["colour"] > plain["colour"] + 0.05
    assert figures(cast)["blue-mean"] == pytest.approx(plain["blue-mean"] / 2, abs=0.02)
    assert figures((base * shade).astype("u1"))["border-darkness"] > 0.2
    assert figures(np.maximum(base, 251))["bright-share"] == 1.0
    assert figures((base // 3).astype("u1"))["green-deviation"] < plain["green-deviation"] / 2


def test_the_figures_of_known_pixels_are_theirs() -> None:
    half = np.zeros((64, 64, 3), np.uint8)
    half[...] = (51, 102, 204)
    found = figures(half)
    assert (found["red-mean"], found["green-mean"], found["blue-mean"]) == (0.2, 0.4, 0.8)
    assert found["colour"] == pytest.approx((51 + 102) / 2 / 255, abs=1e-6)
    assert found["sharpness"] == found["grain"] == found["entropy"] == found["red-deviation"] == 0


def test_black_bars_tell_the_shape_and_nothing_else() -> None:
    inner = picture(112)
    square = np.zeros((224, 224, 3), np.uint8)
    square[56:168] = np.hstack([inner, inner])
    padded, bare = figures(square), figures(np.ascontiguousarray(square[56:168]))
    assert padded.pop("aspect") == pytest.approx(np.log(2), abs=1e-6)
    bare.pop("aspect")
    assert padded == bare


@given(
    st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from(["black", "white", "dot", "any"])
)
def test_any_picture_has_finite_figures(side: int, seed: int, kind: str) -> None:
    generator = np.random.default_rng(seed)
    pixels = np.zeros((side, side, 3), np.uint8)
    if kind == "white":
        pixels[:] = 255
    elif kind == "dot":
        pixels[seed % side, (seed // 7) % side, seed % 3] = 1
    elif kind == "any":
        pixels = generator.integers(0, 256, pixels.shape, dtype=np.uint8)
    found = image_statistics(pixels)
    assert len(found) == INPUTS
    assert np.isfinite(found).all()
    assert all(figure == round(figure, DIGITS) for figure in found)
    assert found == image_statistics(pixels.copy())


def test_they_cost_next_to_nothing() -> None:
    """Of a quiet core 0.4 ms for 224 x 224; the bound leaves room for a busy machine."""
    pixels = picture()
    image_statistics(pixels)
    seconds = []
    for _ in range(40):
        begun = time.thread_time()
        image_statistics(pixels)
        seconds.append(time.thread_time() - begun)
    assert min(seconds) < 0.002


def test_an_answer_keeps_figures_projections_and_probabilities() -> None:
    logits = np.array([0.0, np.log(3.0)])
    features = np.random.default_rng(0).normal(size=1280).astype(np.float32)
    found = answer_statistics(picture(), logits, features)
    assert len(found) == INPUTS + PROJECTIONS + 2
    assert found[:INPUTS] == image_statistics(picture())
    assert found[-2:] == (0.25, 0.75)


def test_projections_keep_distances_and_never_change() -> None:
    signs = projection(512)
    assert signs.shape == (512, PROJECTIONS)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert hashlib.sha256(signs.astype(np.int8).tobytes()).hexdigest() == GOLDEN
    ratios = []
    for seed in range(200):
        difference = np.random.default_rng(seed).normal(size=512)
        ratios.append(
            np.square(difference @ signs).sum() / PROJECTIONS / np.square(difference).sum()
        )
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)


GOLDEN = "4948f58be6054df0af02d70a1c3cbd85e1f22e4ddcaeff2597b84760686aa994"
"""Kept answers could not be compared with fresh ones if these ever changed."""
