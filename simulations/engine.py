"""A simulation: hospitals out of one data set, a campaign over them, and what came of it.

It makes the folders that a deployment has (a coordinator's, one for each site), imports each
hospital's share, creates a campaign, and runs the deployment's own ServerApp and ClientApp.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client.declaration import declare_patients
from client.intake.importer import ImportSource, import_cases, read_rows
from client.intake.summary import ImportSummary
from client.policy import SitePolicy
from client.settings import SiteSettings
from client.site_folder import create_site_folder
from common.errors import ConfigurationError, InputRefused, RoundFailed
from common.recipe import Recipe
from server.campaigns import check_majority, create_campaign
from server.coordinator_folder import create_coordinator_folder, plan_public_key
from server.model_store import ModelStore
from server.registry.records import Candidate, Contribution, Round
from server.registry.registry import Registry
from server.settings import CoordinatorSettings
from simulations.adversaries import Adversary, check_adversaries, falsify_cases
from simulations.hospitals import Hospital, SiteRule, check_quorum, split_into_hospitals
from simulations.progress import watching
from simulations.report import SimulationReport
from simulations.report_files import write_report
from simulations.scoring import Predictions, load_hospitals, own_layers, predictions_of
from simulations.slow_sites import SlowSite, check_slow_sites
from simulations.trained import trained_passes

logger = logging.getLogger(__name__)

FOLDERS = ("coordinator", "sites", "logs")
"""Of a run's folder, beside the report (and ``data``, where phantoms are drawn)."""
SIMULATED_LIFETIME = 1e6
"""Bound of a simulated site's life: only the campaign's epsilon is to bind here."""

SIMULATED_DAY = 1_000_000
"""Messages that a simulated site answers in a day: its days are minutes long."""

OnStage = Callable[[str, int, int], None]
"""Told the stage, and how much of how much of it is done."""


@dataclass(frozen=True)
class Simulation:
    """What to simulate.

    Attributes
    ----------
    recipe : Recipe
        With the command line's changes; its rounds and epsilon are used.
    source : ImportSource
        The whole data set, with the columns' names.
    rule : SiteRule
        How it is divided.
    out : Path
        Folder of the run; must not exist or be empty.
    private : bool
        False is a study without privacy.
    pooled : bool
        Whether to train the same network on the union of the data, too.
    seed : int
        Of the division, of who is held out, and of the pooled training: runs of one seed are
        scored on the same patients. Rounds draw their own chances.
    workers : int
        Sites that work at the same time, each on one CPU thread, and threads of the pooled
        training; 0 is one for each CPU core.
    adversaries : tuple of Adversary
        Sites that attack; all others are honest.
    slow : tuple of SlowSite
        Sites that take longer over a training round.
    weights : Path or None
        A safetensors file that the campaign and the pooled training start from, in place of random
        weights.
    """

    recipe: Recipe
    source: ImportSource
    rule: SiteRule
    out: Path
    private: bool = True
    pooled: bool = False
    seed: int = 0
    workers: int = 0
    adversaries: tuple[Adversary, ...] = ()
    weights: Path | None = None
    slow: tuple[SlowSite, ...] = ()


@dataclass(frozen=True)
class Federation:
    """A simulated federation's folders, and what each import said."""

    coordinator: CoordinatorSettings
    sites: tuple[SiteSettings, ...]
    imports: tuple[ImportSummary, ...]


@dataclass(frozen=True)
class Campaigned:
    """A finished campaign, out of the registry."""

    campaign: str
    candidate: Candidate
    rounds: tuple[Round, ...]
    contributions: tuple[Contribution, ...]
    seconds: float


def run_simulation(
    simulation: Simulation, *, on_stage: OnStage = lambda *_: None
) -> SimulationReport:
    """Run a simulation, and leave its folder: report.md, metrics.json, metrics.csv and curves.

    Parameters
    ----------
    simulation : Simulation
        What to do.
    on_stage : callable, optional
        For a progress display.

    Raises
    ------
    InputRefused
        If the data cannot be used.
    ConfigurationError
        If the folder holds something, or the recipe's quorum is out of reach.
    RoundFailed
        If the campaign failed.
    """
    from simulations.pooled import PooledTraining, train_pooled

    started = time.monotonic()
    federation = prepare_federation(simulation, on_stage=on_stage)
    campaigned = run_campaign(simulation, federation, on_stage=on_stage)
    hospitals = load_hospitals(federation.sites, simulation.recipe)
    digest = campaigned.candidate.model_digest
    tensors = ModelStore(federation.coordinator.models).load(digest)
    federated = predictions_of(tensors, hospitals, simulation.recipe)
    own: Predictions | None = None
    if simulation.recipe.federation.local_layers:
        layers = own_layers(federation.sites, campaigned.campaign)
        own = predictions_of(tensors, hospitals, simulation.recipe, own=layers)
    pooled: Predictions | None = None
    if simulation.pooled:
        passes = trained_passes(
            simulation.recipe,
            campaigned.rounds,
            campaigned.contributions,
            sites=len(hospitals),
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
        pooled = predictions_of(model, hospitals, simulation.recipe)
    report = SimulationReport.build(
        simulation.recipe,
        hospitals,
        campaigned.rounds,
        campaigned.contributions,
        federated=federated,
        own=own,
        pooled=pooled,
        private=simulation.private,
        campaign_seconds=campaigned.seconds,
        seconds=time.monotonic() - started,
        adversaries=tuple(f"{a.site}={a.behaviour}" for a in simulation.adversaries),
        imports=federation.imports,
    )
    write_report(report, simulation.out)
    return report


def prepare_federation(
    simulation: Simulation, *, on_stage: OnStage = lambda *_: None
) -> Federation:
    """Make the coordinator's and the sites' folders, and import each hospital's share."""
    recipe = simulation.recipe
    rows = list(read_rows(simulation.source).rows)
    hospitals = split_into_hospitals(rows, simulation.rule, seed=simulation.seed)
    check_majority(recipe, recipe.federation.quorum)
    check_quorum(recipe, hospitals)
    names = [hospital.name for hospital in hospitals]
    check_adversaries(simulation.adversaries, names)
    check_slow_sites(simulation.slow, names)
    for part in FOLDERS:
        check_empty(simulation.out / part)
    coordinator = create_coordinator_folder(simulation.out / "coordinator", releases=False)
    sites, imports = [], []
    done, total = 0, len(rows)
    for hospital in hospitals:
        site = _create_site(simulation, coordinator, hospital)
        before = done
        summary = import_cases(
            site,
            recipe,
            simulation.source,
            keep=hospital.keeper(),
            progress=lambda n, _, before=before: on_stage("Importing", before + n, total),  # type: ignore[misc]
        )
        _check_import(hospital, summary)
        for adversary in simulation.adversaries:
            if adversary.site == hospital.name:
                falsify_cases(site, recipe, adversary.behaviour)
        declare_patients(site.policy, summary.suggested_declaration)
        done += len(hospital.rows)
        sites.append(site)
        imports.append(summary)
    return Federation(coordinator, tuple(sites), tuple(imports))


def run_campaign(
    simulation: Simulation, federation: Federation, *, on_stage: OnStage = lambda *_: None
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
        )
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
        )
    finally:
        registry.close()


def check_empty(folder: Path) -> None:
    """Refuse a folder that holds something already.

    Raises
    ------
    ConfigurationError
        With code ``folder-exists``.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            f"The folder {folder} holds something already.",
            action="Name a new folder with --out.",
            code="folder-exists",
        )


def _create_site(
    simulation: Simulation, coordinator: CoordinatorSettings, hospital: Hospital
) -> SiteSettings:
    recipe = simulation.recipe
    policy = SitePolicy(
        allowed_recipes=(recipe.name,),
        allow_without_privacy=not simulation.private,
        epsilon_life=SIMULATED_LIFETIME,
        epsilon_campaign=recipe.privacy.epsilon,
        release_evaluation=True,
        minimum_cell=1,  # a simulation on one machine may look at every case
        release_statistics=("decision", "calibration", "subgroups"),
        rounds_per_day=SIMULATED_DAY,
        evaluations_per_day=SIMULATED_DAY,
    )
    return create_site_folder(
        simulation.out / "sites" / hospital.name,
        name=hospital.name,
        task=recipe.name,
        plan_keys=[plan_public_key(coordinator)],
        policy=policy,
        recipe=recipe,
        settings={"threads": 1},
        pseudonym_key=_pseudonym_key(simulation.seed, hospital.name),
    )


def _pseudonym_key(seed: int, site: str) -> bytes:
    """Return the key of a simulated site's split: no secret, and the same in every run.

    Two runs that are to be set side by side must hold out the same patients.
    """
    return hashlib.sha256(f"wardround-simulation\0{seed}\0{site}".encode()).digest()


def _check_import(hospital: Hospital, summary: ImportSummary) -> None:
    if not any(line.train for line in summary.class_balance):
        raise InputRefused(
            f"Hospital {hospital.name} has no usable training image.",
            meaning=f"Refused: {dict(summary.refused_by_code)}." if summary.refused_count else "",
            action="Look at the labels, the split column and the division into hospitals.",
            code="no-cases",
        )
