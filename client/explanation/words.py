"""A heat map in words, for those who do not see it, and for a log of what was shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from client.explanation.methods import Heat
from common.imaging import Placement

MARGIN = "the black margin beside the picture"
_ROWS = ("upper", "middle", "lower")
_COLUMNS = ("left", "middle", "right")
_NAMED_FROM = 0.1
_MOST_NAMED = 3


@dataclass(frozen=True)
class RegionShare:
    """A ninth of what the network saw, and the share of the heat that lies there, 0 to 1."""

    region: str
    share: float


def region_shares(heat: Heat, where: Placement) -> tuple[RegionShare, ...]:
    """Return how the heat is spread over a three-by-three grid, hottest first.

    Left and right are the picture's, not the patient's. Heat on the black margin that makes the
    picture square is counted by itself. The shares sum to 1; nothing where there is no heat.

    Parameters
    ----------
    heat : ndarray of float32, (S, S)
    where : Placement
    """
    total = float(heat.sum(dtype=np.float64))
    if total <= 0:
        return ()
    top, bottom, left, right = where.inner
    shares = []
    for row, row_name in enumerate(_ROWS):
        for column, column_name in enumerate(_COLUMNS):
            part = heat[
                _third(top, bottom, row) : _third(top, bottom, row + 1),
                _third(left, right, column) : _third(left, right, column + 1),
            ]
            share = float(part.sum(dtype=np.float64)) / total
            shares.append(RegionShare(_name(row_name, column_name), share))
    outside = 1 - sum(found.share for found in shares)
    if outside > 1e-9:
        shares.append(RegionShare(MARGIN, outside))
    return tuple(sorted(shares, key=lambda found: -found.share))


def sentence(shares: tuple[RegionShare, ...], class_name: str) -> str:
    """Say which regions carry how much of what speaks for a class."""
    if not shares:
        return f"Nothing in this picture was found to speak for {class_name}."
    named = [found for found in shares if found.share >= _NAMED_FROM][:_MOST_NAMED]
    parts = [f"{found.region} {found.share:.0%}" for found in named]
    rest = 1 - sum(found.share for found in named)
    if rest >= 0.005:
        parts.append(f"elsewhere {rest:.0%}")
    said = f"What speaks for {class_name} lies: {', '.join(parts)}"
    return f"{said} (left and right of the picture)."


def _name(row: str, column: str) -> str:
    if row == column == "middle":
        return "centre"
    return f"{row} {column}"


def _third(start: int, end: int, number: int) -> int:
    return start + round((end - start) * number / 3)
