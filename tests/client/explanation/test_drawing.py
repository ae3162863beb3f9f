"""Where heat lands on the picture, in which colours, and in which words."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from client.explanation.drawing import LONGEST, SHORTEST, VIRIDIS, colours, draw, png
from client.explanation.methods import Heat
from client.explanation.words import MARGIN, region_shares, sentence
from common.imaging import Placement, decode, placement, prepare
from common.recipe import ImageSpec

FULL = ImageSpec(size=64)


def one_spot(row: int, column: int, side: int = 64) -> Heat:
    heat = np.zeros((side, side), np.float32)
    heat[row : row + 6, column : column + 6] = 1
    return heat


def test_placement_is_what_prepare_does() -> None:
    """A white dot in the picture is found where the placement says."""
    for height, width in ((40, 120), (120, 40), (50, 50), (301, 97)):
        pixels = np.zeros((height, width, 3), np.uint8)
        row, column = height // 3, width // 4
        pixels[row : row + 8, column : column + 8] = 255
        prepared = prepare(pixels, FULL)[..., 0].astype(float)
        rows, columns = np.mgrid[: FULL.size, : FULL.size]
        seen = (prepared * rows).sum() / prepared.sum(), (prepared * columns).sum() / prepared.sum()
        where = placement(pixels, FULL)
        top, bottom, left, right = where.inner
        expected = (
            top + (row + 3.5) / height * (bottom - top),
            left + (column + 3.5) / width * (right - left),
        )
        assert seen == pytest.approx(expected, abs=1.0)


def test_the_region_of_tissue_is_where_it_was_cut_from() -> None:
    dice = np.random.default_rng(0)
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[30:190, 60:260] = dice.integers(60, 200, (160, 200, 1))
    spec = ImageSpec(size=64, region="tissue")
    where = placement(pixels, spec)
    top, _, left, right = where.region
    assert (top, left) == (pytest.approx(30, abs=6), pytest.approx(60, abs=6))
    assert right == pytest.approx(260, abs=6)
    heat = np.ones((64, 64), np.float32)
    drawn = draw(np.full_like(pixels, 100), heat, where)
    scale = drawn.shape[1] / 300
    inside = drawn[int((top + 9) * scale), int((left + 9) * scale)]
    outside = drawn[2, 2]
    assert tuple(outside) == (50, 50, 50)  # dimmed
    assert inside.tolist() != [100, 100, 100]


@pytest.mark.parametrize("size", [(1500, 900), (40, 30), (400, 400)])
def test_heat_lands_where_the_network_saw_it(size: tuple[int, int]) -> None:
    width, height = size
    pixels = np.full((height, width, 3), 100, np.uint8)
    where = placement(pixels, FULL)
    top, _, left, _ = where.inner
    drawn = draw(pixels, one_spot(top + 4, left + 4), where).astype(int)
    assert SHORTEST <= max(drawn.shape[:2]) <= LONGEST
    assert drawn.shape[1] / drawn.shape[0] == pytest.approx(width / height, rel=0.01)
    changed = np.abs(drawn - 100).sum(axis=2) > 0
    rows, columns = np.nonzero(changed)
    assert rows.mean() < drawn.shape[0] / 2
    assert columns.mean() < drawn.shape[1] / 2
    assert not changed[-1, -1]


def test_colours_can_be_told_apart_by_brightness_alone() -> None:
    ramp = colours(np.linspace(0, 1, 256, dtype=np.float32))
    linear = (ramp / 255) ** 2.2
    brightness = linear @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(brightness) > 0).all()
    # For the red-blind and the green-blind (Vienot 1999), blue against yellow is what is left.
    seen_by_few = 0.5 * linear[:, 0] + 0.5 * linear[:, 1] - linear[:, 2]
    assert seen_by_few[-1] - seen_by_few[0] > 0.7
    assert (ramp[0], ramp[-1]) == (pytest.approx(VIRIDIS[0]), pytest.approx(VIRIDIS[-1]))


def test_without_heat_the_picture_is_as_it_was() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    none = np.zeros((64, 64), np.float32)
    where = placement(pixels, FULL)
    file = png(draw(pixels, none, where))
    np.testing.assert_array_equal(decode(file), pixels)
    assert not Image.open(io.BytesIO(file)).info
    shares = region_shares(none, where)
    assert shares == ()
    assert sentence(shares, "mel") == "Nothing in this picture was found to speak for mel."


@pytest.mark.parametrize(
    ("row", "column", "name"),
    [
        (2, 2, "upper left"),
        (2, 56, "upper right"),
        (30, 30, "centre"),
        (30, 2, "middle left"),
        (56, 30, "lower middle"),
    ],
)
def test_words_name_the_region(row: int, column: int, name: str) -> None:
    whole = Placement((0, 64, 0, 64), (0, 64, 0, 64))
    shares = region_shares(one_spot(row, column), whole)
    assert sum(found.share for found in shares) == pytest.approx(1)
    assert (shares[0].region, shares[0].share) == (name, pytest.approx(1))
    assert sentence(shares, "mel").startswith(f"What speaks for mel lies: {name} 100%")


def test_heat_beside_the_picture_is_said_so() -> None:
    wide = Placement((0, 20, 0, 60), (21, 42, 0, 64))
    shares = region_shares(one_spot(2, 2), wide)
    assert (shares[0].region, shares[0].share) == (MARGIN, pytest.approx(1))
    spread = region_shares(np.ones((64, 64), np.float32), wide)
    assert sum(found.share for found in spread) == pytest.approx(1)
    assert "elsewhere" in sentence(spread, "mel")
