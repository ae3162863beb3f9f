"""Charts of a report as vector drawings of ReportLab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from reportlab.graphics.shapes import Drawing, Line, PolyLine, Rect, String
from reportlab.lib import colors
from reportlab.pdfbase.pdfmetrics import stringWidth

from server.reports.document import Chart, Heatmap, IntervalChart, LineChart
from server.reports.palette import COLOURS, DASHES, INK, PALE, SHADES

FONT, BOLD = "Vera", "Vera-Bold"
SIZE = 7.5
TITLE_HEIGHT = 20
LEGEND_ROW = 11


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


def draw(chart: Chart, *, width: float) -> Drawing:
    """Return a chart as a drawing of ``width`` points, its height following from what it holds."""
    if isinstance(chart, LineChart):
        return _lines(chart, width)
    if isinstance(chart, Heatmap):
        return _matrix(chart, width)
    return _intervals(chart, width)


def _lines(chart: LineChart, width: float) -> Drawing:
    legend = list(_legend_places([s.name for s in chart.series], width - 44))
    rows = legend[-1][1] + 1 if legend else 0
    below = 34 + LEGEND_ROW * rows
    plot = min(width - 52, 200.0) if chart.diagonal else 150.0
    frame = _Frame(40, below, width - 52, plot, chart.x_range, chart.y_range)
    drawing = _titled(chart.title, width, below + plot + TITLE_HEIGHT)
    _axes(drawing, frame, chart.x_label, chart.y_label)
    if chart.diagonal:
        drawing.add(_dotted(frame.x(0), frame.y(0), frame.x(1), frame.y(1)))
    for index, series in enumerate(chart.series):
        colour, dash = _style(index)
        flat = [v for x, y in series.points for v in (frame.x(x), frame.y(y))]
        drawing.add(PolyLine(flat, strokeColor=colour, strokeWidth=1.1, strokeDashArray=dash))
        if series.markers:
            for x, y in zip(flat[::2], flat[1::2], strict=True):
                drawing.add(_square(x, y, colour))
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
    colour, dash = _style(index)
    middle = y + SIZE / 3
    drawing.add(Line(x, middle, x + 18, middle, strokeColor=colour, strokeWidth=1.4,
                     strokeDashArray=dash))  # fmt: skip
    drawing.add(_text(x + 22, y, name))


def _matrix(chart: Heatmap, width: float) -> Drawing:
    left = 34 + max(stringWidth(name, FONT, SIZE) for name in chart.rows)
    cell, side = (width - left - 12) / len(chart.columns), 20.0
    height = side * len(chart.rows)
    turned = max(stringWidth(name, FONT, SIZE) for name in chart.columns) > cell - 4
    below = 32.0 + (max(stringWidth(n, FONT, SIZE) for n in chart.columns) if turned else 0)
    drawing = _titled(chart.title, width, below + height + TITLE_HEIGHT)
    for r, (name, counts) in enumerate(zip(chart.rows, chart.counts, strict=True)):
        y = below + height - side * (r + 1)
        drawing.add(_text(left - 6, y + side / 2 - SIZE / 3, name, anchor="end"))
        for c, count in enumerate(counts):
            fill = _shade(count / (sum(counts) or 1))
            drawing.add(Rect(left + cell * c, y, cell, side, fillColor=fill,
                             strokeColor=colors.HexColor("#d9dee5"), strokeWidth=0.5))  # fmt: skip
            middle = left + cell * (c + 0.5)
            drawing.add(_text(middle, y + side / 2 - SIZE / 3, str(count), anchor="middle"))
    for c, name in enumerate(chart.columns):
        label = _turned if turned else _centred
        label(drawing, left + cell * (c + 0.5), below - 10, name)
    drawing.add(_text(left + (width - left - 12) / 2, 6, chart.x_label, anchor="middle"))
    _turned_centre(drawing, 10, below + height / 2, chart.y_label)
    return drawing


def _intervals(chart: IntervalChart, width: float) -> Drawing:
    left = 20 + max(stringWidth(e.name, FONT, SIZE) for e in chart.estimates)
    row, below = 16.0, 34.0
    ends = [v for e in chart.estimates for v in (e.figure, e.low, e.high) if v is not None]
    ends += [] if chart.reference is None else [chart.reference]
    span = _round_span(min(ends), max(ends))
    frame = _Frame(left, below, width - left - 14, row * len(chart.estimates), span)
    drawing = _titled(chart.title, width, below + frame.height + TITLE_HEIGHT)
    _axes(drawing, frame, chart.x_label, "", y_ticks=False)
    if chart.reference is not None:
        x = frame.x(chart.reference)
        drawing.add(_dotted(x, below, x, below + frame.height))
    for index, estimate in enumerate(chart.estimates):
        y = below + frame.height - row * (index + 0.5)
        colour, _ = _style(0)
        drawing.add(_text(left - 6, y - SIZE / 3, estimate.name, anchor="end"))
        if estimate.low is not None and estimate.high is not None:
            drawing.add(Line(frame.x(estimate.low), y, frame.x(estimate.high), y,
                             strokeColor=colour, strokeWidth=1.2))  # fmt: skip
        drawing.add(_square(frame.x(estimate.figure), y, colour, side=4.5))
    return drawing


def _round_span(low: float, high: float) -> tuple[float, float]:
    """Return a span of whole tenths around the figures, at least two tenths wide."""
    start, end = int(low * 10 - 1e-9) / 10, (int(high * 10 + 1e-9) + 1) / 10
    return (start, max(end, start + 0.2)) if high > 1 else (start, min(max(end, start + 0.2), 1.0))


def _titled(title: str, width: float, height: float) -> Drawing:
    drawing = Drawing(width, height)
    drawing.add(_text(0, height - 10, title, font=BOLD, size=8.5))
    return drawing


def _axes(
    drawing: Drawing, frame: _Frame, x_label: str, y_label: str, *, y_ticks: bool = True
) -> None:
    grid = colors.HexColor("#e6e8ec")
    right, top = frame.left + frame.width, frame.bottom + frame.height
    for value in _ticks(*frame.x_range):
        x = frame.x(value)
        drawing.add(Line(x, frame.bottom, x, top, strokeColor=grid, strokeWidth=0.4))
        drawing.add(_text(x, frame.bottom - 10, f"{value:g}", anchor="middle"))
    for value in _ticks(*frame.y_range) if y_ticks else ():
        y = frame.y(value)
        drawing.add(Line(frame.left, y, right, y, strokeColor=grid, strokeWidth=0.4))
        drawing.add(_text(frame.left - 4, y - SIZE / 3, f"{value:g}", anchor="end"))
    drawing.add(Rect(frame.left, frame.bottom, frame.width, frame.height, fillColor=None,
                     strokeColor=colors.HexColor(PALE), strokeWidth=0.6))  # fmt: skip
    drawing.add(_text(frame.left + frame.width / 2, frame.bottom - 21, x_label, anchor="middle"))
    if y_label:
        _turned_centre(drawing, 10, frame.bottom + frame.height / 2, y_label)


def _ticks(low: float, high: float) -> list[float]:
    """Return at most eight round values from low to high."""
    steps = (0.05, 0.1, 0.2, 0.5, *(m * 10**e for e in range(6) for m in (1, 2, 5)))
    step: float = next(s for s in steps if (high - low) / s <= 7)
    first = int(low / step - 1e-9) if low <= 0 else int(low / step + 1 - 1e-9)
    values = (round(step * n, 6) for n in range(first, first + 9))
    return [value for value in values if low - 1e-9 <= value <= high + 1e-9]


def _style(index: int) -> tuple[colors.Color, list[int] | None]:
    colour = colors.HexColor(COLOURS[index % len(COLOURS)])
    return colour, list(DASHES[index % len(DASHES)]) or None


def _shade(share: float) -> colors.Color:
    low, high = (colors.HexColor(shade) for shade in SHADES)
    return colors.linearlyInterpolatedColor(low, high, 0, 1, share)


def _dotted(x0: float, y0: float, x1: float, y1: float) -> Line:
    return Line(x0, y0, x1, y1, strokeColor=colors.HexColor(PALE), strokeWidth=0.7,
                strokeDashArray=[1.5, 2])  # fmt: skip


def _square(x: float, y: float, colour: colors.Color, *, side: float = 3.0) -> Rect:
    return Rect(x - side / 2, y - side / 2, side, side, fillColor=colour, strokeColor=None)


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", font: str = FONT, size: float = SIZE
) -> String:
    return String(x, y, words, fontName=font, fontSize=size, textAnchor=anchor,
                  fillColor=colors.HexColor(INK))  # fmt: skip


def _centred(drawing: Drawing, x: float, y: float, words: str) -> None:
    drawing.add(_text(x, y, words, anchor="middle"))


def _turned(drawing: Drawing, x: float, y: float, words: str) -> None:
    from reportlab.graphics.shapes import Group

    group = Group(_text(0, 0, words, anchor="end"))
    group.translate(x + SIZE / 3, y + 6)
    group.rotate(90)
    drawing.add(group)


def _turned_centre(drawing: Drawing, x: float, y: float, words: str) -> None:
    from reportlab.graphics.shapes import Group

    group = Group(_text(0, 0, words, anchor="middle"))
    group.translate(x, y)
    group.rotate(90)
    drawing.add(group)


Labeller = Callable[[Drawing, float, float, str], None]
