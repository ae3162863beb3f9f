import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from client.monitoring.input_statistics import image_statistics
from client.reading.image_quality import (
    MESSAGES,
    NOT_OF_THIS_KIND,
    ImageFacts,
    facts_of,
    fit_image_limits,
    image_warnings,
    warnings_of,
)
from client.reading.parts import ImageLimits, NotEnough
from common.imaging import decode, prepare
from common.recipe import ImageSpec

SPEC = ImageSpec(size=64)
Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def photograph(seed: int, *, side: int = 128) -> Pixels:
    """Return a lesion-like picture: a coloured ground, a darker blob, some grain."""
    dice = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    blob = 1 / (1 + np.exp(60 * (np.hypot(x + dice.normal() / 20, y) - dice.uniform(0.15, 0.3))))
    ground = np.array([200, 150, 130]) + dice.normal(scale=6, size=3)
    picture = ground - blob[..., None] * np.array([90, 80, 60])
    grain = dice.normal(scale=4, size=(side, side, 1))
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def grey(picture: Pixels) -> Pixels:
    return np.repeat(np.asarray(Image.fromarray(picture).convert("L"))[..., None], 3, axis=2)


def look(picture: Pixels) -> ImageFacts:
    return facts_of(picture, prepare(picture, SPEC))


def limits(pictures: list[Pixels]) -> ImageLimits:
    table = np.array([image_statistics(prepare(picture, SPEC)) for picture in pictures])
    return fit_image_limits(table, np.arange(len(pictures)), false_alarms=0.02)


@pytest.fixture(scope="module")
def usual() -> ImageLimits:
    return limits([photograph(seed) for seed in range(60)])


def blurred(picture: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(6)))


def test_each_fault_is_told_and_an_ordinary_image_has_none(usual: ImageLimits) -> None:
    picture = photograph(1000)
    faults = {
        "image-blurred": blurred(picture),
        "image-underexposed": (picture * 0.25).astype(np.uint8),
        "image-overexposed": np.clip(picture.astype(int) * 2, 0, 255).astype(np.uint8),
        "image-grey-unexpected": grey(picture),
        "image-blank": np.full_like(picture, 131),
    }
    assert image_warnings(look(picture), SPEC, usual) == ()
    for code, damaged in faults.items():
        assert code in image_warnings(look(damaged), SPEC, usual), code


def test_ordinary_images_are_rarely_named(usual: ImageLimits) -> None:
    named = [bool(image_warnings(look(photograph(s)), SPEC, usual)) for s in range(100, 300)]
    assert sum(named) / len(named) <= 3 * usual.false_alarms + 0.05


def test_colour_is_unexpected_where_all_is_grey_and_nothing_is_where_both_are() -> None:
    greys = limits([grey(photograph(seed)) for seed in range(40)])
    assert greys.colour == "grey"
    assert image_warnings(look(photograph(7)), SPEC, greys) == ("image-colour-unexpected",)
    both = [photograph(s) if s % 2 else grey(photograph(s)) for s in range(40)]
    assert limits(both).colour is None


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_blank_image_is_told_by_any_site_and_nothing_else_of_it(value: int) -> None:
    blank = look(np.full((90, 40, 3), value, np.uint8))
    assert image_warnings(blank, SPEC, None) == ("image-blank",)


def test_a_small_image_is_one_that_the_network_sees_twice_enlarged() -> None:
    assert image_warnings(look(photograph(1, side=31)), SPEC, None) == ("image-too-small",)
    assert image_warnings(look(photograph(1, side=32)), SPEC, None) == ()
    assert image_warnings(look(photograph(1, side=31)), SPEC, None, smallest_side=20) == ()
    tall = photograph(1, side=40)[:, :12]
    assert image_warnings(look(tall), SPEC, None) == ()


def test_a_grey_jpeg_is_grey() -> None:
    target = io.BytesIO()
    Image.fromarray(grey(photograph(3))).save(target, "JPEG", quality=60)
    greys = limits([grey(photograph(seed)) for seed in range(40)])
    found = image_warnings(look(decode(target.getvalue())), SPEC, greys)
    assert not NOT_OF_THIS_KIND & set(found)


def test_too_few_patients_or_other_figures_give_no_limits() -> None:
    table = np.ones((30, len(image_statistics(photograph(0)))))
    with pytest.raises(NotEnough):
        fit_image_limits(table, np.arange(30) % 19, false_alarms=0.01)
    with pytest.raises(NotEnough):
        fit_image_limits(table[:, :-1], np.arange(30), false_alarms=0.01)


def test_every_code_has_words_and_what_refers_is_a_code() -> None:
    assert {w.code: w.message for w in warnings_of(tuple(MESSAGES))} == MESSAGES
    assert set(MESSAGES) > NOT_OF_THIS_KIND
