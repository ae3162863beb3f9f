from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from client.intake.summary import ImportSummary
from client.training.dataset import PatientImages
from common.evaluation import Metrics
from server.registry.records import Contribution, Round
from simulations.report import Setup, SimulationReport
from simulations.report_words import as_markdown, rounds_in_words
from simulations.scoring import HospitalImages, Predictions
from simulations.trained import LastPoint, trained_passes
from simulations.warned import Warned

START = datetime(2026, 1, 1, tzinfo=UTC)
PER_UPDATE = 2 * 0.5
"""Local steps x sampling rate of the small recipe."""
PLAIN = Setup(seed=0, sites_by="column:site")


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


def hospital(name, patients=4, images=1):
    """A hospital whose patients have so many training images each."""
    rows = np.arange(patients * images)
    pixels = np.zeros((len(rows), 4, 4, 3), np.uint8)
    groups = tuple(rows[n * images : (n + 1) * images] for n in range(patients))
    training = PatientImages(pixels, rows, np.zeros(len(rows), int), groups)
    nobody = PatientImages(pixels[:0], rows[:0], rows[:0], ())
    return HospitalImages(name, training, nobody)


def passes(recipe, rounds, contributions, sites="abc"):
    hospitals = [hospital(name) for name in sites]
    return trained_passes(recipe, rounds, contributions, hospitals, private=True)


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
    assert passes(small_recipe, rounds, told, sites="abcdef") == pytest.approx(2 * PER_UPDATE)


def test_what_was_not_taken_is_not_trained(small_recipe):
    failed = replace(finished(2), state="failed")
    told = [*updates(1, "a"), *updates(1, "b", outcome="refused"), *updates(2, "a", "b")]
    assert passes(small_recipe, [finished(1), failed], told, sites="ab") == pytest.approx(
        PER_UPDATE / 2
    )


def test_a_private_step_shows_one_image_of_each_patient(small_recipe):
    """Three images a patient, q = 0.2 and five steps: a third of a pass over the images."""
    local = small_recipe.privacy.training.model_copy(
        update={"local_steps": 5, "sampling_rate": 0.2}
    )
    privacy = small_recipe.privacy.model_copy(update={"training": local})
    recipe = small_recipe.model_copy(update={"privacy": privacy, "training": local})
    given = (recipe, [finished(1)], updates(1, "a"), [hospital("a", patients=10, images=3)])
    assert trained_passes(*given, private=True) == pytest.approx(1 / 3)
    assert trained_passes(*given, private=False) == pytest.approx(1)


def test_a_site_that_sent_nothing_takes_its_images_from_the_passes(small_recipe):
    """Pooled training gets as many images as the federation saw, whoever has them."""
    hospitals = [hospital("a", patients=30), hospital("b", patients=10)]
    told = trained_passes(small_recipe, [finished(1)], updates(1, "a"), hospitals, private=True)
    assert told == pytest.approx(0.75 * PER_UPDATE)


def built(recipe, rounds, imports=(), contributions=(), setup=PLAIN, **further):
    return SimulationReport.build(
        recipe,
        [hospital("a", patients=0)],
        rounds,
        contributions,
        setup=setup,
        federated=Predictions((np.zeros((0, 2)),), (np.zeros(0, int),)),
        pooled=None,
        private=True,
        campaign_seconds=1.0,
        seconds=2.0,
        imports=imports,
        **further,
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


def test_a_buffered_round_tells_its_sites_from_its_updates(small_recipe):
    report = built(small_recipe, [finished(1)], contributions=updates(1, "a", "a", "b"))
    assert (report.curve[0].sites, report.curve[0].updates) == (2, 3)


def test_what_was_chosen_is_told_so_that_it_can_be_done_again(small_recipe):
    setup = Setup(
        seed=5,
        sites_by="dirichlet:4:0.3",
        weights="published.safetensors",
        weights_digest="ab" * 32,
        slow=("a=3",),
    )
    report = built(small_recipe, [finished(1)], setup=setup)
    assert Setup.model_validate(report.model_dump(include=set(Setup.model_fields))) == setup
    page = as_markdown(report)
    for told in ("Seed 5", "dirichlet:4:0.3", "published.safetensors", "ab" * 32, "slow: a=3"):
        assert told in page


def test_warnings_are_on_the_page_by_hospital_and_code(small_recipe):
    warned = Warned(hospital="north", code="label-leak", message="The label is predicted by x.")
    report = built(small_recipe, [finished(1)], warnings=(warned,), shared_patients=2)
    assert "- north: label-leak: The label is predicted by x." in as_markdown(report)
    assert report.patient_ids_at_several_sites == 2
    assert "Warnings" not in as_markdown(built(small_recipe, [finished(1)]))
