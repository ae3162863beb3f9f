"""How often 95 % intervals hold the truth, by simulation; `tests.bench.evaluation` prints it.

A binary task whose truth is known: log-odds are normal with a spread of 1.5, labels are drawn from
them, and the model says ``sureness`` times the true log-odds. Each sample is counted as two sites'
holdouts and merged, as the coordinator does it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from common.evaluation import SiteEvaluation, evaluate_predictions, merge
from common.evaluation_figures import calibration_bins, calibration_error, rates_at
from common.score_histogram import area_under_curve
from server.calibration_interval import calibration_estimate
from server.evaluation_intervals import Estimate, auroc_estimate, proportion

LARGE = 400_000
THRESHOLD = 0.4
CLASSES = ("benign", "malignant")
ROWS = ((1.0, 150, 1), (1.0, 600, 1), (0.7, 300, 1), (1.5, 300, 1), (2.5, 600, 1), (1.5, 300, 10))
"""Sureness, cases, smallest cell."""


@dataclass(frozen=True)
class Truth:
    """Of endless cases."""

    auroc: float
    sensitivity: float
    specificity: float
    error: float


def print_coverage(console: Console, samples: int) -> bool:
    """Print how often each interval holds the truth; tell whether that is 95 %, but for chance."""
    generator = np.random.default_rng(20_241_121)
    figures = ("AUROC", "sensitivity", "specificity", "ECE")
    table = Table("sureness", "cases", "cell", *figures, title="95 % intervals that hold the truth")
    least = 1.0
    for sureness, cases, cell in ROWS:
        truth, held = _truth(sureness, generator), Counter[str]()
        for _ in range(samples):
            parts = (cases * 2 // 3, cases - cases * 2 // 3)
            whole = merge([_site(sureness, n, cell, generator) for n in parts])
            held.update(_held(whole, truth, generator))
        shares = {name: held[name] / samples for name in figures}
        # Suppression itself moves what is told of right and wrong: its rows are for the eye.
        least = min([least, *(shares[n] for n in figures if cell == 1)])
        table.add_row(
            f"{sureness:g}", str(cases), str(cell), *(f"{v:.3f}" for v in shares.values())
        )
    console.print(table)
    spread = 1.96 * (0.05 * 0.95 / samples) ** 0.5
    console.print(f"{samples} samples a row; shares vary by about {spread:.3f}.")
    return least >= 0.95 - 3 * (0.05 * 0.95 / samples) ** 0.5


def _site(sureness: float, cases: int, cell: int, generator: np.random.Generator) -> SiteEvaluation:
    log_odds = generator.normal(0.0, 1.5, size=cases)
    labels = (generator.random(cases) < 1 / (1 + np.exp(-log_odds))).astype(int)
    said = 1 / (1 + np.exp(-sureness * log_odds))
    return evaluate_predictions(
        np.stack([1 - said, said], axis=1), labels, CLASSES, minimum_cell=cell,
        positive_classes=CLASSES[1:], statistics=("decision", "calibration"),
    )  # fmt: skip


def _truth(sureness: float, generator: np.random.Generator) -> Truth:
    whole = _site(sureness, LARGE, 1, generator)
    assert whole.decision is not None
    assert whole.calibration is not None
    rates = rates_at(whole.decision, THRESHOLD)
    return Truth(
        auroc=area_under_curve(whole.positives[1], whole.negatives[1]) or 0.0,
        sensitivity=rates.sensitivity or 0.0,
        specificity=rates.specificity or 0.0,
        error=calibration_error(calibration_bins(whole.calibration)) or 0.0,
    )


def _held(whole: SiteEvaluation, truth: Truth, generator: np.random.Generator) -> list[str]:
    assert whole.decision is not None
    assert whole.calibration is not None
    rates = rates_at(whole.decision, THRESHOLD)
    positives, negatives = whole.decision.positives.total, whole.decision.negatives.total
    pairs: dict[str, tuple[Estimate | None, float]] = {
        "AUROC": (
            auroc_estimate(whole.positives[1], whole.negatives[1], generator), truth.auroc,
        ),
        "sensitivity": (
            proportion((rates.sensitivity or 0.0) * positives, positives), truth.sensitivity,
        ),
        "specificity": (
            proportion((rates.specificity or 0.0) * negatives, negatives), truth.specificity,
        ),
        # The grid's bins part confidence by 0.0001, and endless cases are 400,000.
        "ECE": (calibration_estimate(whole.calibration, generator), truth.error),
    }  # fmt: skip
    slack = {"ECE": 0.001}
    return [
        name
        for name, (found, value) in pairs.items()
        if found is not None
        and found.lower - slack.get(name, 0.0) <= value <= found.upper + slack.get(name, 0.0)
    ]
