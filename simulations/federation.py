"""A simulated federation's folders: hospitals out of one data set, each with its share imported.

They are the folders that a deployment has: a coordinator's, and one for each site.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from client.declaration import declare_patients
from client.intake.importer import ImportSource, import_cases, read_rows
from client.intake.summary import ImportSummary
from client.policy import SitePolicy
from client.settings import SiteSettings
from client.site_folder import create_site_folder
from common.errors import ConfigurationError, InputRefused, WardroundError
from common.recipe import Recipe
from server.campaigns import check_majority
from server.coordinator_folder import create_coordinator_folder, plan_public_key
from server.settings import CoordinatorSettings
from simulations.adversaries import Adversary, check_adversaries, falsify_cases
from simulations.hospitals import (
    Hospital,
    SiteRule,
    check_quorum,
    shared_patient_ids,
    split_into_hospitals,
)
from simulations.slow_sites import SlowSite, check_slow_sites
from simulations.warned import Warned, import_warnings, shared_ids_warning

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
    """A simulated federation's folders, and what each import said.

    ``shared_patients`` is the number of patient ids that occur at several hospitals.
    """

    coordinator: CoordinatorSettings
    sites: tuple[SiteSettings, ...]
    imports: tuple[ImportSummary, ...]
    shared_patients: int = 0

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """What the data and their imports gave cause to say, all hospitals' first."""
        pairs = zip(self.sites, self.imports, strict=True)
        each = (warned for site, said in pairs for warned in import_warnings(site.name, said))
        return (*shared_ids_warning(self.shared_patients), *each)


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
        declare_patients(site.policy, max(5, summary.suggested_declaration))
        done += len(hospital.rows)
        sites.append(site)
        imports.append(summary)
    shared = shared_patient_ids((row.patient_id for row in hospital.rows) for hospital in hospitals)
    return Federation(coordinator, tuple(sites), tuple(imports), shared)


@contextmanager
def nothing_left(folder: Path, parts: Sequence[str]) -> Iterator[None]:
    """Remove ``parts`` of a folder where the block is refused before the rounds have a log.

    The corrected command then finds the folder as it was. Only for parts that were empty before.
    """
    existed = folder.exists()
    try:
        yield
    except WardroundError:
        if not (folder / "logs").exists():
            for part in parts:
                shutil.rmtree(folder / part, ignore_errors=True)
            if not existed:
                with suppress(OSError):  # somebody else's file is in it
                    folder.rmdir()
        raise


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
