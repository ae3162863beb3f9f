"""A report as one HTML file that needs nothing else: style, figures and plotly.js are in it.

Nothing is fetched from anywhere. A Content-Security-Policy in the file itself forbids every
request, and allows the two scripts by their digests, so that the file stays harmless wherever
it is opened, whatever a recipe's title holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape
from markupsafe import Markup

from server.reports.document import Document, Paragraph, Part, Table
from server.reports.plotly_figures import figure_of

PLOT = (
    "for (const figure of JSON.parse(document.getElementById('figures').textContent)) "
    "Plotly.newPlot(figure.id, figure.data, figure.layout, "
    "{responsive: true, displaylogo: false, showSendToCloud: false, "
    "modeBarButtonsToRemove: ['lasso2d', 'select2d']});"
)


def render_html(document: Document) -> bytes:
    """Return the report as one HTML file, UTF-8. The same report gives the same bytes."""
    charts = _charts(document)
    figures = [{"id": identifier, **figure_of(chart)} for identifier, chart in charts]
    scripts = (_plotly_js(), PLOT)
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; "
    policy += "style-src 'unsafe-inline'; script-src " + " ".join(map(_digest, scripts))
    page: str = _template().render(
        document=document,
        kind=_kind,
        chart_of=lambda part: next(
            figure for figure, (_, chart) in zip(figures, charts, strict=True) if chart is part
        ),
        figures=Markup(_json(figures)),  # noqa: S704 (escaped by _json)
        plotly=Markup(scripts[0]),  # noqa: S704 (the installed package's own file)
        plot=Markup(scripts[1]),  # noqa: S704 (a constant)
        policy=policy,
    )
    return page.encode()


def _charts(document: Document) -> list[tuple[str, Any]]:
    parts = (part for section in document.sections for part in section.parts)
    drawn = [part for part in parts if _kind(part) == "chart"]
    return [(f"chart-{number}", chart) for number, chart in enumerate(drawn, 1)]


def _kind(part: Part) -> str:
    if isinstance(part, Paragraph):
        return "paragraph"
    return "table" if isinstance(part, Table) else "chart"


def _json(value: object) -> str:
    """Return JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@lru_cache(maxsize=1)
def _plotly_js() -> str:
    """Return plotly.js as the installed package has it; HTML would read a bare CR as LF."""
    from plotly.offline import get_plotlyjs  # half a second, which --help need not pay

    text = str(get_plotlyjs())
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("server.reports"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")
