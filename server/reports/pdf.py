"""A report as a PDF, drawn by ReportLab.

Why ReportLab: it is plain Python from PyPI with Pillow alone beside it. WeasyPrint would draw the
HTML itself, but needs Pango, HarfBuzz and fontconfig from the system, which a coordinator's
machine would have to install and patch for this alone; a browser in headless mode weighs more
yet. Charts are ReportLab's own vector shapes, so that matplotlib is not needed either.

Text is set in Bitstream Vera, which comes with ReportLab and is embedded; it covers Latin
script. A character that it lacks becomes a question mark; the HTML has it.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    CondPageBreak,
    Flowable,
    KeepTogether,
    LongTable,
    SimpleDocTemplate,
    Spacer,
    TableStyle,
)
from reportlab.platypus import Paragraph as Words

from server.reports.document import (
    Document,
    Heatmap,
    IntervalChart,
    LineChart,
    Paragraph,
    Part,
    Section,
    Table,
)
from server.reports.palette import COLOURS, INK, PALE
from server.reports.pdf_charts import draw
from server.reports.pdf_shapes import BOLD, FONT, register_fonts

MARGIN = 18 * mm
FRAME_PADDING = 6
WIDTH = A4[0] - 2 * (MARGIN + FRAME_PADDING)
ABOVE, UNDER = 3 * mm, 2 * mm
"""The air around a chart."""
HEIGHT = A4[1] - 2 * (MARGIN + FRAME_PADDING) - ABOVE - UNDER - 1
"""The highest chart that a page holds; the point is ReportLab's, for rounding."""


def render_pdf(document: Document) -> bytes:
    """Return the report as a PDF on A4. The same report gives the same bytes."""
    register_fonts()
    target = BytesIO()
    template = SimpleDocTemplate(
        target,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN,
        title=_known(document.title),
        subject=document.subtitle,
        creator="Wardround",
        lang="en",
        invariant=1,
    )
    footer = _Footer(_known(document.title))
    template.build(_flow(document), onFirstPage=footer, onLaterPages=footer)
    return target.getvalue()


class _Footer:
    """Draws the title and the page's number under each page."""

    def __init__(self, title: str) -> None:
        self._title = title if len(title) < 90 else title[:88] + "..."

    def __call__(self, canvas: Canvas, template: SimpleDocTemplate) -> None:
        canvas.saveState()
        canvas.setFont(FONT, 7.5)
        canvas.setFillColor(colors.HexColor(PALE))
        canvas.drawString(MARGIN, MARGIN / 2, self._title)
        canvas.drawRightString(A4[0] - MARGIN, MARGIN / 2, f"page {template.page}")
        canvas.restoreState()


def _flow(document: Document) -> list[Flowable]:
    flow: list[Flowable] = [
        Words(_safe(document.subtitle), _style("subtitle")),
        Words(_safe(document.title), _style("title")),
    ]
    for section in document.sections:
        flow += _section(section)
    return flow


def _section(section: Section) -> list[Flowable]:
    heading = Words(f'<a name="{section.anchor}"/>{_safe(section.title)}', _style("heading"))
    flow: list[Flowable] = [CondPageBreak(45 * mm), heading]
    for part in section.parts:
        flow += _part(part)
    return flow


def _part(part: Part) -> list[Flowable]:
    if isinstance(part, Paragraph):
        return [Words(_safe(part.text), _style("notable" if part.notable else "body"))]
    if isinstance(part, Table):
        return _table(part)
    narrow = isinstance(part, LineChart) and part.diagonal
    drawings = draw(_printable(part), width=WIDTH * 0.72 if narrow else WIDTH, height=HEIGHT)
    return [KeepTogether([Spacer(0, ABOVE), drawing, Spacer(0, UNDER)]) for drawing in drawings]


def _table(table: Table) -> list[Flowable]:
    shares = table.widths or tuple(1 / len(table.headings) for _ in table.headings)
    headed = any(table.headings)
    lines = [table.headings, *table.rows] if headed else list(table.rows)
    cells = [
        [
            Words(_safe(cell), _style(_cell_style(r == 0 and headed, c > 0 and table.numeric)))
            for c, cell in enumerate(line)
        ]
        for r, line in enumerate(lines)
    ]
    drawn = LongTable(
        cells,
        colWidths=[WIDTH * share / sum(shares) for share in shares],
        repeatRows=1 if headed else 0,
        splitInRow=1,  # a cell may name a thousand sites
        style=_table_style(headed),
    )
    caption = Words(_safe(table.caption), _style("caption"))
    if table.numeric and len(lines) <= 14:
        return [KeepTogether([caption, drawn]), Spacer(0, 2 * mm)]
    return [CondPageBreak(40 * mm), caption, drawn, Spacer(0, 2 * mm)]


def _cell_style(heading: bool, figure: bool) -> str:
    if heading:
        return "heading-figure" if figure else "heading-cell"
    return "figure" if figure else "cell"


def _table_style(headed: bool) -> TableStyle:
    lines = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, -1), 0.3, colors.HexColor("#d9dee5")),
        ("LEFTPADDING", (0, 0), (-1, -1), 3),
        ("LEFTPADDING", (0, 0), (0, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 3),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
    ]
    if headed:
        lines.append(("LINEBELOW", (0, 0), (-1, 0), 0.8, colors.HexColor(PALE)))
    return TableStyle(lines)


@lru_cache(maxsize=1)
def _styles() -> dict[str, ParagraphStyle]:
    ink, accent = colors.HexColor(INK), colors.HexColor(COLOURS[0])
    body = ParagraphStyle("body", fontName=FONT, fontSize=9, leading=12.5, textColor=ink,
                          spaceAfter=4)  # fmt: skip
    cell = ParagraphStyle("cell", body, fontSize=7.8, leading=10, spaceAfter=0, splitLongWords=1)
    bold = {"fontName": BOLD}
    return {
        "body": body,
        "notable": ParagraphStyle(
            "notable", body, borderColor=colors.HexColor(COLOURS[1]), borderWidth=0.8,
            borderPadding=(3, 5, 4, 5), leftIndent=6, rightIndent=6, spaceBefore=6, spaceAfter=9,
        ),
        "subtitle": ParagraphStyle("subtitle", body, textColor=colors.HexColor(PALE)),
        "title": ParagraphStyle("title", body, fontSize=16, leading=20, spaceAfter=8, **bold),
        "heading": ParagraphStyle("heading", body, fontSize=12.5, leading=16, textColor=accent,
                                  spaceBefore=12, spaceAfter=5, keepWithNext=1, **bold),
        "caption": ParagraphStyle("caption", body, fontSize=8.5, leading=11, spaceBefore=6,
                                  spaceAfter=3, **bold),
        "cell": cell,
        "figure": ParagraphStyle("figure", cell, alignment=2),
        "heading-cell": ParagraphStyle("heading-cell", cell, **bold),
        "heading-figure": ParagraphStyle("heading-figure", cell, alignment=2, **bold),
    }  # fmt: skip


def _style(name: str) -> ParagraphStyle:
    return _styles()[name]


@lru_cache(maxsize=1)
def _covered() -> frozenset[int]:
    return frozenset(pdfmetrics.getFont(FONT).face.charToGlyph)


def _known(text: str) -> str:
    """Replace what the font lacks."""
    return "".join(c if ord(c) in _covered() or c == " " else "?" for c in text)


def _safe(text: str) -> str:
    """Return text that is no markup to ReportLab."""
    return escape(_known(text))


def _printable(chart: LineChart | Heatmap | IntervalChart) -> LineChart | Heatmap | IntervalChart:
    """Return the chart with names that the font has."""
    from dataclasses import replace

    if isinstance(chart, LineChart):
        return replace(chart, series=tuple(replace(s, name=_known(s.name)) for s in chart.series))
    if isinstance(chart, Heatmap):
        rows, columns = tuple(map(_known, chart.rows)), tuple(map(_known, chart.columns))
        return replace(chart, rows=rows, columns=columns)
    estimates = tuple(replace(e, name=_known(e.name)) for e in chart.estimates)
    return replace(chart, estimates=estimates)
