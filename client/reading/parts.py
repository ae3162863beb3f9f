"""The parts of a site's profile: plain figures, each of which may be absent."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.recipe import Fraction

PartName: TypeAlias = Literal[
    "temperature",
    "operating-point",
    "conformal",
    "uncertainty-limit",
    "out-of-distribution",
    "image-limits",
    "drift",
]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """A base for frozen parts that refuse unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Interval(Part):
    """A rate over patients with its 95 % interval (`client.reading.patients.interval`)."""

    value: Fraction
    low: Fraction
    high: Fraction
    patients: Count


class SiteOperatingPoint(Part):
    """The site's own threshold on the positive probability, in place of the release's.

    ``sensitivity`` and ``specificity`` are of the patients that the threshold was chosen on;
    ``specificity`` is None where none of them has a negative image.
    """

    threshold: Fraction
    wanted_sensitivity: Fraction
    sensitivity: Interval
    specificity: Interval | None


class Conformal(Part):
    """A rule that makes a set of classes, which holds the right one with probability ``coverage``.

    ``quantiles`` are limits on a class's score, one a class in the recipe's order (all equal
    unless ``by_class``); None is no limit: the class is always in the set.
    """

    method: Literal["lac", "aps"]
    by_class: bool
    coverage: Fraction
    quantiles: tuple[Finite | None, ...]

    @property
    def limits(self) -> NDArray[np.float64]:
        """The quantiles, float64 (K,), with infinity for None."""
        return np.array([np.inf if q is None else q for q in self.quantiles])


class Ordinary(Part):
    """What features of this site's images are like: a Gaussian of low rank.

    ``mean`` (D,) and ``directions`` (rank, D) are float32, little-endian, base64; ``variances``
    (rank,) are along those, ``residual`` is each other direction's. ``limit`` is on the distance
    of `client.reading.ordinary`; a share ``false_alarms`` of ordinary images lies beyond it.
    """

    features: Annotated[int, Field(ge=1)]
    mean: str
    directions: str
    variances: tuple[Positive, ...]
    residual: Positive
    limit: Finite
    false_alarms: Fraction

    @model_validator(mode="after")
    def _whole(self) -> Ordinary:
        # Here and not at the first image: a damaged profile must not break answers.
        if self.centre.shape != (self.features,) or len(self.axes) != len(self.variances):
            raise ValueError("mean and directions are not of the length that features gives")
        if not (np.isfinite(self.centre).all() and np.isfinite(self.axes).all()):
            raise ValueError("mean and directions are not finite")
        return self

    @property
    def centre(self) -> NDArray[np.float32]:
        """The mean, float32 (D,)."""
        return _floats(self.mean)

    @property
    def axes(self) -> NDArray[np.float32]:
        """The directions, float32 (rank, D)."""
        return _floats(self.directions).reshape(-1, self.features)


class ImageLimits(Part):
    """Where figures of this site's images end; a share ``false_alarms`` is beyond each limit.

    ``colour`` is ``grey`` or ``colour`` where the holdout is so throughout, None where it is mixed.
    """

    least_sharpness: Finite
    least_brightness: Finite
    most_brightness: Finite
    colour: Literal["grey", "colour"] | None
    false_alarms: Fraction


class Missing(Part):
    """A part of the profile that is not there, and why."""

    part: PartName
    why: Annotated[str, Field(max_length=200)]


class NotEnough(Exception):
    """The holdout cannot tell; the text says why, for people."""


def packed(array: NDArray[np.floating]) -> str:
    """Return an array as base64 of little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode("ascii")


@lru_cache(maxsize=16)
def _floats(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4")
