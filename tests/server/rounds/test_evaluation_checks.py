"""A site's invented statistics do not enter a sum."""

import pytest
from pydantic import ValidationError

from common.errors import UpdateRefused
from common.evaluation import SiteEvaluation, evaluate_predictions, merge
from common.evaluation_counts import CalibrationCounts, DecisionCounts
from common.recipe import Recipe
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


def test_counts_beyond_the_types_are_no_document() -> None:
    report = HONEST.model_dump()
    report["decision"]["positives"]["counts"] = (10**12,)
    with pytest.raises(ValidationError):
        SiteEvaluation.model_validate(report)
