"""The demo's journey in order: provision, import, train, release, confirm, train again, swap."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from client.cases.store import CaseStore
from client.declaration import declare_patients
from client.policy import SitePolicy
from client.releases.policy import ReleasePolicy
from common.errors import RoundFailed
from common.folders import write_private
from common.recipe import Recipe
from deploy.campaigns import Progress as CampaignProgress
from deploy.campaigns import opened
from deploy.demo.hospitals import Hospital
from deploy.demo.measure import failed_checks, measure_site, pooled_metrics, training_counts
from deploy.demo.newcomers import confirm_new_cases
from deploy.demo.recipes import without_noise
from deploy.demo.report import DemoReport, SiteReport
from deploy.demo.stages import Stage, Stages
from deploy.demo.traffic import Tally, Traffic
from deploy.federation_folder import FEDERATION
from deploy.local import LocalFederation
from server.campaigns import random_features
from server.registry.records import Candidate
from server.registry.registry import Registry
from simulations.hospitals import shared_patient_ids
from simulations.warned import (
    Warned,
    import_warnings,
    random_features_warning,
    shared_ids_warning,
)

SWAP_SECONDS = 120.0
SETTLE_SECONDS = 2.0
FIRST_CAMPAIGN_SHARE = 0.7
"""Of each site's epsilon for life, so that the second campaign has something to spend."""
MINIMUM_CELL = 5


@dataclass(frozen=True)
class DemoChoices:
    """What was asked for; ``epsilon`` bounds a site's life, ``rounds`` are campaign one's.

    ``weights`` is the file to start from, whose BatchNorm ``recipe`` keeps; ``warnings`` are what
    was to be said of the choices themselves.
    """

    recipe: Recipe
    epsilon: float
    rounds: int
    private: bool
    compare: bool
    weights: Path | None = None
    warnings: tuple[Warned, ...] = ()


class Demo:
    """One run of the demo on hospitals whose images are on disk.

    Parameters
    ----------
    folder : Path
        New; holds the federation, its databases and logs.
    hospitals : sequence of Hospital
        At least two.
    choices : DemoChoices
        See there.
    stages : Stages
        Where progress is shown.
    """

    def __init__(
        self,
        folder: Path,
        hospitals: Sequence[Hospital],
        choices: DemoChoices,
        stages: Stages,
    ) -> None:
        self._folder = folder
        self._hospitals = {h.name: h for h in hospitals}
        self._choices = choices
        self._stages = stages
        self._started = time.monotonic()
        self._warnings: list[Warned] = []
        shared = shared_patient_ids(hospital.patient_ids for hospital in hospitals)
        self._warn(*choices.warnings, *shared_ids_warning(shared))

    def _warn(self, *warnings: Warned) -> None:
        for warned in warnings:
            self._stages.warn(warned.line())
        self._warnings += warnings

    @contextmanager
    def federation(
        self, *, name: str = FEDERATION, private: bool, patients_of: str | None = None
    ) -> Iterator[LocalFederation]:
        """Provision a federation, import every hospital's cases, and run it until left.

        With ``patients_of``, the name of an earlier one, the same patients are held out as there.
        """
        choices = self._choices
        policy = SitePolicy(
            allowed_recipes=(choices.recipe.name,),
            allow_without_privacy=not private,
            epsilon_life=choices.epsilon,
            epsilon_campaign=choices.epsilon,
            release_evaluation=True,
            minimum_cell=MINIMUM_CELL,
            releases=ReleasePolicy(on_release="accept"),  # the story has every release answer
        )
        federation = LocalFederation(
            self._folder / name,
            sites=tuple(self._hospitals),
            task=choices.recipe.name,
            recipe=choices.recipe,
            policy=policy,
        )
        if patients_of is not None:
            self._take_pseudonyms(federation, self._folder / patients_of)
        with federation:
            with self._stages.step("starting processes, importing cases"):
                federation.start()
                for hospital in self._hospitals.values():
                    site = federation.site(hospital.name)
                    summary = hospital.import_into(site, choices.recipe)
                    declare_patients(site.policy, max(5, summary.suggested_declaration))
                    if patients_of is None:
                        self._warn(*import_warnings(hospital.name, summary))
                federation.wait_ready()
            yield federation

    def _take_pseudonyms(self, federation: LocalFederation, earlier: Path) -> None:
        """Give every site its key of an earlier federation: who is held out hangs on it."""
        for name in self._hospitals:
            key = (earlier / "sites" / name / "keys" / "pseudonyms").read_bytes()
            write_private(federation.site(name).keys / "pseudonyms", key)

    def run(self, federation: LocalFederation) -> DemoReport:
        """Run both campaigns on a running federation, and return what came of them."""
        choices = self._choices
        share = FIRST_CAMPAIGN_SHARE * choices.epsilon
        first = self._campaign(
            federation, "campaign 1", choices.rounds, share, weights=choices.weights
        )
        v1 = self._released(federation, first, version=1)
        self._confirm_new_cases(federation)
        images = [image for h in self._hospitals.values() for image in h.sample_images(4)]
        urls = {name: federation.site_url(name) for name in federation.site_names}
        traffic = Traffic(urls, images)
        # Where the gate refused the first model, nobody can ask for a prediction yet.
        with traffic if v1 is not None else nullcontext():
            rounds = max(1, choices.rounds // 2)
            # Weights would go before the release that the second campaign is to go on from.
            again = choices.weights if v1 is None else None
            second = self._campaign(
                federation, "campaign 2", rounds, choices.epsilon, weights=again
            )
            v2 = self._released(federation, second, version=1 if v1 is None else 2)
            time.sleep(SETTLE_SECONDS)  # requests to the new version are part of the swap
        return self._report(federation, first, second, v2 is not None, traffic.tallies)

    def compare_without_privacy(self, report: DemoReport) -> DemoReport:
        """Run the first campaign again without privacy, in a federation of its own.

        On the same patients, who are held out where they were.
        """
        choices = self._choices
        with self.federation(
            name="without-privacy", private=False, patients_of=FEDERATION
        ) as federation:
            candidate = self._campaign(
                federation,
                "the same without privacy",
                choices.rounds,
                None,
                recipe=self._without_noise(federation),
                weights=choices.weights,
            )
        metrics = pooled_metrics(candidate)
        return report.model_copy(
            update={"without_privacy": metrics, "seconds": time.monotonic() - self._started}
        )

    def _without_noise(self, federation: LocalFederation) -> Recipe:
        sites = [federation.site(name) for name in self._hospitals]
        patients, images = training_counts(sites, self._choices.recipe)
        return without_noise(self._choices.recipe, patients=patients, images=images)

    def _campaign(
        self,
        federation: LocalFederation,
        title: str,
        rounds: int,
        epsilon: float | None,
        *,
        recipe: Recipe | None = None,
        weights: Path | None = None,
    ) -> Candidate:
        choices = self._choices
        stage = self._stages.begin(title, total=rounds, unit="round")
        identifier = federation.start_campaign(
            recipe or choices.recipe,
            rounds=rounds,
            epsilon=epsilon,
            private=choices.private and epsilon is not None,
            weights=weights,
        )
        self._warn(*_random_features(federation, identifier, weights))
        federation.wait_campaign(identifier, lambda progress: self._show(stage, progress))
        self._stages.end(stage)
        registry = Registry.open(federation.coordinator)
        try:
            return registry.candidates(campaign=identifier)[-1]
        finally:
            registry.close()

    def _show(self, stage: Stage, progress: CampaignProgress) -> None:
        scores = [r.metrics.macro_auroc for r in progress.rounds if r.metrics is not None]
        known = [score for score in scores if score is not None]
        note = f"macro AUROC {known[-1]:.3f}" if known else ""
        self._stages.advance(stage, progress.rounds_done, note)

    def _released(
        self, federation: LocalFederation, candidate: Candidate, *, version: int
    ) -> int | None:
        """Wait until every site serves a version; None when the gate refused the candidate."""
        if candidate.state == "refused":
            return None
        with self._stages.step(f"release v{version} at every site"):
            deadline = time.monotonic() + SWAP_SECONDS
            waiting = set(federation.site_names)
            while waiting:
                federation.check()
                waiting = {n for n in waiting if _served_version(federation.site_url(n)) != version}
                if time.monotonic() > deadline:
                    raise RoundFailed(
                        f"Release v{version} is not served at {', '.join(sorted(waiting))}.",
                        action=f"Read the services' logs in {federation.logs}.",
                        code="release-not-served",
                    )
                time.sleep(0.2)
        return version

    def _confirm_new_cases(self, federation: LocalFederation) -> None:
        for hospital in self._hospitals.values():
            if not hospital.newcomers:
                continue
            stage = self._stages.begin(
                f"new cases at {hospital.name}", total=len(hospital.newcomers)
            )
            confirm_new_cases(
                hospital.newcomers,
                hospital.name,
                federation.site_url(hospital.name),
                log=federation.logs / f"{hospital.name}-service.log",
                on_done=partial(self._stages.advance, stage),
            )

    def _report(
        self,
        federation: LocalFederation,
        first: Candidate,
        second: Candidate,
        v2_released: bool,
        tallies: Mapping[str, Tally],
    ) -> DemoReport:
        choices = self._choices
        with self._stages.step("measuring"):
            sites = tuple(
                self._site_report(federation, name, first, second if v2_released else None, tally)
                for name, tally in tallies.items()
            )
        return DemoReport(
            recipe=choices.recipe.name,
            model=choices.recipe.model.architecture,
            image_size=choices.recipe.image.size,
            private=choices.private,
            epsilon=choices.epsilon if choices.private else None,
            rounds=(choices.rounds, max(1, choices.rounds // 2)),
            sites=sites,
            v1=pooled_metrics(first),
            v2=pooled_metrics(second),
            v1_refused_by=failed_checks(first) if first.state == "refused" else (),
            v2_refused_by=() if v2_released else failed_checks(second),
            without_privacy=None,
            warnings=tuple(self._warnings),
            seconds=time.monotonic() - self._started,
            folder=str(self._folder),
        )

    def _site_report(
        self,
        federation: LocalFederation,
        name: str,
        first: Candidate,
        second: Candidate | None,
        tally: Tally,
    ) -> SiteReport:
        settings = federation.site(name)
        served = httpx.get(
            f"{federation.site_url(name)}/health/ready", timeout=30.0, trust_env=False
        ).json()
        candidates = (first, second) if second is not None else (first,)
        measured = measure_site(settings, self._choices.recipe, federation.coordinator, candidates)
        store = CaseStore.open(settings)
        try:
            counts = store.counts(self._choices.recipe.name)
        finally:
            store.close()
        return SiteReport(
            site=name,
            cases=counts.confirmed,
            training_patients=counts.train_patients,
            holdout_patients=counts.holdout_patients,
            epsilon_rdp=measured.epsilon_rdp if self._choices.private else None,
            epsilon_prv=measured.epsilon_prv if self._choices.private else None,
            auroc_v1=measured.auroc[0],
            auroc_v2=measured.auroc[1] if second is not None else None,
            model_version=served["model_version"],
            model_digest=served["model_digest"],
            answered_during_swap=tally.answered,
            failed_during_swap=tally.failed,
            url=federation.site_url(name),
        )


def _random_features(
    federation: LocalFederation, campaign: str, weights: Path | None
) -> tuple[Warned, ...]:
    with opened(federation.coordinator) as registry:
        said = random_features(registry.campaign(campaign), weights=weights)
    return random_features_warning(said)


def _served_version(url: str) -> int | None:
    try:
        answer = httpx.get(f"{url}/model", timeout=10.0, trust_env=False)
    except httpx.HTTPError:
        return None
    return int(answer.json()["version"]) if answer.status_code == httpx.codes.OK else None
