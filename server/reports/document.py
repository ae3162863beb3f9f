"""A report as sections of paragraphs, tables and charts, before it is drawn as HTML or PDF.

Both renderings draw these few kinds of part, so that neither can say what the other does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Paragraph:
    """Plain text. ``notable`` sets it apart: something is missing, or must not be overlooked."""

    text: str
    notable: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text under headings, the first column being the row's name.

    ``numeric`` says that all other columns are figures, and are set right. ``widths`` are the
    columns' shares of the page, for the PDF; equal shares by default.
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: bool = True
    widths: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.headings) for row in self.rows):
            raise ValueError(f"table {self.caption!r}: a row does not fit its headings")


@dataclass(frozen=True)
class Series:
    """One curve: points (x, y) in order; ``markers`` draws them, too."""

    name: str
    points: tuple[tuple[float, float], ...]
    markers: bool = False


@dataclass(frozen=True)
class LineChart:
    """Curves over two axes.

    ``diagonal`` draws the dotted line from (0, 0) to (1, 1); ``whole_x`` says that nothing lies
    between whole numbers of the x axis.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)
    diagonal: bool = False
    whole_x: bool = False


@dataclass(frozen=True)
class Heatmap:
    """A matrix of counts; a cell's shade is its share of its row. Row 0 is at the top."""

    title: str
    x_label: str
    y_label: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, where there is one."""

    name: str
    figure: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class IntervalChart:
    """Estimates one under the other, with a dotted line at ``reference``."""

    title: str
    x_label: str
    estimates: tuple[Estimate, ...]
    reference: float | None = None


Chart: TypeAlias = LineChart | Heatmap | IntervalChart
Part: TypeAlias = Paragraph | Table | LineChart | Heatmap | IntervalChart


@dataclass(frozen=True)
class Section:
    """A part of the report. ``answers`` is False where the release lacks what it is about."""

    anchor: str
    title: str
    parts: tuple[Part, ...]
    answers: bool = True


@dataclass(frozen=True)
class Document:
    """The whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
