"""A site's profile of one model: what its own holdout patients taught about the answers.

Made beside the running model from the scores of the site's confirmed holdout, and kept as JSON
that only the site's user can read. It holds figures over patients, no image and no case. What too
few patients can tell is None, and `SiteProfile.missing` says why.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from client.monitoring.reference import DriftReference
from common.plan import Hex64
from common.recipe import Fraction

Part: TypeAlias = Literal[
    "temperature",
    "operating-point",
    "conformal",
    "uncertainty-limit",
    "out-of-distribution",
    "image-limits",
    "drift",
]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Interval(_Part):
    """A rate over patients with its 95 % interval (Wilson 1927)."""

    value: Fraction
    low: Fraction
    high: Fraction
    patients: Count


class SiteOperatingPoint(_Part):
    """The site's own threshold on the positive probability, in place of the release's.

    ``sensitivity`` and ``specificity`` are of the patients that the threshold was chosen on.
    """

    threshold: Fraction
    wanted_sensitivity: Fraction
    sensitivity: Interval
    specificity: Interval | None


class Conformal(_Part):
    """A rule that makes a set of classes, which holds the right one with probability ``coverage``.

    ``quantiles`` are limits on a class's score, one a class in the recipe's order (all equal
    unless ``by_class``); None is no limit: the class is always in the set.
    """

    method: Literal["lac", "aps"]
    by_class: bool
    coverage: Fraction
    quantiles: tuple[Finite | None, ...]


class Ordinary(_Part):
    """What features of this site's images are like: a Gaussian of low rank.

    Probabilistic PCA (Tipping and Bishop 1999, doi:10.1111/1467-9868.00196) of D features in
    ``rank`` directions. ``mean`` (D,) and ``directions`` (rank, D) are float32, little-endian,
    base64. ``limit`` is on the distance, in standard deviations per feature; a share
    ``false_alarms`` of ordinary images lies beyond it.
    """

    features: Annotated[int, Field(ge=1)]
    rank: Annotated[int, Field(ge=0)]
    mean: str
    directions: str
    variances: tuple[Finite, ...]
    residual: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    limit: Finite
    false_alarms: Fraction


class ImageLimits(_Part):
    """Where figures of this site's images lie; a share ``false_alarms`` is beyond each limit.

    ``sharpest`` and ``brightest`` are upper ends. ``colour`` is ``grey`` or ``colour`` where all
    of the holdout is, None where it is mixed.
    """

    least_sharpness: Finite
    least_brightness: Finite
    most_brightness: Finite
    colour: Literal["grey", "colour"] | None
    false_alarms: Fraction


class Missing(_Part):
    """A part of the profile that is not there, and why."""

    part: Part
    why: Annotated[str, Field(max_length=200)]


class SiteProfile(_Part):
    """What the site's holdout taught about one model.

    Attributes
    ----------
    model_digest, head_digest, recipe_digest : str
        Whose answers it is for; ``head_digest`` is of the site's own head, None without one.
    members : tuple of str
        Digests of the models that answer together with that one, none by default.
    settings_digest, holdout_digest : str
        SHA-256 of the ``[reading]`` table, and of the cases that it was made from.
    holdout_patients : int
        How many those are of.
    temperature : float or None
        The logits are divided by it (Guo et al. 2017, arXiv:1706.04599).
    uncertainty_limit : float or None
        Answers above it go to a human.
    """

    form: Literal[1] = 1
    model_digest: Hex64
    head_digest: Hex64 | None = None
    members: tuple[Hex64, ...] = ()
    recipe_digest: Hex64
    settings_digest: Hex64
    holdout_digest: Hex64
    holdout_patients: Count
    made_at: AwareDatetime
    temperature: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    operating_point: SiteOperatingPoint | None = None
    conformal: Conformal | None = None
    uncertainty_limit: Fraction | None = None
    out_of_distribution: Ordinary | None = None
    image_limits: ImageLimits | None = None
    drift: DriftReference | None = None
    missing: tuple[Missing, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of its JSON."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
