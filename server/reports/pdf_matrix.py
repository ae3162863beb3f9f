"""A matrix of counts as a vector drawing of ReportLab, fitted to the page whatever its size."""

from __future__ import annotations

from dataclasses import dataclass

from reportlab.graphics.shapes import Drawing, Rect
from reportlab.lib import colors
from reportlab.pdfbase.pdfmetrics import stringWidth

from server.reports.document import Heatmap
from server.reports.palette import SHADES
from server.reports.pdf_shapes import (
    FONT,
    SIZE,
    TITLE_HEIGHT,
    text,
    titled,
    turned,
    turned_centre,
)

SIDE = 20.0
"""A row's height (points) where there is room for it."""
LEGIBLE = 2.5
"""Figures that would be smaller than this (points) are left out, and the title says so."""
GRID = colors.HexColor("#d9dee5")


@dataclass(frozen=True)
class _Grid:
    """Where the cells lie, and how large its letters are (points); ``figures`` 0 draws none."""

    left: float
    below: float
    cell: float
    side: float
    labels: float
    figures: float
    turned: bool
    names: tuple[tuple[str, ...], tuple[str, ...]]


def draw_matrix(chart: Heatmap, width: float, height: float) -> Drawing:
    """Return a matrix of ``width`` points, of ``height`` at most. Row 0 is at the top."""
    grid = _fitted(chart, width, height)
    tall = grid.side * len(chart.rows)
    title = chart.title if grid.figures else f"{chart.title} (the HTML report has the figures)"
    drawing = titled(title, width, grid.below + tall + TITLE_HEIGHT)
    wide = grid.cell * len(chart.columns)
    drawing.add(Rect(grid.left, grid.below, wide, tall, fillColor=None, strokeColor=GRID,
                     strokeWidth=0.5))  # fmt: skip
    rows, columns = grid.names
    for r, (name, counts) in enumerate(zip(rows, chart.counts, strict=True)):
        y = grid.below + tall - grid.side * (r + 1)
        middle = y + grid.side / 2 - grid.labels / 3
        drawing.add(text(grid.left - 6, middle, name, anchor="end", size=grid.labels))
        _row(drawing, grid, y, counts)
    for c, name in enumerate(columns):
        x = grid.left + grid.cell * (c + 0.5)
        if grid.turned:
            turned(drawing, x, grid.below - 4, name, size=grid.labels)
        else:
            drawing.add(text(x, grid.below - 10, name, anchor="middle", size=grid.labels))
    drawing.add(text(grid.left + wide / 2, 6, chart.x_label, anchor="middle"))
    turned_centre(drawing, 10, grid.below + tall / 2, chart.y_label)
    return drawing


def _fitted(chart: Heatmap, width: float, height: float) -> _Grid:
    """Return the grid whose labels, where they are small, also take little room."""
    return _grid(chart, width, height, _grid(chart, width, height, SIZE).labels)


def _grid(chart: Heatmap, width: float, height: float, size: float) -> _Grid:
    """Lay the cells out beside labels of a size; say which size would fit beside the cells."""
    rows = tuple(_cut(name, width * 0.3, size) for name in chart.rows)
    columns = tuple(_cut(name, width * 0.3, size) for name in chart.columns)
    left = 34 + max(stringWidth(name, FONT, size) for name in rows)
    cell = (width - left - 12) / len(columns)
    longest = max(stringWidth(name, FONT, SIZE) for name in columns)
    upright = longest <= cell - 4
    below = 32.0 + (0 if upright else longest * size / SIZE)
    side = min(SIDE, (height - TITLE_HEIGHT - below) / len(rows))
    digits = max(len(str(count)) for counts in chart.counts for count in counts)
    figures = min(SIZE, side * 0.8, (cell - 1) / stringWidth("0" * digits, FONT, 1))
    labels = min(SIZE, side * 0.9, SIZE if upright else cell * 0.9)
    kept = figures if figures >= LEGIBLE else 0.0
    return _Grid(left, below, cell, side, min(labels, size), kept, not upright, (rows, columns))


def _row(drawing: Drawing, grid: _Grid, y: float, counts: tuple[int, ...]) -> None:
    total = sum(counts) or 1
    for c, count in enumerate(counts):
        if not count and not grid.figures:
            continue  # of a thousand classes, a million cells are empty
        x = grid.left + grid.cell * c
        drawing.add(Rect(x, y, grid.cell, grid.side, fillColor=_shade(count / total),
                         strokeColor=GRID, strokeWidth=min(0.5, grid.cell / 20)))  # fmt: skip
        if grid.figures:
            middle = y + grid.side / 2 - grid.figures / 3
            drawing.add(text(x + grid.cell / 2, middle, str(count), anchor="middle",
                             size=grid.figures))  # fmt: skip


def _cut(name: str, most: float, size: float) -> str:
    """Return a name of ``most`` points; the table by class has it in full."""
    if stringWidth(name, FONT, size) <= most:
        return name
    kept = name
    while kept and stringWidth(kept + "…", FONT, size) > most:
        kept = kept[:-1]
    return kept + "…"


def _shade(share: float) -> colors.Color:
    low, high = (colors.HexColor(shade) for shade in SHADES)
    return colors.linearlyInterpolatedColor(low, high, 0, 1, share)
