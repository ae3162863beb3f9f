"""Two models are compared over the same classes: an easy class that one lacks moves a mean."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.evaluation import SiteEvaluation, evaluate_predictions
from common.recipe import Recipe
from server.evaluation import BySite, pooled_metrics
from server.release_gate import Evidence
from server.rounds.scoring import gain
from tests.fakes import FakeSite
from tests.server.campaigns import Coordinator
from tests.server.test_gate_checks import check
from tests.server.test_release_gate import GOOD, failed, recipe

NAME = "champion-non-inferiority"
CLASSES = ("a", "b", "c")
STRONG, WEAK, POOR = (1.9, 1.9, 0.0), (1.6, 1.6, -1.5), (0.8, 0.8, 0.0)


def scored(signals: tuple[float, ...], cases: tuple[int, ...], *, seed: int) -> SiteEvaluation:
    """Answers that know a class the better, the higher its signal; cells below 10 are hidden."""
    generator = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], cases)
    logits = generator.normal(size=(len(labels), 3)) + np.eye(3)[labels] * np.array(signals)
    odds = np.exp(logits)
    return evaluate_predictions(
        odds / odds.sum(axis=1, keepdims=True), labels, CLASSES, minimum_cell=10
    )


def sites(signals: tuple[float, ...], third: int) -> dict[str, SiteEvaluation]:
    """North has so many patients of the third, hard class, South none."""
    return {
        "north": scored(signals, (400, 400, third), seed=1),
        "south": scored(signals, (400, 400, 0), seed=2),
    }


def evidence(candidate: BySite, champion: BySite) -> Evidence:
    # Ten more negatives move the other classes' AUROCs a little.
    three: Recipe = recipe(non_inferiority_margin=0.02).model_copy(update={"classes": CLASSES})
    return replace(GOOD, recipe=three, candidate=candidate, champion=champion)


def test_a_class_that_the_candidate_lacks_is_not_passed_over() -> None:
    """With its tenth patient the third class is told of, with nine it is not."""
    champion, candidate = sites(STRONG, 10), sites(WEAK, 9)
    before, after = (pooled_metrics(one, CLASSES).macro_auroc for one in (champion, candidate))
    assert before is not None
    assert after is not None
    assert after > before  # over three classes, and over the two easy ones
    found = evidence(candidate, champion)
    assert failed(found) == (NAME,)
    assert check(found, NAME).figure is None
    assert "The candidate has none for c, where" in check(found, NAME).explanation


def test_a_class_that_only_the_candidate_has_changes_no_verdict() -> None:
    for signals, verdict in ((STRONG, ()), (POOR, (NAME,))):
        champion = sites(STRONG, 9)
        without, beside = (evidence(sites(signals, third), champion) for third in (9, 10))
        assert failed(without) == failed(beside) == verdict
        assert check(beside, NAME).limit == check(without, NAME).limit
        figures = check(without, NAME).figure, check(beside, NAME).figure
        assert figures[0] == pytest.approx(figures[1], abs=0.01)


def test_rounds_are_compared_over_the_same_classes(tmp_path: Path) -> None:
    made = Coordinator(tmp_path, [FakeSite("north")]).create(rounds=2)
    campaign = replace(made, recipe=made.recipe.model_copy(update={"classes": CLASSES}))
    assert gain(sites(WEAK, 9), sites(STRONG, 10), campaign) is None
    worse = gain(sites(POOR, 10), sites(STRONG, 9), campaign)
    assert worse is not None
    assert worse < 0
    assert gain(sites(STRONG, 10), sites(STRONG, 10), campaign) == 0
