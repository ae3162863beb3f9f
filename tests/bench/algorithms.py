"""The algorithms side by side on hospitals that differ: ``python -m tests.bench.algorithms``.

Phantom hospitals, each with its own scanner and its own share of malignant cases, prepared once;
then one campaign an algorithm through the real ServerApp and ClientApp, without privacy and with
it, all from the same weights, with the same plain SGD at the sites and the same rounds. Prints a
table as Markdown: macro AUROC over all hospitals' test patients, a mean over ``--seeds``.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from client.intake.source import ImportSource
from common.errors import WardroundError
from common.model import build_model, state_tensors, write_safetensors
from common.recipe import (
    AlgorithmName,
    FederationSpec,
    LocalLayers,
    LocalTraining,
    NonPrivateExtras,
    Recipe,
    load_recipe,
)
from server.model_store import ModelStore
from simulations.engine import run_campaign
from simulations.federation import Federation, Simulation, prepare_federation
from simulations.hospitals import ByColumn
from simulations.phantoms import scanner_for_site, write_phantom_folder
from simulations.scoring import load_hospitals, own_layers, pooled_score, predictions_of

console = Console(highlight=False, soft_wrap=True)
SHARES = (0.1, 0.3, 0.5, 0.9)
"""Each hospital's share of malignant cases."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    algorithm: AlgorithmName = "fedavg"
    local: LocalLayers = ()


ROWS = (
    Row("`fedavg`"),
    Row("`fedprox`", "fedprox"),
    Row("`fedadam`", "fedadam"),
    Row("`fedyogi`", "fedyogi"),
    Row("`scaffold`", "scaffold"),
    Row('`fedavg`, `local_layers = ["normalisation"]`', local=("normalisation",)),
)


@dataclass(frozen=True)
class Found:
    """Macro AUROC of the released model, and of it with each hospital's own layers."""

    released: float
    own: float | None


def recipe_of(options: argparse.Namespace, row: Row) -> Recipe:
    """Return the recipe of one campaign."""
    local = LocalTraining(
        learning_rate=options.learning_rate,
        local_steps=options.local_steps,
        sampling_rate=options.sampling_rate,
    )
    recipe = load_recipe("breast-ultrasound").with_changes(
        model="test_resnet", image_size=48, epsilon=options.epsilon
    )
    federation = FederationSpec(
        algorithm=row.algorithm,
        local_layers=row.local,
        rounds=options.rounds,
        quorum=len(SHARES),
        evaluations=1,
    )
    private = local.model_copy(update={"learning_rate": options.private_rate})
    privacy = recipe.privacy.model_copy(update={"training": private, "trainable": "all"})
    changes = {
        "training": local,
        "privacy": privacy,
        "without_privacy": NonPrivateExtras(),
        "federation": federation,
    }
    return recipe.model_copy(update=changes)


def prepare(options: argparse.Namespace, folder: Path, seed: int, *, private: bool) -> Simulation:
    """Draw the hospitals and the weights that all campaigns begin with."""
    recipe = recipe_of(options, ROWS[0])
    for index, share in enumerate(SHARES):
        write_phantom_folder(
            folder / "data",
            recipe,
            scanner_for_site(index),
            options.patients,
            np.random.default_rng([seed, index]),
            class_mix={"benign": 1 - share, "malignant": share},
            most_images=1,
            patient_prefix=f"h{index}-",
            site=f"hospital-{index + 1}",
        )
    weights = folder / "start.safetensors"
    write_safetensors(weights, state_tensors(build_model(recipe, pretrained=False, seed=seed)))
    return Simulation(
        recipe,
        ImportSource(data=folder / "data"),
        ByColumn(),
        folder,
        private=private,
        seed=seed,
        weights=weights,
    )


def measure(options: argparse.Namespace, simulation: Simulation, federation: Federation) -> None:
    """Run every algorithm over one federation; fills `TABLE`."""
    hospitals = load_hospitals(federation.sites, simulation.recipe)
    for row in ROWS:
        recipe = recipe_of(options, row)
        try:
            done = run_campaign(replace(simulation, recipe=recipe), federation)
        except WardroundError as error:
            console.print(f"{row.name} failed: {error.line()}")
            continue
        weights = ModelStore(federation.coordinator.models).load(done.candidate.model_digest)
        layers = own_layers(federation.sites, done.campaign) if row.local else None
        scores = []
        for own in (None, layers):
            predictions = predictions_of(weights, hospitals, recipe, own=own)
            found = pooled_score(predictions, len(recipe.classes)).macro_auroc
            scores.append(float("nan") if found is None else found)
        told = Found(scores[0], scores[1] if layers is not None else None)
        TABLE.setdefault((row.name, simulation.private), []).append(told)
        console.print(f"{row.name} private={simulation.private} {told}")
        console.file.flush()


TABLE: dict[tuple[str, bool], list[Found]] = {}


def show(options: argparse.Namespace) -> None:
    """Print the table."""
    kinds = [private for private in (False, True) if any(p == private for _, p in TABLE)]
    heads = [f"epsilon {options.epsilon:g}" if private else "no privacy" for private in kinds]
    console.print(f"| algorithm | {' | '.join(heads)} |", markup=False)
    console.print("|---|" + "---|" * len(heads))
    for row in ROWS:
        cells = [_cell(TABLE.get((row.name, private), [])) for private in kinds]
        console.print(f"| {row.name} | {' | '.join(cells)} |", markup=False)


def _cell(found: list[Found]) -> str:
    if not found:
        return "–"
    released = f"{np.mean([f.released for f in found]):.3f}"
    own = [f.own for f in found if f.own is not None]
    return f"{released}; with each site's own {np.mean(own):.3f}" if own else released


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=120, help="of each hospital")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--local-steps", type=int, default=15)
    parser.add_argument("--sampling-rate", type=float, default=0.2)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--private-rate", type=float, default=0.05)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", choices=("plain", "private"), default=None)
    options = parser.parse_args()
    for seed in range(options.seeds):
        for private in (False, True):
            if options.only == ("plain" if private else "private"):
                continue
            with tempfile.TemporaryDirectory() as folder:
                simulation = prepare(options, Path(folder), seed, private=private)
                measure(options, simulation, prepare_federation(simulation))
    show(options)


if __name__ == "__main__":
    main()
