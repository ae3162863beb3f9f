"""Reports of real campaigns: complete, self-contained, honest about what is missing."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flwr.app import RecordDict
from reportlab.graphics.shapes import String

from common.errors import NotFound
from common.plan import RoundPlan
from common.records import SiteReply
from common.release import Lineage, SiteContribution
from common.wire import reply_to_records
from server.registry.records import Candidate
from server.reports.assembly import document
from server.reports.checklists import CLAIM, TRIPOD_AI
from server.reports.content import ReleaseReport, candidate_report, release_report
from server.reports.document import Document, Heatmap, LineChart, Paragraph, Table
from server.reports.html import render_html
from server.reports.making import make_in_child
from server.reports.pdf import HEIGHT, WIDTH, render_pdf
from server.reports.pdf_charts import draw
from server.reports.performance_sections import performance
from server.reports.plotly_figures import figure_of
from server.reports.store import ReportKeeper, report_paths
from tests.server.campaigns import Coordinator
from tests.server.reports.examples import SITES, finished, released

CHROMIUM = os.environ.get("WARDROUND_CHROMIUM") or shutil.which("chromium")
Run = tuple[Coordinator, Candidate]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished(tmp_path_factory.mktemp("reports"))


@pytest.fixture(scope="module")
def report(run: Run) -> ReleaseReport:
    coordinator, candidate = run
    released(coordinator, candidate)
    return release_report(coordinator.registry, 1)


@pytest.fixture(scope="module")
def page(report: ReleaseReport) -> bytes:
    return render_html(document(report))


def bare(report: ReleaseReport) -> ReleaseReport:
    """Return what an older coordinator would have left: no counts, no receipts, no verdicts."""
    parts = tuple(SiteContribution(site=p.site, rounds=p.rounds) for p in report.sites)
    lineage: Lineage = report.draft.lineage.model_copy(update={"sites": parts})
    draft = report.draft.model_copy(update={"lineage": lineage, "gate": ()})
    sites = tuple(replace(part, receipt=None) for part in report.sites)
    rounds = tuple(replace(r, metrics=None) for r in report.rounds)
    return replace(report, draft=draft, evaluation=None, sites=sites, rounds=rounds, by_site=())


def table(found: Document, caption: str) -> Table:
    parts = (part for section in found.sections for part in section.parts)
    return next(p for p in parts if isinstance(p, Table) and p.caption.startswith(caption))


def test_every_figure_is_the_registrys(report: ReleaseReport) -> None:
    found = document(report)
    glance = dict(table(found, "At a glance").rows)
    scores = report.draft.metrics.candidate
    assert glance["Macro AUROC"].startswith(f"{scores.macro_auroc:.3f}")
    assert glance["Holdout cases"] == str(scores.count)
    spent = table(found, "What it cost").rows
    assert [row[0] for row in spent] == list(SITES)
    for row, part in zip(spent, report.sites, strict=True):
        assert part.receipt is not None
        assert row[2] == f"{part.receipt.epsilon_campaign:.2f}"
    verdicts = table(found, "Verdicts").rows
    assert [row[0] for row in verdicts] == [check.name for check in report.draft.gate]
    assert all(row[3] == "passed" for row in verdicts)
    digests = {cell for row in table(found, "Where it comes from").rows for cell in row}
    assert {report.draft.model_digest, "5" * 64, report.campaign.id} <= digests


def test_a_site_whose_life_nothing_bounds_is_said_to_be_so(report: ReleaseReport) -> None:
    first, *others = report.sites
    assert first.receipt is not None
    told = first.receipt.model_copy(update={"epsilon_life": None})
    found = document(replace(report, sites=(replace(first, receipt=told), *others)))
    row = table(found, "What it cost").rows[0]
    assert (row[0], row[3]) == (first.site, "unbounded")
    assert "once trained without privacy" in render_html(found).decode()
    assert "once trained without privacy" not in render_html(document(report)).decode()


def test_the_confusion_matrix_is_drawn_with_all_cases(report: ReleaseReport) -> None:
    parts = (part for section in document(report).sections for part in section.parts)
    matrix = next(part for part in parts if isinstance(part, Heatmap))
    assert sum(map(sum, matrix.counts)) == report.draft.metrics.candidate.count


def test_a_failed_check_is_said_at_the_top(report: ReleaseReport) -> None:
    worse = tuple(c.model_copy(update={"passed": False}) for c in report.draft.gate[:1])
    draft = report.draft.model_copy(update={"gate": worse + report.draft.gate[1:]})
    text = render_html(document(replace(report, draft=draft))).decode()
    assert f"The release gate refused it: {worse[0].name}." in text


LOADING = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"}


class _References(HTMLParser):
    """Collects every attribute that a browser would load, and the scripts' and styles' text."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.text: dict[str, str] = {"style": ""}
        self.policy = ""
        self._tag = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.loaded += [value or "" for name, value in attrs if name in LOADING]
        named = dict(attrs)
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named.get("content") or ""

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""

    def handle_data(self, data: str) -> None:
        self.text[self._tag] = self.text.get(self._tag, "") + data


def test_the_html_refers_to_nothing_outside_itself(page: bytes) -> None:
    found = _References()
    found.feed(page.decode())
    assert found.loaded
    assert all(reference.startswith("#") for reference in found.loaded)
    assert not re.search(r"url\(|@import", found.text["style"])
    without_plotly = re.sub(r"<script>.*?</script>", "", page.decode(), flags=re.S)
    assert not re.search(r"https?://|//[a-z]+\.", without_plotly)
    assert "default-src 'none'" in found.policy
    assert "unsafe-eval" not in found.policy
    assert "'unsafe-inline'" not in found.policy.split("script-src")[1]


HEIGHTS = (
    "[...document.querySelectorAll('.chart')].map(chart => [chart.getBoundingClientRect().height, "
    "chart.querySelector('.main-svg').getBoundingClientRect().height])"
)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH nor in WARDROUND_CHROMIUM")
def test_a_browser_draws_every_chart_and_asks_for_nothing(page: bytes, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    path = tmp_path / "report.html"
    path.write_bytes(page)
    asked: list[str] = []
    faults: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda said: faults.append(said.text))
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto(path.as_uri())
        tab.wait_for_selector("#chart-1 .main-svg")
        charts, drawn = tab.locator(".chart").count(), tab.locator(".chart .plot-container").count()
        tab.set_viewport_size({"width": 390, "height": 800})
        tab.wait_for_selector(f'#chart-{charts} .main-svg[width="350"]')
        boxes = tab.evaluate(HEIGHTS)
        browser.close()
    assert charts == drawn >= 4
    assert all(frame >= drawing for frame, drawing in boxes)  # none lies over the text below it
    assert asked == [path.as_uri()]
    assert faults == []


def test_rounds_are_counted_in_whole_numbers(report: ReleaseReport) -> None:
    parts = (part for section in document(report).sections for part in section.parts)
    chart = next(p for p in parts if isinstance(p, LineChart) and p.x_label == "round")
    assert chart.x_range == (1.0, 4.0)
    assert figure_of(chart)["layout"]["xaxis"]["dtick"] == 1
    (drawing,) = draw(chart, width=WIDTH, height=HEIGHT)
    texts = [shape.text for shape in drawing.getContents() if isinstance(shape, String)]
    assert {"1", "2", "3", "4"} <= set(texts)
    assert "1.5" not in texts


def test_the_pdf_holds_every_section_and_is_the_same_each_time(report: ReleaseReport) -> None:
    pdfium = pytest.importorskip("pypdfium2")
    found = document(report)
    data = render_pdf(found)
    assert data == render_pdf(found)
    with pdfium.PdfDocument(data) as opened:
        text = " ".join(page.get_textpage().get_text_range() for page in opened)
    for section in found.sections:
        assert section.title in " ".join(text.split())
    assert report.draft.model_digest in text


def test_what_a_release_lacks_is_said_not_guessed(report: ReleaseReport) -> None:
    found = document(bare(report))
    lacking = {section.anchor for section in found.sections if not section.answers}
    assert {"performance", "calibration", "sites", "subgroups", "privacy", "gate"} <= lacking
    text = render_html(found).decode()
    assert "no curve can be drawn" in text
    assert "in part: Model card; not answered for this release: see Privacy receipts" in text
    assert "not answered for this release: see By site" in text
    told = {row[0]: row[2] for row in table(found, "CLAIM").rows}
    assert told["37"] == "not answered for this release: see Discrimination"
    assert told["38"] == (
        "in part: Operating threshold; not answered for this release: see Discrimination"
    )
    assert render_pdf(found).startswith(b"%PDF")


def test_every_item_of_both_guidelines_stands_once(report: ReleaseReport) -> None:
    assert len({item.number for item in TRIPOD_AI.items}) == len(TRIPOD_AI.items) == 52
    assert [item.number for item in CLAIM.items] == [str(n) for n in range(1, 45)]
    found = document(report)
    anchors = {section.anchor for section in found.sections}
    for checklist in (TRIPOD_AI, CLAIM):
        assert {a for item in checklist.items for a in item.anchors} <= anchors
    rows = table(found, "TRIPOD").rows
    told = {row[0]: row[2] for row in rows}
    assert told["12e"] == "Discrimination; Calibration"
    lacking = "not answered for this release: see By subgroup"
    assert told["23a"] == f"in part: Discrimination; {lacking}"  # no site released subgroups
    assert told["14"] == f"in part: Release gate; {lacking}"
    assert told["17"] == "not answered by Wardround: for the investigators"


def test_a_hostile_title_is_text_in_both(report: ReleaseReport) -> None:
    title = '</script><script>alert(1)</script>"<b>&\u2028 \u4e2d'
    classes = ("<img src=x>", "malignant")
    decision = report.recipe.decision.model_copy(update={"positive_classes": ("malignant",)})
    recipe = report.recipe.model_copy(
        update={"title": title, "classes": classes, "decision": decision}
    )
    assert report.evaluation is not None
    evaluation = report.evaluation.model_copy(update={"classes": classes})
    draft = report.draft.model_copy(update={"recipe": recipe})
    found = document(replace(report, draft=draft, evaluation=evaluation))
    text = render_html(found).decode()
    assert "alert(1)</script>" not in text
    assert "<img" not in text.replace("\\u003cimg", "")[: text.index("<script>")]
    assert text.count("<script") == 3
    assert render_pdf(found).startswith(b"%PDF")


def test_a_candidate_can_be_read_before_it_is_released(tmp_path: Path) -> None:
    coordinator, candidate = finished(tmp_path)
    found = candidate_report(coordinator.registry, candidate.campaign)
    assert found.version is None
    assert "not published" in render_html(document(found)).decode()
    with pytest.raises(NotFound):
        release_report(coordinator.registry, 1)
    with pytest.raises(NotFound):
        candidate_report(coordinator.registry, "none")


def test_reports_are_kept_for_every_release_and_a_failure_holds_up_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    coordinator, candidate = finished(tmp_path)
    released(coordinator, candidate)
    now = [0.0]
    settings = coordinator.settings
    keeper = ReportKeeper(
        settings,
        coordinator.registry,
        make=lambda version: make_in_child(settings, version),
        clock=lambda: now[0],
    )
    folder = report_paths(coordinator.settings, 1).html.parent
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    assert keeper.keep() == ()
    assert "report-failed version=1 code=report-unwritten" in caplog.text
    folder.unlink()
    assert keeper.keep() == ()  # not at once again
    now[0] = 601.0
    assert keeper.keep() == (1,)
    assert report_paths(coordinator.settings, 1).made
    assert keeper.keep() == ()


def test_each_sites_counts_are_kept_and_add_up(run: Run) -> None:
    coordinator, candidate = run
    told = coordinator.registry.site_evaluations(candidate.id)
    assert set(told) == set(SITES)
    assert candidate.evaluation is not None
    assert sum(counts.cases for counts in told.values()) == candidate.evaluation.cases
    assert coordinator.registry.site_evaluations("none") == {}


def test_what_is_compared_on_other_patients_is_called_so(tmp_path: Path) -> None:
    """West scores the candidate alone: its easy patients are in one column, not in both."""
    coordinator, first = finished(tmp_path)
    released(coordinator, first)
    west = coordinator.sites["west"]

    def silent_on_the_champion(reply: SiteReply, plan: RoundPlan) -> RecordDict:
        told = None if plan.purpose == "train" else reply.evaluation
        return reply_to_records(replace(reply, evaluation=told))

    west.behave = silent_on_the_champion
    before = coordinator.registry.campaign(first.campaign)
    campaign = coordinator.registry.add_campaign(
        before.recipe, before.settings, initial_digest=first.model_digest, base_release=1
    )
    second = coordinator.run(campaign)
    metrics = second.draft.metrics
    assert metrics.champion is not None
    assert (metrics.candidate.count, metrics.champion.count) == (180, 120)
    (check,) = [c for c in second.draft.gate if c.name == "champion-non-inferiority"]
    section = performance(candidate_report(coordinator.registry, campaign.id))
    (table,) = [p for p in section.parts if isinstance(p, Table) and "replaces" in p.caption]
    assert table.headings == ("", "this model, all sites", "earlier (v1), common sites")
    assert "on the sites that scored both" in table.caption
    said = " ".join(p.text for p in section.parts if isinstance(p, Paragraph))
    assert check.figure is not None
    assert f"macro AUROC is {check.figure:.3f} there, the limit {check.limit:.3f}" in said
    assert "on the 2 sites that scored both" in said
