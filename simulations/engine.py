"""A simulation: hospitals out of one data set, a campaign over them, and what came of it.

It makes a deployment's folders (`simulations.federation`), creates a campaign, and runs the
deployment's own ServerApp and ClientApp.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from common.errors import RoundFailed
from common.model_files import keeping_batch_norm
from server.campaigns import create_campaign, random_features
from server.model_store import ModelStore
from server.registry.records import Candidate, Contribution, Round
from server.registry.registry import Registry
from simulations.federation import (
    FOLDERS,
    Federation,
    OnStage,
    Simulation,
    check_empty,
    nothing_left,
    prepare_federation,
)
from simulations.progress import watching
from simulations.report import Setup, SimulationReport
from simulations.report_files import write_report
from simulations.scoring import (
    HospitalImages,
    Predictions,
    load_hospitals,
    own_layers,
    predictions_of,
)
from simulations.trained import trained_passes
from simulations.warned import Warned, random_features_warning


@dataclass(frozen=True)
class Campaigned:
    """A finished campaign, out of the registry."""

    campaign: str
    candidate: Candidate
    rounds: tuple[Round, ...]
    contributions: tuple[Contribution, ...]
    seconds: float
    warnings: tuple[Warned, ...] = ()


OnWarning = Callable[[Warned], None]


def run_simulation(
    simulation: Simulation,
    *,
    on_stage: OnStage = lambda *_: None,
    on_warning: OnWarning = lambda _: None,
) -> SimulationReport:
    """Run a simulation, and leave its folder: report.md, metrics.json, metrics.csv and curves.

    Parameters
    ----------
    simulation : Simulation
        What to do.
    on_stage : callable, optional
        For a progress display.
    on_warning : callable, optional
        Told each warning as soon as it is known; all of them are in the report, too.

    Raises
    ------
    InputRefused
        If the data cannot be used.
    ConfigurationError
        If the folder holds something, or the recipe's quorum is out of reach.
    RoundFailed
        If the campaign failed.
    """
    started = time.monotonic()
    recipe = keeping_batch_norm(simulation.recipe, simulation.weights)
    simulation = replace(simulation, recipe=recipe)
    for part in FOLDERS:
        check_empty(simulation.out / part)
    with nothing_left(simulation.out, FOLDERS):
        federation = prepare_federation(simulation, on_stage=on_stage)
        for warned in federation.warnings:
            on_warning(warned)
        campaigned = run_campaign(simulation, federation, on_stage=on_stage, on_warning=on_warning)
    hospitals = load_hospitals(federation.sites, recipe)
    tensors = ModelStore(federation.coordinator.models).load(campaigned.candidate.model_digest)
    own: Predictions | None = None
    if recipe.federation.local_layers:
        layers = own_layers(federation.sites, campaigned.campaign)
        own = predictions_of(tensors, hospitals, recipe, own=layers)
    report = SimulationReport.build(
        recipe,
        hospitals,
        campaigned.rounds,
        campaigned.contributions,
        setup=_setup(simulation),
        federated=predictions_of(tensors, hospitals, recipe),
        own=own,
        pooled=_pooled(simulation, campaigned, hospitals, on_stage),
        private=simulation.private,
        campaign_seconds=campaigned.seconds,
        seconds=time.monotonic() - started,
        imports=federation.imports,
        shared_patients=federation.shared_patients,
        warnings=(*federation.warnings, *campaigned.warnings),
    )
    write_report(report, simulation.out)
    return report


def _pooled(
    simulation: Simulation,
    campaigned: Campaigned,
    hospitals: Sequence[HospitalImages],
    on_stage: OnStage,
) -> Predictions | None:
    """Train on the union of the data as long as the campaign did, where that was asked for."""
    from simulations.pooled import PooledTraining, train_pooled

    if not simulation.pooled:
        return None
    passes = trained_passes(
        simulation.recipe,
        campaigned.rounds,
        campaigned.contributions,
        hospitals,
        private=simulation.private,
    )
    model = train_pooled(
        simulation.recipe,
        [hospital.training for hospital in hospitals],
        PooledTraining(passes),
        weights=simulation.weights,
        seed=simulation.seed,
        threads=simulation.workers,
        on_step=lambda done, total: on_stage("Pooled training", done, total),
    )
    return predictions_of(model, hospitals, simulation.recipe)


def _setup(simulation: Simulation) -> Setup:
    weights = simulation.weights
    digest = None if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest()
    return Setup(
        seed=simulation.seed,
        sites_by=str(simulation.rule),
        weights=None if weights is None else weights.name,
        weights_digest=digest,
        slow=tuple(f"{one.site}={one.seconds:g}" for one in simulation.slow),
        adversaries=tuple(f"{a.site}={a.behaviour}" for a in simulation.adversaries),
    )


def run_campaign(
    simulation: Simulation,
    federation: Federation,
    *,
    on_stage: OnStage = lambda *_: None,
    on_warning: OnWarning = lambda _: None,
) -> Campaigned:
    """Create a campaign over the federation, and run it on Ray."""
    from simulations.flower_ray import run_campaign_on_ray

    registry = Registry.open(federation.coordinator)
    try:
        campaign = create_campaign(
            federation.coordinator,
            registry,
            simulation.recipe,
            private=simulation.private,
            weights=simulation.weights,
            sites=tuple(site.name for site in federation.sites),
            may_go_unscored=True,
        )
        said = random_features(registry.campaign(campaign), weights=simulation.weights)
        warnings = random_features_warning(said)
        for warned in warnings:
            on_warning(warned)
        started = time.monotonic()
        rounds = simulation.recipe.federation.rounds
        with watching(registry, campaign, lambda done: on_stage("Rounds", done, rounds)):
            run_campaign_on_ray(
                campaign,
                coordinator=federation.coordinator.folder,
                sites=simulation.out / "sites",
                site_count=len(federation.sites),
                workers=simulation.workers or os.cpu_count() or 1,
                log=simulation.out / "logs" / "simulation.log",
                adversaries=simulation.adversaries,
                slow=simulation.slow,
            )
        seconds = time.monotonic() - started
        candidates = registry.candidates(campaign=campaign)
        if not candidates:
            failure = registry.campaign(campaign).failure or "no reason was recorded"
            raise RoundFailed(
                f"The simulated campaign made no model: {failure}",
                action=f"Read {simulation.out / 'logs' / 'simulation.log'}.",
            )
        return Campaigned(
            campaign,
            candidates[0],
            registry.rounds(campaign),
            registry.contributions(campaign),
            seconds,
            warnings,
        )
    finally:
        registry.close()
