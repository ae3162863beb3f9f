"""No site may be surely far below the sensitivity that a release promises."""

from dataclasses import replace

import numpy as np
import pytest

from common.evaluation import SiteEvaluation, evaluate_predictions
from common.evaluation_figures import rates_at
from common.recipe import ReleaseGateSpec, load_recipe
from server.evaluation import merged
from server.gate.operating_point import operating_threshold
from server.protocol import default_protocol
from server.release_gate import Evidence
from server.rounds.evaluation_checks import check_evaluation
from tests.fakes import CLASSES, toy_recipe
from tests.server.test_gate_checks import check
from tests.server.test_release_gate import GOOD, accepted, failed, recipe

NAME = "worst-site-sensitivity"


def scored(positives: np.ndarray, negatives: np.ndarray, minimum: int = 10) -> SiteEvaluation:
    """Count cases by the log-odds of their scores."""
    log_odds = np.concatenate([positives, negatives])
    labels = np.repeat([1, 0], [len(positives), len(negatives)])
    positive = 1 / (1 + np.exp(-log_odds))
    return evaluate_predictions(
        np.stack([1 - positive, positive], axis=1), labels, CLASSES, minimum_cell=minimum,
        positive_classes=(CLASSES[1],), statistics=("decision", "calibration"),
    )  # fmt: skip


def hospital(seed: int, *, positives: int = 60, shift: float = 0.0) -> SiteEvaluation:
    generator = np.random.default_rng(seed)
    cancers = generator.normal(1 + shift, 1.2, positives)
    return scored(cancers, generator.normal(-1, 1.2, 140))


def liar(cases: int) -> SiteEvaluation:
    return scored(np.full(cases // 2, 11.0), np.full(cases // 2, -11.0))


HONEST = {f"site-{seed}": hospital(seed) for seed in range(4)}


def evidence(sites: dict[str, SiteEvaluation], **limits: object) -> Evidence:
    limits = {"wanted_sensitivity": 0.9, **limits}
    named = accepted(*sites)
    return replace(GOOD, recipe=recipe(**limits), candidate=sites, accepted=named)


@pytest.mark.parametrize("cases", [2_000, 1_000_000])
def test_a_site_that_invents_cases_does_not_choose_the_threshold_unseen(cases: int) -> None:
    task = toy_recipe()
    assert task.decision.positive_classes == (CLASSES[1],)
    invented = liar(cases)
    check_evaluation(invented, task)  # it is let in
    found = evidence({**HONEST, "liar": invented})
    honest = merged(HONEST)
    assert honest is not None
    assert honest.decision is not None
    at_the_honest = rates_at(honest.decision, operating_threshold(found)).sensitivity
    assert at_the_honest is not None
    assert at_the_honest < 0.5
    assert check(found, "sensitivity-floor").passed
    assert failed(found) == (NAME,)
    one = check(found, NAME)
    assert one.figure is not None
    assert one.limit == 0.7
    assert one.figure < one.limit
    assert "site-" in one.explanation
    assert "another site's counts are false" in one.explanation


def test_honest_differences_and_few_cases_stop_nothing() -> None:
    assert failed(evidence(HONEST)) == ()
    harder = {**HONEST, "hard": hospital(9, shift=-0.5)}
    found = check(evidence(harder), NAME)
    assert found.passed
    few = {**HONEST, "few": hospital(9, positives=10, shift=-0.8)}
    found = check(evidence(few), NAME)
    assert found.passed
    assert found.figure is not None
    told = few["few"].decision
    assert told is not None
    there = rates_at(told, operating_threshold(evidence(few))).sensitivity
    assert there is not None
    assert there < 0.8 < found.figure  # far below what is wanted, but not surely


def test_the_floor_is_the_protocols() -> None:
    strict = evidence(HONEST, worst_site_sensitivity_floor=0.99)
    assert failed(strict) == (NAME,)
    lax = evidence({**HONEST, "liar": liar(2_000)}, worst_site_sensitivity_floor=0.3)
    assert failed(lax) == ()
    # By itself it asks for a sensitivity, too: at the recipe's threshold.
    alone = evidence(HONEST, wanted_sensitivity=None, worst_site_sensitivity_floor=0.5)
    assert check(alone, NAME).passed
    assert not [c for c in failed(evidence(HONEST, wanted_sensitivity=None)) if c == NAME]


def test_a_site_that_tells_of_no_positive_case_is_named_and_not_judged() -> None:
    healthy = scored(np.zeros(0), np.linspace(-4, 0, 60))
    found = check(evidence({**HONEST, "healthy": healthy}), NAME)
    assert found.passed
    assert found.unjudged == ("healthy",)
    assert "4 of 5 judged" in found.explanation
    assert found.explanation.endswith("No positive cases told of: healthy.")


def test_long_names_are_told_in_full() -> None:
    healthy = scored(np.zeros(0), np.linspace(-4, 0, 60))
    without = ("university-hospital-no-positives-0", "university-hospital-no-positives-1")
    sites = {f"university-hospital-{site}": found for site, found in HONEST.items()}
    for more in ({}, {"liar": liar(2_000)}):
        found = check(evidence({**sites, **more, **dict.fromkeys(without, healthy)}), NAME)
        assert found.explanation.count("no-positives-") == 2, found.explanation
        assert len(found.explanation) <= 400


def test_where_nothing_is_told_it_fails_unless_it_is_waived() -> None:
    bare = {site: one.model_copy(update={"decision": None}) for site, one in HONEST.items()}
    assert NAME in failed(evidence(bare))
    for waived in (NAME, "sensitivity-floor"):
        assert NAME not in failed(evidence(bare, not_required=(waived,)))
        # Where the figure is there, it counts.
        false = {**HONEST, "liar": liar(2_000)}
        assert NAME in failed(evidence(false, not_required=(waived,)))


def test_a_floor_that_is_not_set_changes_no_digest() -> None:
    """Sites pin recipes by digest, and campaigns that run are held to a locked protocol's."""
    assert "worst_site_sensitivity_floor" not in ReleaseGateSpec().model_dump_json()
    task = load_recipe("mammography")
    limits = task.release.model_copy(update={"worst_site_sensitivity_floor": 0.6})
    held = task.model_copy(update={"release": limits})
    assert held.digest != task.digest
    assert default_protocol(held).digest != default_protocol(task).digest
    assert '"worst_site_sensitivity_floor":0.6' in default_protocol(held).model_dump_json()
