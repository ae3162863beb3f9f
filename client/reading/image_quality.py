"""What is wrong with an image, whatever the model says: blank, small, blurred, dark, wrong kind.

Limits come from the site's own holdout: what is sharp enough differs between an ultrasound and a
photograph. All figures but the size are of the picture as the network sees it
(`client.monitoring.input_statistics`), so a blur that is lost in resizing is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from client.cases.accepted_image import pixels_digest
from client.monitoring.input_statistics import IMAGE_STATISTICS, image_statistics
from client.reading.parts import ImageLimits, NotEnough
from client.reading.patients import Groups, Numbers, attainable_share, count, interval, upper_limit
from common.imaging import Pixels
from common.recipe import ImageSpec

FEWEST_PATIENTS = 20
BLANK_DEVIATION = 2 / 255
"""A picture whose channels all vary by less than two of 256 levels shows nothing."""
GREY_BELOW = 2 / 255
"""So far may channels lie apart, on average, in a picture that looks grey."""
MIXED_ABOVE = 0.05
"""With more than this share of the other kind, a site's images are of both kinds."""

_PLACE = {name: place for place, name in enumerate(IMAGE_STATISTICS)}
_MEANS = tuple(_PLACE[f"{colour}-mean"] for colour in ("red", "green", "blue"))
_DEVIATIONS = tuple(_PLACE[f"{colour}-deviation"] for colour in ("red", "green", "blue"))
_SHARPNESS, _COLOUR = _PLACE["sharpness"], _PLACE["colour"]


@dataclass(frozen=True)
class Warning:
    """Something about the image; ``code`` is stable, ``message`` is for people."""

    code: str
    message: str


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image without a model.

    Attributes
    ----------
    digest : str
        Of the decoded pixels, as `client.cases.accepted_image.pixels_digest`.
    width, height : int
        As decoded, pixels.
    statistics : tuple of float
        `IMAGE_STATISTICS` of the prepared picture.
    """

    digest: str
    width: int
    height: int
    statistics: tuple[float, ...]


MESSAGES = {
    "image-blank": "The image shows next to nothing: all of it is of one colour.",
    "image-too-small": "The image is small: the model sees it enlarged.",
    "image-blurred": "The image is less sharp than this site's confirmed ones.",
    "image-underexposed": "The image is darker than this site's confirmed ones.",
    "image-overexposed": "The image is brighter than this site's confirmed ones.",
    "image-colour-unexpected": "The image is in colour; this site's confirmed ones are grey.",
    "image-grey-unexpected": "The image is grey; this site's confirmed ones are in colour.",
    "out-of-distribution": "The model sees an image unlike this site's confirmed ones.",
}
"""All warnings there are, by code."""

NOT_OF_THIS_KIND = frozenset(
    ("image-blank", "image-colour-unexpected", "image-grey-unexpected", "out-of-distribution")
)
"""Warnings that send an answer to a human: the model may never have seen such an image."""


def facts_of(decoded: Pixels, prepared: Pixels) -> ImageFacts:
    """Look at one image.

    Parameters
    ----------
    decoded : ndarray of uint8, (height, width, 3)
        As from `common.imaging.decode`.
    prepared : ndarray of uint8, (S, S, 3)
        As from `common.imaging.prepare`.
    """
    height, width = decoded.shape[:2]
    return ImageFacts(pixels_digest(decoded), width, height, image_statistics(prepared))


def fit_image_limits(statistics: Numbers, patients: Groups, *, false_alarms: float) -> ImageLimits:
    """Return where the figures of this site's images end.

    Parameters
    ----------
    statistics : ndarray of float64, (N, M)
        `IMAGE_STATISTICS`.
    patients : ndarray of int64, (N,)
    false_alarms : float
        Share of ordinary images beyond each limit; few patients can only promise a larger one.

    Raises
    ------
    NotEnough
        With too few patients, or figures of another version of this software.
    """
    number = count(patients)
    if number < FEWEST_PATIENTS:
        raise NotEnough(f"{number} holdout patients; {FEWEST_PATIENTS} are needed")
    if statistics.shape != (len(patients), len(IMAGE_STATISTICS)):
        raise NotEnough("the holdout's figures are of another version of this software")
    share = attainable_share(false_alarms, patients)
    brightness = statistics[:, _MEANS].mean(axis=1)

    def end(values: Numbers) -> float:
        limit = upper_limit(values, patients, share=share)
        assert limit is not None  # the share is one that these patients can promise
        return limit

    return ImageLimits(
        least_sharpness=-end(-statistics[:, _SHARPNESS]),
        least_brightness=-end(-brightness),
        most_brightness=end(brightness),
        colour=_kind(statistics[:, _COLOUR] >= GREY_BELOW, patients),
        false_alarms=share,
    )


def image_warnings(
    facts: ImageFacts, spec: ImageSpec, limits: ImageLimits | None, *, smallest_side: int = 0
) -> tuple[str, ...]:
    """Return the codes of what is wrong with an image.

    Parameters
    ----------
    facts : ImageFacts
    spec : ImageSpec
        The recipe's.
    limits : ImageLimits or None
        The site's; without them only blank and small images are told.
    smallest_side : int
        In pixels, of the longer side; 0 is half of what the network sees.
    """
    figures = facts.statistics
    if max(figures[place] for place in _DEVIATIONS) < BLANK_DEVIATION:
        return ("image-blank",)  # nothing else can be told of it
    codes = []
    if max(facts.width, facts.height) < (smallest_side or spec.size / 2):
        codes.append("image-too-small")
    if limits is None:
        return tuple(codes)
    brightness = sum(figures[place] for place in _MEANS) / len(_MEANS)
    if figures[_SHARPNESS] < limits.least_sharpness:
        codes.append("image-blurred")
    if brightness < limits.least_brightness:
        codes.append("image-underexposed")
    if brightness > limits.most_brightness:
        codes.append("image-overexposed")
    kind = "grey" if figures[_COLOUR] < GREY_BELOW else "colour"
    if limits.colour is not None and kind != limits.colour:
        codes.append(f"image-{kind}-unexpected")
    return tuple(codes)


def warnings_of(codes: Sequence[str]) -> tuple[Warning, ...]:
    """Return warnings with their messages."""
    return tuple(Warning(code, MESSAGES[code]) for code in codes)


def _kind(coloured: NDArray[np.bool_], patients: Groups) -> Literal["grey", "colour"] | None:
    share = interval(coloured, patients).value
    if share <= MIXED_ABOVE:
        return "grey"
    return "colour" if share >= 1.0 - MIXED_ABOVE else None
