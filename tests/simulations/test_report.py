from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from client.intake.summary import ImportSummary
from client.training.dataset import PatientImages
from common.evaluation import Metrics
from server.registry.records import Contribution, Round
from simulations.report import SimulationReport
from simulations.report_words import as_markdown, rounds_in_words
from simulations.scoring import HospitalImages, Predictions
from simulations.trained import LastPoint, trained_passes

START = datetime(2026, 1, 1, tzinfo=UTC)
PER_UPDATE = 2 * 0.5
"""Local steps x sampling rate of the small recipe."""


def finished(number, purpose="train", macro_auroc=None):
    metrics = None
    if macro_auroc is not None:
        metrics = Metrics(
            classes=("benign", "malignant"),
            count=8,
            macro_auroc=macro_auroc,
            accuracy=0.5,
            balanced_accuracy=macro_auroc / 2,
            majority_baseline=0.5,
            auroc=(None, None),
            sensitivity=(None, None),
        )
    ended = START + timedelta(seconds=number)
    return Round("c", number, purpose, "finished", "b", "a", metrics, START, ended)


def updates(number, *sites, outcome="accepted"):
    return [Contribution("c", number, site, 1, outcome) for site in sites]


def passes(recipe, rounds, contributions, sites=3):
    return trained_passes(recipe, rounds, contributions, sites=sites, private=True)


def test_every_site_in_every_round_is_the_recipes_passes(small_recipe):
    told = [*updates(1, "a", "b", "c"), *updates(2, "a", "b", "c"), *updates(3, "a", "b", "c")]
    rounds = [finished(1), finished(2), finished(3, "evaluate")]
    assert passes(small_recipe, rounds, told) == pytest.approx(2 * PER_UPDATE)


def test_rounds_that_an_early_stop_left_out_are_no_passes(small_recipe):
    assert passes(small_recipe, [finished(1)], updates(1, "a", "b", "c")) == pytest.approx(
        PER_UPDATE
    )


def test_a_buffered_step_counts_the_updates_that_it_took(small_recipe):
    """Two of six sites a step: six steps are two passes' worth of rounds, not six."""
    rounds = [finished(n) for n in range(1, 7)]
    told = [u for n in range(1, 7) for u in updates(n, "a", "b")]
    assert passes(small_recipe, rounds, told, sites=6) == pytest.approx(2 * PER_UPDATE)


def test_what_was_not_taken_is_not_trained(small_recipe):
    failed = replace(finished(2), state="failed")
    told = [*updates(1, "a"), *updates(1, "b", outcome="refused"), *updates(2, "a", "b")]
    assert passes(small_recipe, [finished(1), failed], told, sites=2) == pytest.approx(
        PER_UPDATE / 2
    )


def built(recipe, rounds, imports=()):
    nobody = PatientImages(np.zeros((0, 48, 48, 3), np.uint8), *[np.zeros(0, int)] * 2, ())
    return SimulationReport.build(
        recipe,
        [HospitalImages("a", nobody, nobody)],
        rounds,
        (),
        federated=Predictions((np.zeros((0, 2)),), (np.zeros(0, int),)),
        pooled=None,
        private=True,
        campaign_seconds=1.0,
        seconds=2.0,
        imports=imports,
    )


def test_an_early_stop_is_told(small_recipe):
    stopped = built(small_recipe, [finished(1)])
    assert (stopped.rounds, stopped.planned_rounds) == (1, 2)
    assert "1 rounds (stopped early, of 2)" in as_markdown(stopped)
    assert rounds_in_words(built(small_recipe, [finished(1), finished(2)])) == "2 rounds"


def test_the_curves_last_point_is_scored_as_the_others_are(small_recipe):
    """By case, by the sites' counts; not by image, as the table is."""
    rounds = [finished(0, "evaluate", 0.1), finished(1), finished(2), finished(3, "evaluate", 0.8)]
    assert built(small_recipe, rounds).last == LastPoint(macro_auroc=0.8, balanced_accuracy=0.4)
    assert built(small_recipe, rounds[:-1]).last is None
    layers = small_recipe.federation.model_copy(update={"local_layers": ("norm",)})
    own = small_recipe.model_copy(update={"federation": layers})
    assert built(own, rounds).last is None  # its rounds scored each site's own model


def test_rows_that_no_hospital_could_import_are_told(small_recipe):
    imports = [
        ImportSummary(recipe="r", refused_by_code={"row-malformed": 1, "file-missing": 2}),
        ImportSummary(recipe="r", refused_by_code={"file-missing": 1}),
    ]
    told = as_markdown(built(small_recipe, [finished(1)], imports))
    assert "1 x row-malformed, 3 x file-missing" in told
    assert "Refused" not in as_markdown(built(small_recipe, [finished(1)]))
