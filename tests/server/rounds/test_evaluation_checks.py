"""A site's invented statistics do not enter a sum."""

from collections import Counter

import pytest
from pydantic import ValidationError

from common.errors import UpdateRefused
from common.evaluation import SiteEvaluation, evaluate_predictions, merge
from common.evaluation_counts import CalibrationCounts, DecisionCounts
from common.recipe import Recipe
from common.score_histogram import ScoreHistogram
from server.evaluation import merged
from server.rounds import evaluation_checks
from server.rounds.evaluation_checks import check_evaluation
from tests.common.test_evaluation import CLASSES, predictions
from tests.common.test_evaluation_statistics import POSITIVE, counted
from tests.fakes import toy_recipe


def recipe() -> Recipe:
    decision = toy_recipe().decision.model_copy(update={"positive_classes": POSITIVE})
    return toy_recipe().model_copy(update={"classes": CLASSES, "decision": decision})


HONEST = counted(1, 400, minimum=5)[2]


def test_an_honest_report_passes() -> None:
    check_evaluation(HONEST, recipe())
    check_evaluation(counted(1, 400)[2], recipe())
    scores, labels = predictions(0, 90, 3, 1.0, 1.0)
    check_evaluation(evaluate_predictions(scores, labels, CLASSES, minimum_cell=5), recipe())


def spoilt(name: str) -> SiteEvaluation:
    assert HONEST.decision is not None
    assert HONEST.calibration is not None
    decision, calibration = HONEST.decision, HONEST.calibration
    few = CalibrationCounts(right=calibration.right)
    swapped = DecisionCounts(positives=decision.negatives, negatives=decision.positives)
    part = HONEST.subgroups[0]
    assert part.counts.decision is not None
    sides = part.counts.decision
    turned = DecisionCounts(positives=sides.negatives, negatives=sides.positives)
    bold = part.counts.model_copy(update={"decision": turned})
    changes: dict[str, dict[str, object]] = {
        "wrong answers left out": {"calibration": few},
        "sides swapped": {"decision": swapped},
        "part of the positives": {"decision": DecisionCounts(negatives=decision.negatives)},
        "a subgroup's sides swapped": {"subgroups": (part.model_copy(update={"counts": bold}),)},
        "other classes": {"classes": ("x", "y", "z"), "subgroups": ()},
    }
    return HONEST.model_copy(update=changes[name])


@pytest.mark.parametrize(
    "name",
    [
        "wrong answers left out",
        "sides swapped",
        "part of the positives",
        "a subgroup's sides swapped",
        "other classes",
    ],
)
def test_what_contradicts_itself_or_the_recipe_is_refused(name: str) -> None:
    # It reads as a document: the sum over several sites may look like that.
    false = SiteEvaluation.model_validate(spoilt(name).model_dump())
    with pytest.raises(UpdateRefused) as caught:
        check_evaluation(false, recipe())
    assert caught.value.code == "reply-evaluation"


def test_one_hospital_cannot_outweigh_all_others() -> None:
    huge = HONEST
    for _ in range(13):
        huge = merge([huge, huge])
    assert huge.cases > evaluation_checks.MAXIMUM_CASES
    with pytest.raises(UpdateRefused, match="more cases than a hospital"):
        check_evaluation(huge, recipe())


def test_a_report_of_endless_ranges_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_checks, "MAXIMUM_RANGES", 1000)
    with pytest.raises(UpdateRefused, match="too large"):
        check_evaluation(counted(1, 600)[2], recipe())


def evaluation(scores: ScoreHistogram) -> SiteEvaluation:
    """Cases of the first class alone, all errors."""
    empty, cases = ScoreHistogram(), scores.total
    return SiteEvaluation(
        classes=CLASSES,
        minimum_cell=1,
        positives=(scores, empty, empty),
        negatives=(empty, *2 * (ScoreHistogram(starts=(9,), widths=(1,), counts=(cases,)),)),
        confusion=3 * ((0, 0, 0),),
        unresolved=(cases, 0, 0),
    )


def scattered(ranges: int, *, width: int = 1) -> SiteEvaluation:
    """A report whose every case is told in a range of its own."""
    counts = Counter((2 * i % 60_000, width + i // 30_000) for i in range(ranges))
    return evaluation(ScoreHistogram.of(counts))


def test_the_sum_of_reports_that_pass_is_a_sum() -> None:
    """Honest sites' ranges differ: all together have more than any one of them may send."""
    sites = {name: scattered(60_000, width=w) for name, w in (("north", 1), ("south", 5))}
    for one in sites.values():
        check_evaluation(one, recipe())
    total = merged(sites)
    assert total is not None
    assert total.cases == len(total.positives[0].counts) == 120_000
    assert SiteEvaluation.model_validate_json(total.model_dump_json()) == total, "it is stored"


def test_one_histogram_of_a_report_is_bounded() -> None:
    with pytest.raises(UpdateRefused, match="a histogram that is too large"):
        check_evaluation(scattered(100_001), recipe())


def test_a_site_that_no_sum_can_hold_is_left_out_by_name(caplog: pytest.LogCaptureFixture) -> None:
    huge = evaluation(ScoreHistogram(starts=(7,), widths=(1,), counts=(10**9 - 5,)))
    few, two = (evaluation(ScoreHistogram(starts=(7,), widths=(1,), counts=(n,))) for n in (3, 2))
    total = merged({"east": few, "north": huge, "south": huge, "west": two})
    assert total is not None
    assert total.cases == 10**9 - 5 + 3 + 2
    assert caplog.messages == ["evaluation-left-out site=south"]


def test_counts_beyond_the_types_are_no_document() -> None:
    report = HONEST.model_dump()
    report["decision"]["positives"]["counts"] = (10**12,)
    with pytest.raises(ValidationError):
        SiteEvaluation.model_validate(report)
