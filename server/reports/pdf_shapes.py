"""The strokes that a report's PDF charts are drawn with: text, markers, colours, a titled sheet."""

from __future__ import annotations

from functools import lru_cache

from reportlab.graphics.shapes import Drawing, Group, Line, Rect, String
from reportlab.lib import colors
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont

from server.reports.palette import COLOURS, DASHES, INK, PALE

FONT, BOLD, ITALIC = "Vera", "Vera-Bold", "Vera-Italic"
SIZE = 7.5
TITLE_HEIGHT = 20


@lru_cache(maxsize=1)
def register_fonts() -> None:
    """Let ReportLab know the fonts that it comes with."""
    for name, file in ((FONT, "Vera.ttf"), (BOLD, "VeraBd.ttf"), (ITALIC, "VeraIt.ttf")):
        pdfmetrics.registerFont(TTFont(name, file))
    pdfmetrics.registerFontFamily(FONT, normal=FONT, bold=BOLD, italic=ITALIC, boldItalic=BOLD)


def titled(title: str, width: float, height: float) -> Drawing:
    """Return an empty drawing under its title."""
    drawing = Drawing(width, height)
    drawing.add(text(0, height - 10, title, font=BOLD, size=8.5))
    return drawing


def style(index: int) -> tuple[colors.Color, list[int] | None]:
    """Return a curve's colour and dashes."""
    colour = colors.HexColor(COLOURS[index % len(COLOURS)])
    return colour, list(DASHES[index % len(DASHES)]) or None


def dotted(x0: float, y0: float, x1: float, y1: float) -> Line:
    """Return the line of a reference."""
    return Line(x0, y0, x1, y1, strokeColor=colors.HexColor(PALE), strokeWidth=0.7,
                strokeDashArray=[1.5, 2])  # fmt: skip


def square(x: float, y: float, colour: colors.Color, *, side: float = 3.0) -> Rect:
    """Return a marker around a point."""
    return Rect(x - side / 2, y - side / 2, side, side, fillColor=colour, strokeColor=None)


def text(
    x: float, y: float, words: str, *, anchor: str = "start", font: str = FONT, size: float = SIZE
) -> String:
    """Return a line of text."""
    return String(x, y, words, fontName=font, fontSize=size, textAnchor=anchor,
                  fillColor=colors.HexColor(INK))  # fmt: skip


def turned(drawing: Drawing, x: float, y: float, words: str, *, size: float = SIZE) -> None:
    """Add text that reads upwards and ends at a point."""
    group = Group(text(0, 0, words, anchor="end", size=size))
    group.translate(x + size / 3, y)
    group.rotate(90)
    drawing.add(group)


def turned_centre(drawing: Drawing, x: float, y: float, words: str) -> None:
    """Add text that reads upwards around a point."""
    group = Group(text(0, 0, words, anchor="middle"))
    group.translate(x, y)
    group.rotate(90)
    drawing.add(group)
