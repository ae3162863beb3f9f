"""Threshold, calibration, sites and subgroups in a report, against the exact predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.evaluation import CaseGroups, SiteEvaluation, evaluate_predictions, merge
from server.reports.assembly import document
from server.reports.content import ReleaseReport, candidate_report
from server.reports.document import Document, IntervalChart, Table
from server.reports.html import render_html
from server.reports.pdf import render_pdf
from tests.server.reports.examples import finished

RNG = np.random.default_rng(3)
LABELS = RNG.integers(0, 2, 400)
MALIGNANT = 1 / (1 + np.exp(-RNG.normal(np.where(LABELS == 1, 1.0, -1.0), 1.0)))
SEX = RNG.integers(0, 2, 400)
AGE = RNG.integers(-1, 4, 400)
SITE = np.arange(400) % 2


def counts(chosen: np.ndarray) -> SiteEvaluation:
    return evaluate_predictions(
        np.stack([1 - MALIGNANT, MALIGNANT], axis=1)[chosen],
        LABELS[chosen],
        ("benign", "malignant"),
        minimum_cell=1,
        positive_classes=("malignant",),
        statistics=("decision", "calibration", "subgroups"),
        groups=CaseGroups(age=AGE[chosen], sex=SEX[chosen]),
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ReleaseReport:
    folder: Path = tmp_path_factory.mktemp("groups")
    coordinator, candidate = finished(folder)
    found = candidate_report(coordinator.registry, candidate.campaign)
    parts = (("north", counts(SITE == 0)), ("south", counts(SITE == 1)))
    return replace(found, evaluation=merge([c for _, c in parts]), by_site=parts)


def table(found: Document, anchor: str) -> Table:
    section = next(s for s in found.sections if s.anchor == anchor)
    return next(part for part in section.parts if isinstance(part, Table))


def first(cell: str) -> float:
    return float(cell.split(maxsplit=1)[0])


def test_the_decisions_rates_are_exact(report: ReleaseReport) -> None:
    rows = {row[0]: row for row in table(document(report), "threshold").rows}
    called = report.draft.threshold <= MALIGNANT
    assert first(rows["Sensitivity"][2]) == pytest.approx(called[LABELS == 1].mean(), abs=2e-3)
    assert first(rows["Specificity"][2]) == pytest.approx((~called)[LABELS == 0].mean(), abs=2e-3)
    assert rows["Sensitivity"][1] == str((LABELS == 1).sum())


def test_each_site_and_subgroup_has_its_own_figures(report: ReleaseReport) -> None:
    found = document(report)
    sites = table(found, "sites").rows
    assert [row[:2] for row in sites] == [("north", "200"), ("south", "200")]
    groups = {row[0]: row for row in table(found, "subgroups").rows}
    women = SEX == 0
    assert groups["sex female"][1] == str(women.sum())
    called = report.draft.threshold <= MALIGNANT[women & (LABELS == 1)]
    assert first(groups["sex female"][3]) == pytest.approx(called.mean(), abs=0.02)
    charts = [p for s in found.sections for p in s.parts if isinstance(p, IntervalChart)]
    assert len(charts) == 2
    assert all(e.low is not None and e.low <= e.figure for c in charts for e in c.estimates)


def test_both_renderings_hold_them(report: ReleaseReport) -> None:
    found = document(report)
    assert all(section.answers for section in found.sections)
    text = render_html(found).decode()
    assert "not answered for this release" not in text
    assert "in part:" not in text
    assert "age 40-59" in text
    assert render_pdf(found).startswith(b"%PDF")


def test_a_site_that_was_not_evaluated_is_named(report: ReleaseReport) -> None:
    text = render_html(document(report)).decode()
    assert "No figure of this report is over patients of west:" in text
