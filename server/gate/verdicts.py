"""From a figure and its limit to a verdict with a sentence."""

from __future__ import annotations

import math

from common.recipe import ReleaseGateSpec
from common.release import GateCheck

ROUNDING = 1e-9


def at_least(
    name: str,
    figure: float | None,
    limit: float | None,
    explanation: str,
    limits: ReleaseGateSpec | None = None,
) -> GateCheck:
    """Return the verdict on a figure that must not be below its limit.

    Without a limit the check asks for nothing. Without a figure it fails, unless ``limits`` says
    that it is not required.
    """
    kept = None if figure is None or limit is None else figure >= limit - ROUNDING
    return verdict(name, figure, limit, kept, explanation, limits)


def at_most(
    name: str,
    figure: float | None,
    limit: float | None,
    explanation: str,
    limits: ReleaseGateSpec | None = None,
) -> GateCheck:
    """Return the verdict on a figure that must not be above its limit; else as `at_least`."""
    kept = None if figure is None or limit is None else figure <= limit + ROUNDING
    return verdict(name, figure, limit, kept, explanation, limits)


def above(name: str, figure: float | None, limit: float, explanation: str) -> GateCheck:
    """Return the verdict on a figure that must be above its limit: to equal it is to fail."""
    kept = None if figure is None else figure > limit + ROUNDING
    return verdict(name, figure, limit, kept, explanation)


def verdict(
    name: str,
    figure: float | None,
    limit: float | None,
    kept: bool | None,
    explanation: str,
    limits: ReleaseGateSpec | None = None,
) -> GateCheck:
    """Return a verdict; ``kept`` is None where it cannot be told."""
    told = figure is not None and math.isfinite(figure)
    passed = told and bool(kept)
    if limit is None:
        passed, explanation = True, f"{explanation} The protocol sets no limit."
    elif not told:
        passed = limits is not None and name in limits.not_required
        missing = "It cannot be computed: the sites released too little for it"
        ending = ", and the protocol does not require it." if passed else "."
        explanation = f"{explanation} {missing}{ending}"
    return GateCheck(
        name=name,
        passed=passed,
        figure=float(figure) if told and figure is not None else None,
        limit=None if limit is None else float(limit),
        explanation=explanation[:500],
    )
