"""Colours that colour-blind readers can tell apart, with dashes for black-and-white paper.

The colours are those of Okabe and Ito 2008 (https://jfly.uni-koeln.de/color/), yellow left out:
it does not show on white.
"""

from __future__ import annotations

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES: tuple[tuple[int, ...], ...] = ((), (6, 3), (2, 2), (8, 3, 2, 3), (), (6, 3), (2, 2))
INK = "#1c2733"
PALE = "#8a94a3"
SHADES = ("#ffffff", "#8fc1e3")
"""Of a matrix's cells, for a share of 0 and of 1; dark figures can be read on both."""
