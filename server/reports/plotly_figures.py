"""Charts of a report as Plotly figures (the JSON that plotly.js draws)."""

from __future__ import annotations

from html import escape
from typing import Any

from server.reports.document import Chart, Heatmap, IntervalChart, LineChart, Series
from server.reports.palette import COLOURS, DASHES, INK, PALE, SHADES

Figure = dict[str, Any]
"""``data`` and ``layout`` as https://plotly.com/javascript/reference documents them."""


def figure_of(chart: Chart) -> Figure:
    """Return a chart's figure."""
    if isinstance(chart, LineChart):
        return _lines(chart)
    if isinstance(chart, Heatmap):
        return _matrix(chart)
    return _intervals(chart)


def _lines(chart: LineChart) -> Figure:
    data = [_curve(series, index) for index, series in enumerate(chart.series)]
    if chart.diagonal:
        data.insert(0, _line((0, 1), (0, 1)))
    layout = _layout(chart.x_label, chart.y_label, height=420)
    layout["xaxis"]["range"] = _padded(chart.x_range)
    layout["yaxis"]["range"] = _padded(chart.y_range)
    if chart.whole_x:
        layout["xaxis"] |= {"tick0": 0, "dtick": _whole_step(*chart.x_range)}
    return {"data": data, "layout": layout}


def _curve(series: Series, index: int) -> Figure:
    colour = COLOURS[index % len(COLOURS)]
    return {
        "type": "scatter",
        "name": escape(series.name),
        "mode": "lines+markers" if series.markers else "lines",
        "x": [round(x, 4) for x, _ in series.points],
        "y": [round(y, 4) for _, y in series.points],
        "line": {"color": colour, "width": 2, "dash": _dash(index)},
        "marker": {"color": colour, "size": 6},
    }


def _dash(index: int) -> str:
    dash = DASHES[index % len(DASHES)]
    return ",".join(f"{length}px" for length in dash) if dash else "solid"


def _line(x: tuple[float, float], y: tuple[float, float]) -> Figure:
    return {
        "type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "showlegend": False,
        "hoverinfo": "skip", "line": {"color": PALE, "width": 1, "dash": "dot"},
    }  # fmt: skip


def _matrix(chart: Heatmap) -> Figure:
    shares = [[count / (sum(row) or 1) for count in row] for row in chart.counts]
    data = {
        "type": "heatmap", "z": shares, "x": list(map(escape, chart.columns)),
        "y": list(map(escape, chart.rows)),
        "text": [[str(count) for count in row] for row in chart.counts],
        "texttemplate": "%{text}", "hovertemplate": "%{y} called %{x}: %{text}<extra></extra>",
        "colorscale": [[0, SHADES[0]], [1, SHADES[1]]], "zmin": 0, "zmax": 1, "showscale": False,
        "xgap": 1, "ygap": 1,
    }  # fmt: skip
    layout = _layout(chart.x_label, chart.y_label, height=140 + 40 * len(chart.rows))
    layout["yaxis"]["autorange"] = "reversed"
    for axis in ("xaxis", "yaxis"):
        layout[axis] |= {"type": "category", "showgrid": False}
    return {"data": [data], "layout": layout}


def _intervals(chart: IntervalChart) -> Figure:
    names = [escape(estimate.name) for estimate in chart.estimates]
    above = [(e.figure if e.high is None else e.high) - e.figure for e in chart.estimates]
    below = [e.figure - (e.figure if e.low is None else e.low) for e in chart.estimates]
    data: list[Figure] = [
        {
            "type": "scatter", "mode": "markers", "x": [e.figure for e in chart.estimates],
            "y": names, "marker": {"color": COLOURS[0], "size": 8}, "showlegend": False,
            "error_x": {"type": "data", "symmetric": False, "array": above, "arrayminus": below,
                        "color": COLOURS[0]},
        }
    ]  # fmt: skip
    layout = _layout(chart.x_label, "", height=140 + 36 * len(names))
    layout["yaxis"] |= {"type": "category", "autorange": "reversed"}
    if chart.reference is not None:
        layout["shapes"] = [
            {"type": "line", "x0": chart.reference, "x1": chart.reference, "y0": 0, "y1": 1,
             "yref": "paper", "line": {"color": PALE, "dash": "dot", "width": 1}}
        ]  # fmt: skip
    return {"data": data, "layout": layout}


def _layout(x_label: str, y_label: str, *, height: int) -> Figure:
    axis = {"automargin": True, "zeroline": False, "gridcolor": "#e6e8ec", "linecolor": PALE}
    return {
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "height": height,
        "margin": {"l": 60, "r": 20, "t": 24, "b": 50},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "xaxis": {**axis, "title": {"text": x_label}},
        "yaxis": {**axis, "title": {"text": y_label}},
        "legend": {"font": {"size": 12}},
    }  # fmt: skip


def _whole_step(low: float, high: float) -> int:
    """Return the least round distance of whole ticks that are ten at most."""
    steps = (m * 10**e for e in range(6) for m in (1, 2, 5))
    found: int = next(step for step in steps if (high - low) / step <= 10)
    return found


def _padded(span: tuple[float, float]) -> list[float]:
    room = 0.02 * (span[1] - span[0])
    return [span[0] - room, span[1] + room]
