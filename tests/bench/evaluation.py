"""Pooled figures from histograms beside scikit-learn's: ``python -m tests.bench.evaluation``.

A linear model is trained on the coarse pixels of the training images of all hospitals; each then
counts its own holdout, once without suppression and once with a smallest cell of 10, and the
sum's figures stand beside scikit-learn's on the same predictions: on all cases, and on those that
a smallest cell of 10 leaves in (a class of fewer cases at a site is left out there), so that what
leaving out costs stands apart from what joining costs. ``--data`` or ``WARDROUND_TEST_DATA`` names
the folder of the real dermatoscopy hospitals.

After it, how often 95 % intervals hold the truth, by simulation: ``--samples`` of them for each
row. The exit status is 1 if a pooled AUROC is off by more than 0.005 from scikit-learn's on the
same cases, or a coverage is below 95 % by more than three standard errors.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from client.cases.case import age_band, normal_sex
from client.training.evaluation import age_group
from common.evaluation import CaseGroups, SiteEvaluation, evaluate_predictions, merge, metrics
from common.evaluation_counts import GROUPS
from common.evaluation_figures import (
    average_precision,
    calibration_bins,
    calibration_error,
    rates_at,
    threshold_for,
)
from common.recipe import Recipe, load_recipe
from server.evaluation_intervals import auroc_estimate, mean_estimate
from tests.bench.interval_coverage import print_coverage

TOLERANCE = 0.005
SIDE = 12
WANTED = 0.9


@dataclass(frozen=True)
class Holdout:
    """Predictions (N, K) and labels (N,), with each row of the labels' file."""

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]
    rows: Sequence[dict[str, str]]


def main() -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("WARDROUND_TEST_DATA"))
    parser.add_argument("--samples", type=int, default=400)
    options = parser.parse_args()
    covered = print_coverage(Console(), options.samples)
    folder = options.data
    if folder is None or not (Path(folder) / "ham10000_128" / "labels.csv").is_file():
        Console().print("There are no real images: set WARDROUND_TEST_DATA.")
        return int(not covered)
    return int(not (_compare(Path(folder)) and covered))


def _compare(folder: Path) -> bool:
    recipe = load_recipe("dermoscopy")
    found = _predictions(folder / "ham10000_128", recipe)
    exact, left = _exact(found), _exact(_left_in(found, 10))
    table = Table(
        "figure", "scikit-learn", "histograms, cell 1", "scikit-learn, left in", "cell 10"
    )
    pooled = [_pooled(found, recipe, minimum) for minimum in (1, 10)]
    told = [_figures(whole) for whole in pooled]
    for name, value in exact.items():
        pairs = ((value, told[0][name]), (left[name], told[1][name]))
        table.add_row(name, *(f"{one:.4f}" for pair in pairs for one in pair))
    console = Console()
    console.print(table)
    _print_sums(console, pooled[0])
    sizes = [len(part.model_dump_json()) // 1024 for part in _sites(found, recipe, 10).values()]
    console.print(f"A site's report, cell 10: {min(sizes)} to {max(sizes)} KiB.", highlight=False)
    auroc = "macro AUROC"
    pairs = ((exact[auroc], told[0][auroc]), (left[auroc], told[1][auroc]))
    return all(abs(one - other) <= TOLERANCE for one, other in pairs)


def _exact(found: Holdout) -> dict[str, float]:
    return {
        "macro AUROC": _mean(roc_auc_score, found),
        "macro average precision": _mean(average_precision_score, found),
        "ECE": _calibration(found),
    }


def _left_in(found: Holdout, minimum: int) -> Holdout:
    cells = Counter((row["site"], int(k)) for row, k in zip(found.rows, found.labels, strict=True))
    kept = np.array(
        [cells[row["site"], int(k)] >= minimum
         for row, k in zip(found.rows, found.labels, strict=True)]
    )  # fmt: skip
    rows = [row for row, keep in zip(found.rows, kept, strict=True) if keep]
    return Holdout(found.probabilities[kept], found.labels[kept], rows)


def _predictions(folder: Path, recipe: Recipe) -> Holdout:
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pixels = np.stack([_coarse(folder / row["file"]) for row in rows])
    labels = np.array([recipe.classes.index(row["label"]) for row in rows])
    train = np.array([row["fold"] == "train" for row in rows])
    scaler = StandardScaler().fit(pixels[train])
    model = LogisticRegression(max_iter=60, C=0.01)
    model.fit(scaler.transform(pixels[train]), labels[train])
    probabilities = model.predict_proba(scaler.transform(pixels[~train]))
    tested = [row for row, used in zip(rows, train, strict=True) if not used]
    return Holdout(probabilities, labels[~train], tested)


def _coarse(path: Path) -> NDArray[np.float32]:
    with Image.open(path) as image:
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel()


def _sites(found: Holdout, recipe: Recipe, minimum: int) -> dict[str, SiteEvaluation]:
    names = np.array([row["site"] for row in found.rows])
    parts = {}
    for site in sorted(set(names)):
        own = np.flatnonzero(names == site)
        parts[str(site)] = evaluate_predictions(
            found.probabilities[own],
            found.labels[own],
            recipe.classes,
            minimum_cell=minimum,
            positive_classes=recipe.decision.positive_classes,
            statistics=("decision", "calibration", "subgroups"),
            groups=_groups([found.rows[index] for index in own]),
        )
    return parts


def _groups(rows: Sequence[dict[str, str]]) -> CaseGroups:
    ages = [age_group(age_band(row["age"])) for row in rows]
    sexes = [normal_sex(row["sex"]) for row in rows]
    return CaseGroups(
        age=np.array([GROUPS["age"].index(a) if a is not None else -1 for a in ages]),
        sex=np.array([GROUPS["sex"].index(s) if s is not None else -1 for s in sexes]),
    )


def _pooled(found: Holdout, recipe: Recipe, minimum: int) -> SiteEvaluation:
    return merge(list(_sites(found, recipe, minimum).values()))


def _figures(whole: SiteEvaluation) -> dict[str, float]:
    sides = zip(whole.positives, whole.negatives, strict=True)
    precisions = [average_precision(p, n) for p, n in sides]
    assert whole.calibration is not None
    return {
        "macro AUROC": metrics(whole).macro_auroc or float("nan"),
        "macro average precision": float(np.mean([p for p in precisions if p is not None])),
        "ECE": calibration_error(calibration_bins(whole.calibration)) or float("nan"),
    }


def _print_sums(console: Console, whole: SiteEvaluation) -> None:
    assert whole.decision is not None
    threshold = threshold_for(whole.decision, WANTED)
    assert threshold is not None
    rates = rates_at(whole.decision, threshold)
    console.print(
        f"Threshold for a sensitivity of {WANTED}: {threshold:.4f}, specificity "
        f"{rates.specificity:.3f}, {whole.cases} cases.",
        highlight=False,
    )
    generator = np.random.default_rng(0)
    named = [("all", whole), *((f"{p.axis} {p.group}", p.counts) for p in whole.subgroups)]
    for name, counts in named:
        sides = zip(counts.positives, counts.negatives, strict=True)
        found = mean_estimate(tuple(auroc_estimate(p, n, generator) for p, n in sides))
        if found is not None:
            interval = f"{found.value:.3f} ({found.lower:.3f} to {found.upper:.3f})"
            console.print(f"Macro AUROC, {name}: {interval}", highlight=False)


def _mean(score: object, found: Holdout) -> float:
    assert callable(score)
    present = np.unique(found.labels)
    return float(np.mean([score(found.labels == k, found.probabilities[:, k]) for k in present]))


def _calibration(found: Holdout) -> float:
    confidence = found.probabilities.max(axis=1)
    right = found.probabilities.argmax(axis=1) == found.labels
    index = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    gaps = [abs(confidence[index == b].sum() - right[index == b].sum()) for b in range(15)]
    return float(sum(gaps) / len(right))


if __name__ == "__main__":
    sys.exit(main())
