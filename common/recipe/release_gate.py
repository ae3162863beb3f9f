"""What an answer means, and what a candidate must show before it may be released."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from common.recipe.part import Fraction, Part, PositiveFloat


class DecisionSpec(Part):
    """Which classes count as positive (cancer), and the threshold on their summed probability."""

    positive_classes: tuple[str, ...]
    threshold: Fraction = 0.5


WaivableCheck: TypeAlias = Literal[
    "champion-interval",
    "sensitivity-floor",
    "worst-site-sensitivity",
    "calibration-error",
    "worst-site",
    "worst-subgroup",
    "distance-to-base",
]
"""Checks that may pass without a figure, where a protocol says that they are not required."""


class ReleaseGateSpec(Part):
    """Limits that a candidate must pass before it may be released; None asks for nothing.

    ``docs/release-gate.md`` says how each is judged. ``accuracy_floor`` is None where the source
    set none. ``non_inferiority_margin`` is the macro AUROC that a candidate may lose against the
    champion by the figures themselves; ``interval_margin`` is what it may lose at the lower end
    of the difference's 95 % interval, the two models' AUROCs being correlated by
    ``champion_correlation``. ``wanted_sensitivity`` for the positive classes chooses the
    operating threshold; None keeps the recipe's. ``worst_site_sensitivity_floor`` is broken by a
    site whose sensitivity there is surely below (its whole 95 % interval); None is 0.2 below
    ``wanted_sensitivity``. ``worst_site_auroc_floor`` and
    ``worst_subgroup_auroc_floor`` are broken by a site or subgroup whose figure is below, over
    the classes of which it has ``judged_cases`` cases, and as many of the others; one without
    such a class is not judged. ``largest_change`` is the distance to the base model over the
    base's norm.
    ``not_required`` names checks that pass where their figure cannot be had, as where no site's
    policy releases it; all others then fail.
    """

    accuracy_floor: Fraction | None = None
    macro_auroc_floor: Fraction = 0.5
    non_inferiority_margin: Fraction = 0.0
    interval_margin: Fraction | None = None
    champion_correlation: Fraction = 0.5
    minimum_sites: Annotated[int, Field(ge=1)] = 2
    wanted_sensitivity: Fraction | None = None
    sensitivity_floor: Fraction | None = None
    # Left out where it is not set: digests of older recipes and locked protocols stay the same.
    worst_site_sensitivity_floor: Annotated[
        Fraction | None, Field(exclude_if=lambda floor: floor is None)
    ] = None
    calibration_error_ceiling: Fraction | None = None
    worst_site_auroc_floor: Fraction | None = None
    worst_subgroup_auroc_floor: Fraction | None = None
    judged_cases: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    epsilon_ceiling: PositiveFloat | None = None
    largest_change: PositiveFloat | None = None
    not_required: tuple[WaivableCheck, ...] = ()
