"""The PDF of many sites and many classes; and what is said where a report cannot be drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import ProcessError
from common.evaluation import evaluate_predictions, metrics
from server.reports.assembly import document
from server.reports.content import ReleaseReport, candidate_report
from server.reports.document import Document, Heatmap, LineChart, Section, Series, Table
from server.reports.pdf import HEIGHT, WIDTH, render_pdf
from server.reports.pdf_charts import draw
from server.reports.store import ReportKeeper, ReportUndrawn, write_report
from tests.server.campaigns import Coordinator
from tests.server.reports.examples import finished, released

pdfium = pytest.importorskip("pypdfium2")


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Coordinator:
    made, candidate = finished(tmp_path_factory.mktemp("pdf"))
    released(made, candidate)
    return made


@pytest.fixture(scope="module")
def report(coordinator: Coordinator) -> ReleaseReport:
    return candidate_report(coordinator.registry, coordinator.registry.release(1).candidate)


def words(data: bytes) -> str:
    with pdfium.PdfDocument(data) as opened:
        text = " ".join(page.get_textpage().get_text_range() for page in opened)
    return " ".join(text.split())


def alone(*parts: Table | LineChart) -> Document:
    return Document("A title", "a report", (Section("one", "One", parts),))


def test_a_hundred_sites_stand_on_as_many_pages_as_they_need(report: ReleaseReport) -> None:
    _, counts = report.by_site[0]
    names = tuple(f"hospital-{number:03d}" for number in range(100))
    many = replace(report, by_site=tuple((name, counts) for name in names))
    text = words(render_pdf(document(many)))
    assert "(1 to 33 of 100)" in text
    assert "(67 to 100 of 100)" in text
    assert all(text.count(name) >= 2 for name in names)  # in the chart, and in the table


def test_sixty_classes_are_drawn_with_their_figures(report: ReleaseReport) -> None:
    classes = tuple(f"class-{number:02d}" for number in range(60))
    generator = np.random.default_rng(5)
    labels = np.repeat(np.arange(60), 20)
    scores = generator.random((len(labels), 60)) + 4 * np.eye(60)[labels]
    told = evaluate_predictions(
        scores / scores.sum(axis=1, keepdims=True), labels, classes, minimum_cell=1
    )
    recipe = report.recipe.model_copy(update={"classes": classes})
    figures = report.draft.metrics.model_copy(update={"candidate": metrics(told)})
    draft = report.draft.model_copy(update={"recipe": recipe, "metrics": figures})
    many = replace(report, draft=draft, evaluation=told, by_site=(("north", told),))
    text = words(render_pdf(document(many)))
    assert "HTML report has the figures" not in text
    assert text.count(" 20 ") >= 60


def test_no_chart_is_higher_than_a_page() -> None:
    for size in (2, 8, 33, 60, 300):
        names = tuple(f"{'a long name of a class ' * (size % 2)}{n}" for n in range(size))
        counts = tuple(tuple(12 * (r == c) for c in range(size)) for r in range(size))
        chart = Heatmap("Confusion", "told", "confirmed", names, names, counts)
        (drawing,) = draw(chart, width=WIDTH, height=HEIGHT)
        assert drawing.height <= HEIGHT + 1e-6
    told = tuple(Series(f"class-{n:03d}", ((0.0, 0.0), (1.0, 1.0))) for n in range(1000))
    assert render_pdf(alone(LineChart("ROC", "x", "y", told, diagonal=True)))


def test_a_cell_that_names_a_thousand_sites_goes_on_over_the_page() -> None:
    names = tuple(f"hospital-{number:03d}" for number in range(1000))
    text = words(render_pdf(alone(Table("Sites", ("", ""), (("taken in", ", ".join(names)),)))))
    assert all(name in text for name in names)


def test_what_cannot_be_drawn_is_said_with_a_code(report: ReleaseReport, tmp_path: Path) -> None:
    broken = replace(report, rounds=None)  # type: ignore[arg-type]
    with pytest.raises(ReportUndrawn, match="TypeError") as caught:
        write_report(broken, tmp_path)
    assert caught.value.code == "report-undrawn"


def test_a_report_that_cannot_be_drawn_is_not_tried_all_day(coordinator: Coordinator) -> None:
    tried: list[int] = []
    now = [0.0]

    def fail(version: int) -> None:
        tried.append(version)
        raise ProcessError("The report cannot be drawn.", code="report-undrawn")

    keeper = ReportKeeper(coordinator.settings, coordinator.registry, fail, clock=lambda: now[0])
    for now[0] in (0.0, 601.0, 80_000.0, 86_401.0):
        assert keeper.keep() == ()
    assert tried == [1, 1]
