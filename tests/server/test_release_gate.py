from dataclasses import replace

import numpy as np
import pytest

from common.evaluation import SiteEvaluation, evaluate_predictions
from common.recipe import Recipe, ReleaseGateSpec
from server.evaluation import (
    balanced_accuracy_lower_bound,
    macro_auroc_lower_bound,
    most_correct,
    on_common_sites,
    pooled_metrics,
)
from server.registry.records import Contribution
from server.release_gate import Evidence, failures, judge
from tests.fakes import CLASSES, FakeSite, first_model, toy_recipe
from tests.plans import make_plan


def scored(
    signal: float, *, cases: int = 200, share: float = 0.5, seed: int = 0, threshold: float = 0.0
) -> SiteEvaluation:
    """Answers whose AUROC grows with ``signal``; ``threshold`` shifts the decision."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(cases) < share * cases).astype(int)
    logits = signal * (2 * labels - 1) + generator.normal(size=cases) - threshold
    positive = 1 / (1 + np.exp(-logits))
    scores = np.stack([1 - positive, positive], axis=1)
    return evaluate_predictions(scores, labels, CLASSES, minimum_cell=5)


def recipe(**limits: object) -> Recipe:
    return toy_recipe().model_copy(update={"release": ReleaseGateSpec.model_validate(limits)})


def accepted(*sites: str) -> tuple[Contribution, ...]:
    plan = make_plan()
    return tuple(
        Contribution(
            "campaign", 1, site, 1, "accepted",
            receipt=FakeSite(site).honest(plan, first_model()).receipt,
        )
        for site in sites
    )  # fmt: skip


GOOD = Evidence(
    recipe=recipe(),
    epsilon=8.0,
    tensors={"w": np.ones(3, dtype=np.float32), "n": np.array(1)},
    candidate={"north": scored(1.0), "south": scored(1.0, seed=1)},
    champion=None,
    accepted=accepted("north", "south"),
)


def failed(evidence: Evidence) -> tuple[str, ...]:
    return failures(judge(evidence))


def test_a_good_candidate_passes_every_check() -> None:
    checks = judge(GOOD)
    assert failures(checks) == ()
    assert [check.name for check in checks] == [
        "weights-finite",
        "minimum-sites",
        "evaluated-sites",
        "receipts-complete",
        "privacy-spent",
        "majority-auroc",
        "majority-balanced-accuracy",
        "macro-auroc-floor",
    ]
    assert all(check.figure is not None and check.limit is not None for check in checks)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    tensors = {"w": np.array([1, value], dtype=np.float32)}
    assert failed(replace(GOOD, tensors=tensors)) == ("weights-finite",)
    assert failed(replace(GOOD, tensors={})) == ("weights-finite",)


def test_one_hospitals_model_is_refused() -> None:
    assert failed(replace(GOOD, accepted=accepted("north"))) == ("minimum-sites",)
    twice = accepted("north") + accepted("north")
    assert failed(replace(GOOD, accepted=twice)) == ("minimum-sites",)


def test_one_hospitals_evaluation_is_not_enough() -> None:
    nobody = evaluate_predictions(np.zeros((0, 2)), np.zeros(0, dtype=int), CLASSES, minimum_cell=5)
    evidence = replace(GOOD, candidate={"north": scored(1.0), "south": nobody})
    assert failed(evidence) == ("evaluated-sites",)


def test_why_no_site_scored_is_told() -> None:
    nobody = evaluate_predictions(np.zeros((0, 2)), np.zeros(0, dtype=int), CLASSES, minimum_cell=5)
    for candidate in ({"north": nobody, "south": nobody}, {}):
        (check,) = (
            c for c in judge(replace(GOOD, candidate=candidate)) if c.name == "evaluated-sites"
        )
        assert "minimum_cell" in check.explanation
        assert "release_evaluation" in check.explanation
    (check,) = (c for c in judge(GOOD) if c.name == "evaluated-sites")
    assert "minimum_cell" not in check.explanation


def test_no_evaluation_is_no_evidence() -> None:
    assert failed(replace(GOOD, candidate={})) == (
        "evaluated-sites",
        "majority-auroc",
        "majority-balanced-accuracy",
        "macro-auroc-floor",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"update_digest": None},
        {"epsilon_campaign": None},
        {"epsilon_campaign": 8.5},
        {"delta": None},
        {"noise_multiplier": None},
        {"max_grad_norm": None},
        {"privacy_unit": "none"},
    ],
)
def test_an_incomplete_receipt_is_refused(change: dict[str, object]) -> None:
    first, second = GOOD.accepted
    assert first.receipt is not None
    spoiled = replace(first, receipt=first.receipt.model_copy(update=change))
    dear = ("privacy-spent",) if change == {"epsilon_campaign": 8.5} else ()
    assert failed(replace(GOOD, accepted=(spoiled, second))) == ("receipts-complete", *dear)
    assert failed(replace(GOOD, accepted=(replace(first, receipt=None), second))) == (
        "receipts-complete",
    )


def test_a_site_whose_life_nothing_bounds_is_named() -> None:
    first, second = GOOD.accepted
    assert first.receipt is not None
    told = replace(first, receipt=first.receipt.model_copy(update={"epsilon_life": None}))
    evidence = replace(GOOD, accepted=(told, second))
    assert failed(evidence) == ()
    found = next(c for c in judge(evidence) if c.name == "receipts-complete")
    assert f"1 site ({first.site}) once trained without privacy" in found.explanation
    assert "nothing bounds the site's life" in found.explanation
    found = next(c for c in judge(GOOD) if c.name == "receipts-complete")
    assert "once trained" not in found.explanation


def test_a_study_without_privacy_needs_no_epsilon() -> None:
    spoiled = tuple(
        replace(c, receipt=c.receipt.model_copy(update={"epsilon_campaign": None}))
        for c in GOOD.accepted
        if c.receipt is not None
    )
    assert failed(replace(GOOD, epsilon=None, accepted=spoiled)) == ()


@pytest.mark.parametrize("share", [0.5, 0.1, 0.9])
def test_always_answering_the_majority_is_refused(share: float) -> None:
    cases = 200
    labels = (np.arange(cases) < share * cases).astype(int)
    constant = np.tile([0.4, 0.6] if share > 0.5 else [0.6, 0.4], (cases, 1))
    majority = evaluate_predictions(constant, labels, CLASSES, minimum_cell=5)
    found = pooled_metrics({"north": majority}, CLASSES)
    assert found.accuracy == pytest.approx(found.majority_baseline, abs=0.03)
    evidence = replace(GOOD, candidate={"north": majority, "south": majority})
    assert {"majority-auroc", "majority-balanced-accuracy"} <= set(failed(evidence))
    strict = replace(evidence, recipe=recipe(accuracy_floor=0.1))
    assert "majority-accuracy" in failed(strict)


@pytest.mark.parametrize("ranking", [0.0, 1.0])
def test_a_lucky_case_beside_the_majority_is_no_knowledge(ranking: float) -> None:
    """It ranks well or not, but it answers with one class, but for a hit and a false alarm."""
    labels = (np.arange(400) < 100).astype(int)
    generator = np.random.default_rng(0)
    logits = ranking * (2 * labels - 1) + generator.normal(size=400) - 20
    logits[[0, -1]] = 3.0
    positive = 1 / (1 + np.exp(-logits))
    scores = np.stack([1 - positive, positive], axis=1)
    nearly = evaluate_predictions(scores, labels, CLASSES, minimum_cell=1)
    assert (pooled_metrics({"north": nearly}, CLASSES).balanced_accuracy or 0) > 0.5
    evidence = replace(GOOD, candidate={"north": nearly, "south": nearly})
    assert "majority-balanced-accuracy" in failed(evidence)
    if ranking == 0.0:
        assert "majority-auroc" in failed(evidence)


@pytest.mark.parametrize("cell", [1, 2, 5, 10])
def test_no_site_has_more_right_answers_than_it_may_have(cell: int) -> None:
    generator = np.random.default_rng(cell)
    for _ in range(200):
        cases = int(generator.integers(2 * cell, 60))
        labels = generator.integers(0, 3, size=cases)
        scores = generator.dirichlet([0.4, 0.4, 0.4], size=cases)
        told = evaluate_predictions(scores, labels, ("a", "b", "c"), minimum_cell=cell)
        kept = np.bincount(labels, minlength=3) >= cell
        right = np.bincount(labels[scores.argmax(axis=1) == labels], minlength=3) * kept
        assert (right <= np.array(most_correct(told))).all()
        assert (np.array(most_correct(told)) <= np.array(told.totals())).all()


def test_chance_is_refused_even_when_it_is_lucky() -> None:
    """Half of all random networks have an AUROC above 0.5; 95 % confidence tells them apart."""
    passed = 0
    for seed in range(40):
        sites = {"north": scored(0.0, seed=2 * seed), "south": scored(0.0, seed=2 * seed + 1)}
        passed += "majority-auroc" not in failed(replace(GOOD, candidate=sites))
    assert passed <= 6


def test_the_confidence_bound_shrinks_with_cases() -> None:
    small = macro_auroc_lower_bound(scored(1.0, cases=60))
    large = macro_auroc_lower_bound(scored(1.0, cases=2000))
    assert small is not None
    assert large is not None
    assert small < large < 0.93


def test_a_perfect_ranking_of_two_cases_proves_nothing() -> None:
    two = evaluate_predictions(
        np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([0, 1]), CLASSES, minimum_cell=1
    )
    assert pooled_metrics({"north": two}, CLASSES).macro_auroc == 1.0
    bound = macro_auroc_lower_bound(two)
    assert bound is not None
    assert bound < 0.5


def test_worse_than_chance_answers_are_refused() -> None:
    sites = {"north": scored(-1.0), "south": scored(-1.0, seed=1)}
    assert set(failed(replace(GOOD, candidate=sites))) == {
        "majority-auroc",
        "majority-balanced-accuracy",
        "macro-auroc-floor",
    }


def test_small_holdouts_do_not_refuse_what_they_only_hide() -> None:
    """Eight patients with cancer a site: most of their cells are suppressed."""
    labels = np.array([0] * 17 + [1] * 8)
    benign, malignant = np.linspace(0.1, 0.4, 15), np.linspace(0.55, 0.9, 6)
    scores = [*benign.tolist(), 0.52, 0.6, 0.3, 0.35, *malignant.tolist()]
    site = evaluate_predictions(
        np.stack([1 - np.array(scores), scores], axis=1), labels, CLASSES, minimum_cell=5
    )
    assert sum(site.unresolved) > 0
    few = dict.fromkeys(("a", "b", "c", "d"), site)
    assert pooled_metrics(few, CLASSES).balanced_accuracy is not None
    most = most_correct(site)
    assert (pooled_metrics(few, CLASSES).balanced_accuracy or 0) < 0.5
    assert most[0] >= 15
    assert most[1] >= 6
    bound = balanced_accuracy_lower_bound(few)
    assert bound is not None
    assert 0.5 < bound < 1
    assert failed(replace(GOOD, candidate=few)) == ()


def test_a_recipe_that_judges_by_accuracy_is_held_to_the_majority() -> None:
    """72 % accuracy where always the same answer has 77 %: the first source system's release."""
    sites = {n: scored(1.0, share=0.77, seed=s, threshold=0.9) for s, n in enumerate(("a", "b"))}
    found = pooled_metrics(sites, CLASSES)
    assert found.accuracy is not None
    assert found.majority_baseline is not None
    assert found.accuracy < found.majority_baseline
    assert failed(replace(GOOD, candidate=sites)) == ()
    strict = replace(GOOD, candidate=sites, recipe=recipe(accuracy_floor=0.6))
    assert failed(strict) == ("majority-accuracy",)
    stricter = replace(GOOD, candidate=sites, recipe=recipe(accuracy_floor=0.95))
    assert failed(stricter) == ("accuracy-floor", "majority-accuracy")


def test_the_auroc_floor_is_the_recipes() -> None:
    assert failed(replace(GOOD, recipe=recipe(macro_auroc_floor=0.99))) == ("macro-auroc-floor",)


def test_a_candidate_below_the_champion_is_refused() -> None:
    champion = {"north": scored(1.5), "south": scored(1.5, seed=1)}
    assert failed(replace(GOOD, champion=champion)) == ("champion-non-inferiority",)
    margin = recipe(non_inferiority_margin=0.2)
    assert failed(replace(GOOD, champion=champion, recipe=margin)) == ()
    assert failed(replace(GOOD, champion=dict(GOOD.candidate))) == ()


def test_only_sites_that_scored_both_are_compared() -> None:
    """A hard site that scores the candidate only must not make it look worse, nor better."""
    hard = {**GOOD.candidate, "west": scored(-2.0, cases=40)}
    evidence = replace(GOOD, candidate=hard, champion=dict(GOOD.candidate))
    assert failed(evidence) == ()
    new, old = on_common_sites(hard, GOOD.candidate)
    assert set(new) == set(old) == {"north", "south"}


def test_a_champion_that_nobody_scored_keeps_the_gate_shut() -> None:
    assert failed(replace(GOOD, champion={})) == ("champion-non-inferiority",)
    assert failed(replace(GOOD, champion={"west": scored(0.1)})) == ("champion-non-inferiority",)
