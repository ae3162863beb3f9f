"""Charts of a report as vector drawings of ReportLab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reportlab.graphics.shapes import Drawing, Line, PolyLine, Rect
from reportlab.lib import colors
from reportlab.pdfbase.pdfmetrics import stringWidth

from server.reports.document import Chart, Estimate, Heatmap, IntervalChart, LineChart
from server.reports.palette import PALE
from server.reports.pdf_matrix import draw_matrix
from server.reports.pdf_shapes import (
    FONT,
    SIZE,
    TITLE_HEIGHT,
    dotted,
    register_fonts,
    square,
    style,
    text,
    titled,
    turned_centre,
)

LEGEND_ROW = 11
ESTIMATE_ROW = 16.0
BELOW_ESTIMATES = 34.0
FINEST = 0.05
"""The least distance of an axis's ticks."""


@dataclass(frozen=True)
class _Frame:
    """Where the axes lie in the drawing (points), and the data that they span."""

    left: float
    bottom: float
    width: float
    height: float
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + self.width * (min(max(value, low), high) - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom + self.height * (min(max(value, low), high) - low) / (high - low)


def draw(chart: Chart, *, width: float, height: float) -> tuple[Drawing, ...]:
    """Return a chart as drawings of ``width`` points, none higher than ``height``.

    Estimates that one page cannot hold go on in a further drawing; what else is too high is
    made smaller.
    """
    register_fonts()
    if isinstance(chart, Heatmap):
        return (draw_matrix(chart, width, height),)
    if isinstance(chart, IntervalChart):
        return tuple(_intervals(chart, width, height))
    return (_shrunk(_lines(chart, width), height),)


def _shrunk(drawing: Drawing, height: float) -> Drawing:
    """Let a drawing that is too high (a legend of hundreds) be drawn smaller."""
    drawing.renderScale = min(1.0, height / drawing.height)
    return drawing


def _lines(chart: LineChart, width: float) -> Drawing:
    legend = list(_legend_places([s.name for s in chart.series], width - 44))
    rows = legend[-1][1] + 1 if legend else 0
    below = 34 + LEGEND_ROW * rows
    plot = min(width - 52, 200.0) if chart.diagonal else 150.0
    frame = _Frame(40, below, width - 52, plot, chart.x_range, chart.y_range)
    drawing = titled(chart.title, width, below + plot + TITLE_HEIGHT)
    _axes(drawing, frame, chart.x_label, chart.y_label, finest=1.0 if chart.whole_x else FINEST)
    if chart.diagonal:
        drawing.add(dotted(frame.x(0), frame.y(0), frame.x(1), frame.y(1)))
    for index, series in enumerate(chart.series):
        colour, dash = style(index)
        flat = [v for x, y in series.points for v in (frame.x(x), frame.y(y))]
        drawing.add(PolyLine(flat, strokeColor=colour, strokeWidth=1.1, strokeDashArray=dash))
        if series.markers:
            for x, y in zip(flat[::2], flat[1::2], strict=True):
                drawing.add(square(x, y, colour))
        across, row = legend[index]
        _legend_entry(drawing, 40 + across, below - 34 - LEGEND_ROW * row, index, series.name)
    return drawing


def _legend_places(names: list[str], width: float) -> Iterator[tuple[float, int]]:
    """Yield where each name begins: points from the left, and its row."""
    across, row = 0.0, 0
    for name in names:
        needed = 26 + stringWidth(name, FONT, SIZE)
        if across and across + needed > width:
            across, row = 0.0, row + 1
        yield across, row
        across += needed + 8


def _legend_entry(drawing: Drawing, x: float, y: float, index: int, name: str) -> None:
    colour, dash = style(index)
    middle = y + SIZE / 3
    drawing.add(Line(x, middle, x + 18, middle, strokeColor=colour, strokeWidth=1.4,
                     strokeDashArray=dash))  # fmt: skip
    drawing.add(text(x + 22, y, name))


def _intervals(chart: IntervalChart, width: float, height: float) -> Iterator[Drawing]:
    """Yield as few drawings as hold all estimates, about as many in each, on one scale."""
    found = chart.estimates
    ends = [v for e in found for v in (e.figure, e.low, e.high) if v is not None]
    ends += [] if chart.reference is None else [chart.reference]
    left = 20 + max(stringWidth(e.name, FONT, SIZE) for e in found)
    most = int((height - BELOW_ESTIMATES - TITLE_HEIGHT) / ESTIMATE_ROW)
    sheets = -(-len(found) // most)
    for sheet in range(sheets):
        first, end = len(found) * sheet // sheets, len(found) * (sheet + 1) // sheets
        tall, span = ESTIMATE_ROW * (end - first), _round_span(min(ends), max(ends))
        frame = _Frame(left, BELOW_ESTIMATES, width - left - 14, tall, span)
        part = f" ({first + 1} to {end} of {len(found)})" if sheets > 1 else ""
        drawing = titled(chart.title + part, width, BELOW_ESTIMATES + tall + TITLE_HEIGHT)
        _axes(drawing, frame, chart.x_label, "", y_ticks=False)
        if chart.reference is not None:
            x = frame.x(chart.reference)
            drawing.add(dotted(x, frame.bottom, x, frame.bottom + tall))
        for row, estimate in enumerate(found[first:end]):
            _estimate(drawing, frame, frame.bottom + tall - ESTIMATE_ROW * (row + 0.5), estimate)
        yield drawing


def _estimate(drawing: Drawing, frame: _Frame, y: float, estimate: Estimate) -> None:
    colour, _ = style(0)
    drawing.add(text(frame.left - 6, y - SIZE / 3, estimate.name, anchor="end"))
    if estimate.low is not None and estimate.high is not None:
        drawing.add(Line(frame.x(estimate.low), y, frame.x(estimate.high), y,
                         strokeColor=colour, strokeWidth=1.2))  # fmt: skip
    drawing.add(square(frame.x(estimate.figure), y, colour, side=4.5))


def _round_span(low: float, high: float) -> tuple[float, float]:
    """Return a span of whole tenths around the figures, at least two tenths wide."""
    start, end = int(low * 10 - 1e-9) / 10, (int(high * 10 + 1e-9) + 1) / 10
    return (start, max(end, start + 0.2)) if high > 1 else (start, min(max(end, start + 0.2), 1.0))


def _axes(
    drawing: Drawing,
    frame: _Frame,
    x_label: str,
    y_label: str,
    *,
    y_ticks: bool = True,
    finest: float = FINEST,
) -> None:
    grid = colors.HexColor("#e6e8ec")
    right, top = frame.left + frame.width, frame.bottom + frame.height
    for value in _ticks(*frame.x_range, finest=finest):
        x = frame.x(value)
        drawing.add(Line(x, frame.bottom, x, top, strokeColor=grid, strokeWidth=0.4))
        drawing.add(text(x, frame.bottom - 10, f"{value:g}", anchor="middle"))
    for value in _ticks(*frame.y_range) if y_ticks else ():
        y = frame.y(value)
        drawing.add(Line(frame.left, y, right, y, strokeColor=grid, strokeWidth=0.4))
        drawing.add(text(frame.left - 4, y - SIZE / 3, f"{value:g}", anchor="end"))
    drawing.add(Rect(frame.left, frame.bottom, frame.width, frame.height, fillColor=None,
                     strokeColor=colors.HexColor(PALE), strokeWidth=0.6))  # fmt: skip
    drawing.add(text(frame.left + frame.width / 2, frame.bottom - 21, x_label, anchor="middle"))
    if y_label:
        turned_centre(drawing, 10, frame.bottom + frame.height / 2, y_label)


def _ticks(low: float, high: float, *, finest: float = FINEST) -> list[float]:
    """Return at most eight round values from low to high, none closer than ``finest``."""
    steps = (FINEST, 0.1, 0.2, 0.5, *(m * 10**e for e in range(6) for m in (1, 2, 5)))
    step: float = next(s for s in steps if s >= finest and (high - low) / s <= 7)
    first = int(low / step - 1e-9) if low <= 0 else int(low / step + 1 - 1e-9)
    values = (round(step * n, 6) for n in range(first, first + 9))
    return [value for value in values if low - 1e-9 <= value <= high + 1e-9]
