"""The demo's table: every figure on one line of an ordinary terminal."""

import io

from rich.console import Console

from deploy.demo.report import DemoReport, PooledMetrics, SiteReport, show
from simulations.warned import Warned


def report(**changes: object) -> DemoReport:
    site = SiteReport(
        site="northfield",
        cases=357,
        training_patients=199,
        holdout_patients=41,
        epsilon_rdp=7.99,
        epsilon_prv=7.33,
        auroc_v1=0.791,
        auroc_v2=None,
        model_version=2,
        model_digest="e830" * 16,
        answered_during_swap=1006,
        failed_during_swap=3,
        url="http://127.0.0.1:1",
    )
    metrics = PooledMetrics(
        macro_auroc=0.824, balanced_accuracy=0.7, accuracy=0.544, majority_baseline=0.543
    )
    fields = {
        "recipe": "mammography",
        "model": "test_resnet",
        "image_size": 48,
        "private": True,
        "epsilon": 8.0,
        "rounds": (6, 3),
        "sites": (site,),
        "v1": metrics,
        "v2": None,
        "v2_refused_by": (),
        "without_privacy": None,
        "seconds": 1.0,
        "folder": "runs/x",
    }
    return DemoReport.model_validate(fields | changes)


def shown(document: DemoReport) -> str:
    stream = io.StringIO()
    show(document, Console(file=stream, width=80))
    return stream.getvalue()


def test_every_figure_is_on_the_hospitals_line() -> None:
    line = next(line for line in shown(report()).splitlines() if "northfield" in line)
    for figure in ("357", "7.99 (7.33)", "0.791→–", "v2 e830e830", "1006/3"):
        assert figure in line


def test_majority_baseline_stands_beside_the_score() -> None:
    line = next(line for line in shown(report()).splitlines() if "v1, ε" in line)
    assert "0.824" in line
    assert "0.543" in line


def test_warnings_are_in_the_document_and_said_at_the_end() -> None:
    warned = Warned(hospital="st-anne", code="label-leak", message="The label is [told].")
    text = shown(report(warnings=(warned,)))
    assert "Warning: st-anne: label-leak: The label is [told]." in text
    assert "Warning" not in shown(report())


def test_the_last_lines_say_where_the_federation_is_and_what_starts_it_again() -> None:
    assert "`wardround local up --folder runs/x/federation`" in shown(report())


def test_a_refused_release_is_said_with_its_check() -> None:
    text = shown(report(v2_refused_by=("champion-non-inferiority",)))
    assert "champion-non-inferiority" in text


def test_models_that_the_gate_refused_are_told_and_nothing_is_served() -> None:
    document = report()
    site = document.sites[0].model_copy(update={"model_version": None, "model_digest": None})
    refused = document.model_copy(
        update={
            "sites": (site,),
            "v1_refused_by": ("above-chance", "worst-site"),
            "v2_refused_by": ("above-chance",),
        }
    )
    text = shown(refused)
    assert "v1 was refused by the release gate: above-chance, worst-site." in text
    assert "v2 was refused" in text
    assert "nothing" in next(line for line in text.splitlines() if "northfield" in line)
