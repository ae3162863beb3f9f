"""What compressed updates cost in accuracy: ``python -m tests.bench.compression``.

The same dermatoscopy campaign, from the same weights and with the same seeds, through the real
ServerApp and ClientApp: updates as they are, and compressed. ``--data`` or
``WARDROUND_TEST_DATA`` names the four real hospitals; without them nothing is measured. The exit
status is 1 if a compression that a recipe ships with moves macro AUROC by more than 0.005.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from client.intake.source import CsvColumns, ImportSource
from common.compression import Compression
from common.recipe import load_recipe
from server.model_store import ModelStore
from simulations.engine import run_campaign
from simulations.federation import Federation, Simulation, prepare_federation
from simulations.hospitals import ByColumn
from simulations.scoring import HospitalImages, load_hospitals, pooled_score, predictions_of

console = Console()
TARGET = 0.005
SHIPPED: Compression = "int8"
REAL = "ham10000_128"


@dataclass(frozen=True)
class Measured:
    """A campaign's scores over all test patients, and the mean size of an update in bytes."""

    macro_auroc: float
    balanced_accuracy: float
    update_bytes: float


def measure(
    simulation: Simulation,
    federation: Federation,
    hospitals: tuple[HospitalImages, ...],
    kind: Compression,
) -> Measured:
    """Run the campaign with one compression and score what it made."""
    changed = simulation.recipe.federation.model_copy(update={"compression": kind})
    recipe = simulation.recipe.model_copy(update={"federation": changed})
    done = run_campaign(replace(simulation, recipe=recipe), federation)
    tensors = ModelStore(federation.coordinator.models).load(done.candidate.model_digest)
    found = pooled_score(predictions_of(tensors, hospitals, recipe), len(recipe.classes))
    sizes = [c.bytes for c in done.contributions if c.outcome == "accepted" and c.update_norm]
    console.print(f"{kind}: {found}", highlight=False)
    return Measured(
        float("nan") if found.macro_auroc is None else found.macro_auroc,
        found.balanced_accuracy or float("nan"),
        float(np.mean(sizes)),
    )


def main() -> int:
    """Measure, print, and return the exit status."""
    root = os.environ.get("WARDROUND_TEST_DATA")
    parser = argparse.ArgumentParser(description="Accuracy with and without compression.")
    parser.add_argument("--data", type=Path, default=Path(root) / REAL if root else None)
    parser.add_argument("--compression", nargs="+", default=["none", SHIPPED])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=None, help="the recipe's own by default")
    parser.add_argument("--private", action="store_true", help="at the recipe's epsilon")
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    if options.data is None or not options.data.is_dir():
        console.print("Skipped: no real dermatoscopy images (--data or WARDROUND_TEST_DATA).")
        return 0
    recipe = load_recipe("dermoscopy").with_changes(
        model=options.model, image_size=options.image_size, rounds=options.rounds
    )
    source = ImportSource(data=options.data, columns=CsvColumns(split="fold"))
    with tempfile.TemporaryDirectory(prefix="compression-") as folder:
        simulation = Simulation(
            recipe,
            source,
            ByColumn(),
            Path(folder),
            private=options.private,
            workers=options.workers,
        )
        federation = prepare_federation(simulation)
        hospitals = load_hospitals(federation.sites, recipe)
        found = {
            kind: measure(simulation, federation, hospitals, kind) for kind in options.compression
        }
    table = Table(title=f"{len(hospitals)} hospitals, {recipe.federation.rounds} rounds")
    for heading in ("updates", "macro AUROC", "balanced accuracy", "bytes an update"):
        table.add_column(heading, justify="left" if heading == "updates" else "right")
    for kind, figures in found.items():
        table.add_row(
            kind,
            f"{figures.macro_auroc:.4f}",
            f"{figures.balanced_accuracy:.4f}",
            f"{figures.update_bytes:,.0f}",
        )
    console.print(table)
    if not {"none", SHIPPED} <= found.keys():
        return 0
    lost = found["none"].macro_auroc - found[SHIPPED].macro_auroc
    met = abs(lost) <= TARGET
    verdict = "met" if met else "MISSED"
    console.print(f"{SHIPPED} loses {lost:+.4f}; target at most {TARGET}: {verdict}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
