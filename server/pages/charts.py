"""Geometry of the page's charts; the templates draw it as SVG, without inline styles or scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.outcome_reasons import OUTCOME_REASONS
from server.registry.records import Contribution, Round
from server.rounds.staleness import model_versions, staleness_of

WIDTH, HEIGHT = 640, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 12, 30
CELL, CELL_GAP, LABEL_WIDTH = 26, 3, 130
MOST_COLUMNS = 400

MARKS = {
    "accepted": "✓",
    "refused": "R",
    "failed": "F",
    "late": "L",
    "absent": "–",
    "rejected": "X",
}
"""What stands in a cell of the timeline, so that colour is not all that tells outcomes apart."""


@dataclass(frozen=True)
class Point:
    """One figure: ``x`` and ``y`` in the chart's own units, and what it says."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Line:
    """One series; ``number`` chooses its colour and dashes."""

    label: str
    number: int
    points: tuple[Point, ...]
    last: float

    @property
    def path(self) -> str:
        """The points as SVG wants them."""
        return " ".join(f"{p.x:.1f},{p.y:.1f}" for p in self.points)


@dataclass(frozen=True)
class Tick:
    """A place on an axis and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class LineChart:
    """Figures over rounds."""

    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Cell:
    """What one site did in one round."""

    x: int
    outcome: str
    mark: str
    title: str


@dataclass(frozen=True)
class TimelineRow:
    """One site."""

    site: str
    y: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Timeline:
    """Sites by rounds."""

    rows: tuple[TimelineRow, ...]
    across: tuple[Tick, ...]
    width: int
    height: int
    cell: int = CELL


Series = Mapping[str, Sequence[tuple[int, float]]]


def line_chart(series: Series, *, low: float | None = None) -> LineChart | None:
    """Lay out figures by round number; None where there is none.

    Parameters
    ----------
    series : mapping of str to sequence of (int, float)
        Round and figure, in order, by label.
    low : float, optional
        Where the upward axis begins; by default a little below the smallest figure.
    """
    filled = {label: points for label, points in series.items() if points}
    if not filled:
        return None
    rounds = sorted({number for points in filled.values() for number, _ in points})
    values = [value for points in filled.values() for _, value in points]
    bottom, top = _bounds(values, low)
    across = _scale(rounds[0], rounds[-1], LEFT + 8, WIDTH - RIGHT - 8)
    up = _scale(bottom, top, HEIGHT - BOTTOM, TOP)
    lines = tuple(
        Line(
            label=label,
            number=index % 6,
            points=tuple(
                Point(across(n), up(v), f"{label}, round {n}: {v:.3f}") for n, v in points
            ),
            last=points[-1][1],
        )
        for index, (label, points) in enumerate(filled.items())
    )
    return LineChart(
        lines=lines,
        across=tuple(Tick(across(n), str(n)) for n in _thinned(rounds, 12)),
        up=tuple(Tick(up(v), f"{v:.2f}") for v in _steps(bottom, top)),
    )


def timeline(
    sites: Iterable[str], rounds: Sequence[Round], contributions: Sequence[Contribution]
) -> Timeline | None:
    """Lay out what every site did in every round: its last attempt; None before the first."""
    shown = list(rounds)[-MOST_COLUMNS:]
    cells: dict[tuple[str, int], list[Contribution]] = {}
    for contribution in contributions:
        cells.setdefault((contribution.site, contribution.round), []).append(contribution)
    versions = model_versions(rounds)
    names = sorted({*sites, *(c.site for c in contributions)})
    if not shown or not names:
        return None
    step = CELL + CELL_GAP
    columns = {found.number: LABEL_WIDTH + index * step for index, found in enumerate(shown)}
    rows = tuple(
        TimelineRow(
            site=name,
            y=index * step,
            cells=tuple(
                _cell(cells.get((name, found.number), ()), found, versions, site=name, x=x)
                for found, x in zip(shown, columns.values(), strict=True)
            ),
        )
        for index, name in enumerate(names)
    )
    return Timeline(
        rows=rows,
        across=tuple(Tick(x + CELL / 2, str(number)) for number, x in columns.items()),
        width=LABEL_WIDTH + len(shown) * step,
        height=len(names) * step + 20,
    )


def _cell(
    told: Sequence[Contribution], of: Round, versions: Mapping[str, int], *, site: str, x: int
) -> Cell:
    what = f"{site}, round {of.number} ({of.purpose})"
    if not told:
        waiting = of.state == "running"
        words = "waiting for its answer" if waiting else "was not asked"
        return Cell(x, "waiting" if waiting else "none", "…" if waiting else "", f"{what}: {words}")
    accepted = [c for c in told if c.outcome == "accepted"]
    found = accepted[-1] if accepted else told[-1]
    why = f" ({found.code})" if found.code else ""
    tries = f", attempt {found.attempt}" if found.attempt > 1 and not accepted[1:] else ""
    title = f"{what}: {found.outcome}{why} after {found.seconds:.1f} s{tries}"
    ages = [staleness_of(c, versions) or 0 for c in accepted] if of.purpose == "train" else []
    if len(accepted) > 1:
        title += f", {len(accepted)} updates"
    if any(ages):
        title += f", from models {' and '.join(map(str, ages))} steps old"
    if found.code is not None and found.code in OUTCOME_REASONS:
        title += f". {OUTCOME_REASONS[found.code]}"
    mark = str(len(accepted)) if len(accepted) > 1 else MARKS[found.outcome]
    return Cell(x, found.outcome, mark, title)


def _bounds(values: Sequence[float], low: float | None) -> tuple[float, float]:
    bottom, top = min(values), max(values)
    margin = max((top - bottom) * 0.1, 0.01)
    return (bottom - margin if low is None else min(low, bottom), top + margin)


def _scale(low: float, high: float, start: float, end: float) -> _Scale:
    return _Scale(low, high if high > low else low + 1, start, end)


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def _steps(low: float, high: float) -> tuple[float, ...]:
    return tuple(low + (high - low) * part / 4 for part in range(5))


def _thinned(numbers: Sequence[int], most: int) -> Sequence[int]:
    every = -(-len(numbers) // most)
    return numbers[::every]
