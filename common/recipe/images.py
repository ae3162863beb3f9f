"""How a recipe's images are prepared, and changed at random while training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common.recipe.part import Fraction, Part, PositiveFloat


class ImageSpec(Part):
    """How pixels are prepared, the same at training and at inference.

    ``size`` is the side in pixels of the square that the network sees. ``region`` names the
    part of the picture that is kept: ``full``, or ``tissue`` (ultrasound: text, muscle band and
    shadow are cropped away). ``mean`` and ``std`` are per RGB channel, on the 0-1 scale; they
    are public constants, never statistics of private data.
    """

    size: Annotated[int, Field(ge=16, le=1024)]
    region: Literal["full", "tissue"] = "full"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)


class Augmentation(Part):
    """Random changes to a training image; each is independent of every other image."""

    horizontal_flip: bool = True
    vertical_flip: bool = False
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    colour_jitter: Fraction = 0.0
