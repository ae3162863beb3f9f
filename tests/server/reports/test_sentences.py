"""What a report says in words where something was not compared, or was kept back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.app import RecordDict

from common.evaluation import SiteEvaluation, evaluate_predictions, merge
from common.plan import RoundPlan
from common.records import SiteReply
from common.release import GateCheck
from common.wire import reply_to_records
from server.reports.assembly import document
from server.reports.content import ReleaseReport, candidate_report
from server.reports.document import Heatmap, Paragraph, Table
from server.reports.performance_sections import COMPARED
from tests.server.campaigns import Coordinator
from tests.server.reports.examples import finished, released

FIRST = "There was no earlier release to compare with."
LOWER_BOUNDS = "accuracy and sensitivity are lower bounds"


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Coordinator:
    made, candidate = finished(tmp_path_factory.mktemp("sentences"))
    released(made, candidate)
    return made


@pytest.fixture(scope="module")
def report(coordinator: Coordinator) -> ReleaseReport:
    return candidate_report(coordinator.registry, coordinator.registry.release(1).candidate)


def said(report: ReleaseReport) -> str:
    parts = (part for section in document(report).sections for part in section.parts)
    return " ".join(part.text for part in parts if isinstance(part, Paragraph))


def evaluation(*, minimum_cell: int, cases: int, seed: int) -> SiteEvaluation:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, cases)
    malignant = 1 / (1 + np.exp(-generator.normal(3 * labels - 1.5, 1.2)))
    scores = np.stack([1 - malignant, malignant], axis=1)
    classes = ("benign", "malignant")
    return evaluate_predictions(scores, labels, classes, minimum_cell=minimum_cell)


def of_sites(report: ReleaseReport, **sites: SiteEvaluation) -> ReleaseReport:
    return replace(report, evaluation=merge(list(sites.values())), by_site=tuple(sites.items()))


def silent_on_the_champion(reply: SiteReply, plan: RoundPlan) -> RecordDict:
    told = None if plan.purpose == "train" else reply.evaluation
    return reply_to_records(replace(reply, evaluation=told))


def test_an_earlier_release_that_nobody_scored_is_not_passed_over(
    coordinator: Coordinator, report: ReleaseReport
) -> None:
    assert FIRST in said(report)
    for site in coordinator.sites.values():
        site.behave = silent_on_the_champion
    before = report.campaign
    campaign = coordinator.registry.add_campaign(
        before.recipe,
        before.settings,
        initial_digest=report.draft.model_digest,
        base_release=1,
    )
    candidate = coordinator.run(campaign)
    assert next(c for c in candidate.draft.gate if c.name == COMPARED).figure is None
    unscored = candidate_report(coordinator.registry, campaign.id)
    words = "Nobody scored the earlier release (v1) on the sites that scored this model"
    assert words in said(unscored)
    assert FIRST not in said(unscored)
    lineage = unscored.draft.lineage.model_copy(update={"base_release": None})
    of_another = unscored.draft.model_copy(update={"lineage": lineage})  # the gate knows of one
    assert "Nobody scored the earlier release on" in said(replace(unscored, draft=of_another))


def test_suppression_is_told_where_one_site_of_two_suppresses_nothing(
    report: ReleaseReport,
) -> None:
    strict = evaluation(minimum_cell=10, cases=90, seed=0)
    open_ = evaluation(minimum_cell=1, cases=30, seed=1)
    assert any(strict.unresolved)
    both = of_sites(report, north=strict, south=open_)
    assert both.evaluation is not None
    assert both.evaluation.minimum_cell == 1
    words = "Small counts at some sites (below 10 where the policy is strictest)"
    assert f"{words} were suppressed: {LOWER_BOUNDS}" in said(both)
    assert f"{words} did not leave them" in said(both)
    parts = (part for section in document(both).sections for part in section.parts)
    assert "not told" in next(part for part in parts if isinstance(part, Heatmap)).columns
    assert LOWER_BOUNDS in said(replace(both, by_site=()))  # kept by an older coordinator


def test_suppression_is_told_where_all_suppress_and_only_there(report: ReleaseReport) -> None:
    strict = evaluation(minimum_cell=10, cases=90, seed=0)
    assert "Counts below 10 at the sites were suppressed" in said(of_sites(report, north=strict))
    open_ = said(of_sites(report, north=evaluation(minimum_cell=1, cases=30, seed=1)))
    assert LOWER_BOUNDS not in open_
    assert "did not leave them" not in open_


def test_a_check_that_passed_without_its_figure_is_not_said_to_fail(report: ReleaseReport) -> None:
    waived = GateCheck(name="worst-subgroup", passed=True, limit=0.5, unjudged=("age 80+",))
    gate = (*report.draft.gate, waived)
    found = document(replace(report, draft=report.draft.model_copy(update={"gate": gate})))
    section = next(section for section in found.sections if section.anchor == "gate")
    rows = next(part for part in section.parts if isinstance(part, Table)).rows
    assert rows[-1][1:4] == ("–", "0.500", "not enough cases to judge (not required)")
    words = " ".join(part.text for part in section.parts if isinstance(part, Paragraph))
    assert "A check without its figure fails, unless they name it as not required" in words
