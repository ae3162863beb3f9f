"""The gate's checks that a protocol may ask for, each passing, failing, and lacking its figure."""

import re
from dataclasses import replace

import numpy as np
import pytest

from common.evaluation import CaseGroups, SiteEvaluation, evaluate_predictions
from common.evaluation_counts import Statistic
from common.evaluation_figures import rates_at
from common.release import GateCheck
from server.evaluation import merged
from server.gate.operating_point import operating_threshold
from server.release_gate import Evidence, judge
from tests.fakes import CLASSES
from tests.server.test_release_gate import GOOD, failed, recipe

EVERYTHING: tuple[Statistic, ...] = ("decision", "calibration", "subgroups")


def site(
    signal: float,
    *,
    seed: int = 0,
    cases: int = 300,
    women: float | None = None,
    statistics: tuple[Statistic, ...] = EVERYTHING,
) -> SiteEvaluation:
    """Scores that are right about their certainty at a signal of 1; ``women`` is their signal."""
    generator = np.random.default_rng(seed)
    labels = np.arange(cases) % 2
    sex = np.arange(cases) // 2 % 2
    strength = np.where(sex == 0, signal if women is None else women, signal)
    logits = strength * (2 * labels - 1) + generator.normal(size=cases)
    positive = 1 / (1 + np.exp(-2 * logits))
    return evaluate_predictions(
        np.stack([1 - positive, positive], axis=1), labels, CLASSES, minimum_cell=5,
        positive_classes=(CLASSES[1],), statistics=statistics,
        groups=CaseGroups(age=np.full(cases, 2), sex=sex),
    )  # fmt: skip


def evidence(*sites: SiteEvaluation, **limits: object) -> Evidence:
    named = {f"site-{index}": found for index, found in enumerate(sites)}
    return replace(GOOD, recipe=recipe(**limits), candidate=named)


def check(found: Evidence, name: str) -> GateCheck:
    (one,) = [c for c in judge(found) if c.name == name]
    return one


GOOD_SITES = (site(1.0), site(1.0, seed=1))
BARE = (site(1.0, statistics=()), site(1.0, seed=1, statistics=()))


@pytest.mark.parametrize(
    ("name", "limit", "easy", "hard"),
    [
        ("sensitivity-floor", "sensitivity_floor", 0.5, 0.99),
        ("calibration-error", "calibration_error_ceiling", 0.2, 0.001),
        ("worst-site-sensitivity", "worst_site_sensitivity_floor", 0.6, 0.99),
        ("worst-site", "worst_site_auroc_floor", 0.6, 0.99),
        ("worst-subgroup", "worst_subgroup_auroc_floor", 0.6, 0.99),
    ],
)
def test_a_limit_is_kept_or_broken(name: str, limit: str, easy: float, hard: float) -> None:
    assert failed(evidence(*GOOD_SITES, **{limit: easy})) == ()
    assert failed(evidence(*GOOD_SITES, **{limit: hard})) == (name,)
    assert not [c for c in judge(evidence(*GOOD_SITES)) if c.name == name]


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("sensitivity-floor", "sensitivity_floor"),
        ("worst-site-sensitivity", "worst_site_sensitivity_floor"),
        ("calibration-error", "calibration_error_ceiling"),
        ("worst-subgroup", "worst_subgroup_auroc_floor"),
    ],
)
def test_what_no_policy_releases_fails_unless_it_is_not_required(name: str, limit: str) -> None:
    shut = evidence(*BARE, **{limit: 0.5})
    assert failed(shut) == (name,)
    assert check(shut, name).figure is None
    assert "cannot be computed" in check(shut, name).explanation
    waived = evidence(*BARE, **{limit: 0.5, "not_required": (name,)})
    assert failed(waived) == ()
    assert "does not require it" in check(waived, name).explanation
    # Where the figure is there, it counts.
    hard = 0.001 if name == "calibration-error" else 0.999
    held = evidence(*GOOD_SITES, **{limit: hard, "not_required": (name,)})
    assert failed(held) == (name,)


@pytest.mark.parametrize("wanted", [None, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("answer", [0.05, 0.5, 0.95])
def test_always_the_same_verdict_is_refused(wanted: float | None, answer: float) -> None:
    labels = (np.arange(400) % 4 == 0).astype(int)
    constant = evaluate_predictions(
        np.tile([1 - answer, answer], (400, 1)), labels, CLASSES, minimum_cell=5,
        positive_classes=(CLASSES[1],), statistics=EVERYTHING[:2],
    )  # fmt: skip
    found = evidence(constant, constant, wanted_sensitivity=wanted)
    assert not check(found, "majority-balanced-accuracy").passed


def test_a_ranking_whose_threshold_makes_use_of_it_is_an_answer() -> None:
    """Its highest probability is always that of the first class."""
    shy = []
    for seed in range(2):
        generator = np.random.default_rng(seed)
        labels = np.arange(200) % 2
        positive = 1 / (1 + np.exp(-(1.5 * labels + generator.normal(size=200) - 9)))
        shy.append(
            evaluate_predictions(
                np.stack([1 - positive, positive], axis=1), labels, CLASSES, minimum_cell=5,
                positive_classes=(CLASSES[1],), statistics=EVERYTHING[:2],
            )
        )  # fmt: skip
    assert not check(evidence(*shy), "majority-balanced-accuracy").passed  # at the recipe's 0.5
    found = check(evidence(*shy, wanted_sensitivity=0.9), "majority-balanced-accuracy")
    assert found.passed
    assert "verdict" in found.explanation


def test_one_bad_site_is_named() -> None:
    found = evidence(*GOOD_SITES, site(-0.8, seed=3), worst_site_auroc_floor=0.5)
    assert "worst-site" in failed(found)
    assert "site-2" in check(found, "worst-site").explanation
    assert check(found, "worst-site").unjudged == ()


def test_a_site_that_is_below_fails_though_its_interval_reaches_the_floor() -> None:
    weak = site(-0.1, seed=3, cases=60)
    found = check(evidence(*GOOD_SITES, weak, worst_site_auroc_floor=0.5), "worst-site")
    assert not found.passed
    assert found.figure is not None
    assert found.figure < 0.5
    ends = re.search(r"site-2 \(95 % (\S+) to (\S+)\)", found.explanation)
    assert ends is not None
    assert float(ends[1]) < 0.5 < float(ends[2])


def test_too_few_cases_are_a_verdict_of_their_own() -> None:
    small = site(-0.2, seed=3, cases=18)  # nine of each class
    found = check(evidence(*GOOD_SITES, small, worst_site_auroc_floor=0.5), "worst-site")
    assert found.passed
    assert found.unjudged == ("site-2",)
    assert "2 of 3 judged" in found.explanation
    assert "Not enough cases to judge (10 of a class and of the others): site-2" in (
        found.explanation
    )
    lower = evidence(*GOOD_SITES, small, worst_site_auroc_floor=0.5, judged_cases=9)
    assert not check(lower, "worst-site").passed
    # Where nobody can be judged, there is no figure, and without a figure nothing is released.
    only = evidence(small, small, worst_site_auroc_floor=0.5)
    assert check(only, "worst-site").verdict == "not enough cases to judge"
    assert "worst-site" in failed(only)
    waived = evidence(small, small, worst_site_auroc_floor=0.5, not_required=("worst-site",))
    assert check(waived, "worst-site").passed
    assert check(waived, "worst-site").verdict == "not enough cases to judge"


def test_harm_that_few_cases_show_beyond_doubt_is_not_too_few() -> None:
    backwards = site(-4.0, seed=3, cases=18)
    found = check(evidence(*GOOD_SITES, backwards, worst_site_auroc_floor=0.5), "worst-site")
    assert not found.passed
    assert found.unjudged == ()


def test_one_bad_subgroup_is_named() -> None:
    sites = [site(1.0, seed=s, women=-0.5) for s in range(2)]
    found = evidence(*sites, worst_subgroup_auroc_floor=0.5)
    assert "worst-subgroup" in failed(found)
    assert "sex female" in check(found, "worst-subgroup").explanation


def test_the_threshold_reaches_the_wanted_sensitivity() -> None:
    found = evidence(*GOOD_SITES, wanted_sensitivity=0.95)
    threshold = operating_threshold(found)
    total = merged(found.candidate)
    assert total is not None
    assert total.decision is not None
    assert threshold != found.recipe.decision.threshold
    assert rates_at(total.decision, threshold).sensitivity == pytest.approx(0.95, abs=0.005)
    assert failed(found) == ()
    without = evidence(*BARE, wanted_sensitivity=0.95)
    assert operating_threshold(without) == without.recipe.decision.threshold
    assert failed(without) == ("sensitivity-floor", "worst-site-sensitivity")


def test_the_interval_of_the_gain_refuses_what_is_worse_and_what_is_unknown() -> None:
    champion = {"site-0": site(1.0), "site-1": site(1.0, seed=1)}
    limits = {"interval_margin": 0.05, "non_inferiority_margin": 1.0}
    same = replace(evidence(*GOOD_SITES, **limits), champion=champion)
    assert failed(same) == ()
    worse = replace(evidence(site(0.6), site(0.6, seed=1), **limits), champion=champion)
    assert failed(worse) == ("champion-interval",)
    few = tuple(site(0.5, seed=s, cases=20) for s in range(2))
    unknown = replace(evidence(*few, **limits), champion={f"site-{s}": few[s] for s in range(2)})
    assert "champion-interval" in failed(unknown)
    assert "champion-interval" in failed(replace(same, champion={}))


def test_weights_far_from_the_base_are_refused() -> None:
    base = {"w": np.ones(3, dtype=np.float32), "n": np.array(1)}
    limits = recipe(largest_change=2.0)
    moved = {"w": np.full(3, 2.5, dtype=np.float32), "n": np.array(9)}
    near = replace(GOOD, recipe=limits, base=base, tensors=moved)
    assert failed(near) == ()
    assert check(near, "distance-to-base").figure == pytest.approx(1.5)
    far = replace(near, tensors={"w": np.full(3, 4.0, dtype=np.float32), "n": np.array(1)})
    assert failed(far) == ("distance-to-base",)
    for missing in (None, {"v": base["w"]}, {"w": np.ones(4, np.float32), "n": base["n"]}):
        assert failed(replace(near, base=missing)) == ("distance-to-base",)


def test_the_epsilon_ceiling_holds_even_where_the_campaign_asked_for_more() -> None:
    spent = max(c.receipt.epsilon_campaign or 0 for c in GOOD.accepted if c.receipt is not None)
    assert failed(replace(GOOD, recipe=recipe(epsilon_ceiling=spent * 1.1))) == ()
    assert failed(replace(GOOD, recipe=recipe(epsilon_ceiling=spent * 0.9))) == ("privacy-spent",)
    bare = replace(GOOD, epsilon=None, accepted=())
    assert "privacy-spent" in failed(replace(bare, recipe=recipe(epsilon_ceiling=1.0)))
