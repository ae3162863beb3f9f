import csv
import hashlib
import json
import logging
import os
import threading
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest

from client.cases.store import CaseStore
from client.intake.source import ImportSource
from client.privacy.accounting import Spend, epsilon
from client.privacy.ledger import PrivacyLedger
from client.site_recipes import own_recipe
from common.errors import ConfigurationError, InputRefused
from common.model import build_model
from common.model_files import state_tensors, write_safetensors
from server.campaigns import create_campaign
from server.registry.registry import Registry
from simulations import engine, federation, progress
from simulations.engine import Campaigned, run_campaign, run_simulation
from simulations.federation import Simulation, nothing_left, prepare_federation
from simulations.flower_ray import COORDINATOR_FOLDER, SINGLE_THREAD, SITES_FOLDER
from simulations.hospitals import ByColumn, ByPatientHash
from simulations.slow_sites import SlowSite
from simulations.warned import random_features_warning


@pytest.fixture(scope="module")
def finished(small_recipe, phantom_source, tmp_path_factory):
    """One simulation on Ray, with what was there before it and after it."""
    out = tmp_path_factory.mktemp("run") / "simulation"
    before = surroundings()
    stages = []
    simulation = Simulation(small_recipe, phantom_source, ByColumn(), out, pooled=True, workers=2)
    report = run_simulation(simulation, on_stage=lambda *stage: stages.append(stage))
    return report, out, stages, before, surroundings()


def surroundings():
    """What a simulation changes while it runs: variables for Ray's workers, and log handlers."""
    names = (COORDINATOR_FOLDER, SITES_FOLDER, "PYTHONPATH", *SINGLE_THREAD)
    flower = logging.getLogger("flwr")
    root = logging.getLogger()
    variables = {name: os.environ.get(name) for name in names}
    return variables, list(root.handlers), root.level, list(flower.handlers), flower.propagate


def test_a_campaign_runs_through_flower_and_ray(finished):
    report, _, stages, _, _ = finished
    assert report.rounds == 2
    assert [(r.sites, r.updates) for r in report.curve] == [(3, 3), (3, 3)]
    assert (report.seed, report.sites_by, report.weights) == (0, "column:site", None)
    assert report.federated.count == sum(h.federated.count for h in report.hospitals)
    assert report.pooled is not None
    assert report.gap is not None
    assert {h.name for h in report.hospitals} == {"hospital-0", "hospital-1", "hospital-2"}
    assert {name for name, _, _ in stages} >= {"Importing", "Pooled training"}
    assert all(done <= total for _, done, total in stages)


def test_each_site_spent_what_its_own_ledger_says(finished, small_recipe):
    report, out, _, _, _ = finished
    for hospital in report.hospitals:
        from client.settings import SiteSettings

        with PrivacyLedger.open(SiteSettings.read(out / "sites" / hospital.name)) as ledger:
            lines = [line for line in ledger.entries() if line.kind == "reserve"]
        assert len(lines) == 2
        spent = [Spend(x.noise_multiplier, x.sampling_rate, x.steps) for x in lines]
        assert epsilon(spent, hospital.delta) == pytest.approx(hospital.epsilon, rel=1e-6)
        assert hospital.epsilon <= small_recipe.privacy.epsilon


def test_the_folder_holds_the_report(finished):
    report, out, _, _, _ = finished
    assert json.loads((out / "metrics.json").read_text()) == json.loads(report.model_dump_json())
    with (out / "metrics.csv").open() as stream:
        assert [row["number"] for row in csv.DictReader(stream)] == ["1", "2"]
    text = (out / "report.md").read_text()
    assert "| pooled |" in text
    assert "hospital-2" in text
    assert (out / "curves.svg").read_text().lstrip().startswith("<?xml")
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "candidate" in (out / "logs" / "simulation.log").read_text()


def test_nothing_is_left_of_ray(finished):
    *_, before, after = finished
    assert before == after
    names = [process.name() for process in psutil.Process().children(recursive=True)]
    assert not [name for name in names if "ray" in name or "gcs" in name]
    assert not [t for t in threading.enumerate() if t.name == "simulation-progress"]


def test_a_folder_in_use_is_refused(small_recipe, phantom_source, tmp_path):
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "something").touch()
    with pytest.raises(ConfigurationError) as caught:
        prepare_federation(Simulation(small_recipe, phantom_source, ByColumn(), tmp_path))
    assert caught.value.code == "folder-exists"


def test_too_few_hospitals_are_refused_before_anything_is_made(
    small_recipe, phantom_source, tmp_path
):
    wants_three = small_recipe.federation.model_copy(update={"quorum": 3})
    recipe = small_recipe.model_copy(update={"federation": wants_three})
    with pytest.raises(ConfigurationError) as caught:
        prepare_federation(Simulation(recipe, phantom_source, ByPatientHash(2), tmp_path / "run"))
    assert caught.value.code == "quorum"
    assert not (tmp_path / "run").exists()


def test_a_hospital_without_usable_images_is_named(small_recipe, tmp_path):
    (tmp_path / "labels.csv").write_text(
        "file,label,site\na.png,benign,one\nb.png,benign,two\nc.png,benign,one\n"
    )
    simulation = Simulation(small_recipe, ImportSource(data=tmp_path), ByColumn(), tmp_path / "run")
    with pytest.raises(InputRefused) as caught:
        prepare_federation(simulation)
    assert caught.value.code == "no-cases"
    assert "one" in str(caught.value)


def test_shares_are_kept_apart_and_the_split_column_is_followed(
    small_recipe, phantom_source, tmp_path
):
    rows = (phantom_source.data / "labels.csv").read_text().splitlines()
    folds = ["fold", *("test" if n % 4 == 0 else "train" for n in range(len(rows) - 1))]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(f"{row},{fold}" for row, fold in zip(rows, folds, strict=True)))
    from client.intake.source import CsvColumns

    source = ImportSource(data=phantom_source.data, labels=table, columns=CsvColumns(split="fold"))
    made = prepare_federation(Simulation(small_recipe, source, ByPatientHash(2), tmp_path / "run"))
    kept = sum(summary.kept for summary in made.imports)
    held = sum(line.holdout for summary in made.imports for line in summary.class_balance)
    assert kept == len(rows) - 1
    assert held == folds.count("test")


def test_runs_of_one_seed_hold_out_the_same_patients(small_recipe, phantom_source, tmp_path):
    """A private run and one without privacy are set side by side: on the same test patients."""

    def held_out(name, **choices):
        simulation = Simulation(
            small_recipe, phantom_source, ByPatientHash(2), tmp_path / name, **choices
        )
        held = {}
        for site in prepare_federation(simulation).sites:
            with closing(CaseStore.open(site)) as store:
                held[site.name] = {c.digest for c in store.holdout_cases(small_recipe.name)}
        return held

    first = held_out("private")
    assert all(first.values())
    assert held_out("without", private=False) == first
    # The division is the same for a column; who is held out hangs on the seed alone.
    assert federation._pseudonym_key(1, "a") != federation._pseudonym_key(2, "a")
    assert federation._pseudonym_key(1, "a") != federation._pseudonym_key(1, "b")


class Stopped(Exception):
    """Raised where a test has seen enough."""


def campaigned_with(monkeypatch, simulation):
    """Return the simulation and the federation that a campaign would run on, and what was said."""
    seen, said = [], []

    def run_campaign(*given, **_):
        seen.extend(given)
        raise Stopped

    monkeypatch.setattr(engine, "run_campaign", run_campaign)
    with pytest.raises(Stopped):
        run_simulation(simulation, on_warning=said.append)
    return (*seen, said)


def test_a_files_batch_norm_is_kept_by_all_that_builds_the_network(
    small_recipe, phantom_source, tmp_path, monkeypatch
):
    """As a campaign keeps it (docs/campaigns.md), and not replaced by GroupNorm."""
    frozen = small_recipe.with_changes(normalisation="frozen")
    weights = tmp_path / "published.safetensors"
    write_safetensors(weights, state_tensors(build_model(frozen, seed=1)))
    asked = Simulation(small_recipe, phantom_source, ByColumn(), tmp_path / "run", weights=weights)
    simulation, made, _ = campaigned_with(monkeypatch, asked)
    assert simulation.recipe == frozen
    assert [own_recipe(site, frozen.name) for site in made.sites] == [frozen] * 3


def test_the_report_names_the_weights_and_what_was_warned_of(
    small_recipe, phantom_source, tmp_path, monkeypatch
):
    """The campaign's first model is scored, and pooled training starts from the same network."""
    weights = tmp_path / "published.safetensors"
    frozen = build_model(small_recipe.with_changes(normalisation="frozen"), seed=1)
    write_safetensors(weights, state_tensors(frozen))

    def begun(simulation, made, **_):
        with closing(Registry.open(made.coordinator)) as registry:
            campaign = create_campaign(
                made.coordinator, registry, simulation.recipe, weights=simulation.weights
            )
            first = SimpleNamespace(model_digest=registry.campaign(campaign).initial_digest)
        return Campaigned(campaign, first, (), (), 1.0, random_features_warning("So it is."))

    monkeypatch.setattr(engine, "run_campaign", begun)
    report = run_simulation(
        Simulation(
            small_recipe,
            phantom_source,
            ByPatientHash(2),
            tmp_path / "run",
            pooled=True,
            seed=4,
            weights=weights,
            workers=1,
            slow=(SlowSite("hospital-001", 3.0),),
        )
    )
    assert report.pooled is not None
    assert (report.seed, report.sites_by, report.weights) == (4, "hash:2", "published.safetensors")
    assert report.weights_digest == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert report.slow == ("hospital-001=3",)
    assert report.warnings[-1].code == "random-features"
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["seed"] == 4


def test_a_refused_simulation_leaves_nothing_and_may_be_corrected(
    small_recipe, phantom_source, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    simulation = Simulation(small_recipe, phantom_source, ByColumn(), out)

    def refused(*_, **__):
        assert (out / "sites").exists()
        raise ConfigurationError("The settings contradict each other.", code="campaign-settings")

    monkeypatch.setattr(engine, "run_campaign", refused)
    with pytest.raises(ConfigurationError):
        run_simulation(simulation)
    assert not out.exists()
    out.mkdir()
    (out / "notes.txt").touch()
    with pytest.raises(ConfigurationError, match="contradict"):
        run_simulation(simulation)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_what_was_there_before_is_not_removed(small_recipe, phantom_source, tmp_path):
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "something").touch()
    with pytest.raises(ConfigurationError) as caught:
        run_simulation(Simulation(small_recipe, phantom_source, ByColumn(), tmp_path))
    assert caught.value.code == "folder-exists"
    assert (tmp_path / "sites" / "something").exists()


def test_a_simulation_whose_rounds_began_keeps_its_folder(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigurationError), nothing_left(tmp_path, ("data",)):
        raise ConfigurationError("Something.", code="something")
    assert (tmp_path / "data").exists()


def test_hospitals_that_number_their_own_patients_are_not_merged(
    small_recipe, phantom_source, tmp_path, monkeypatch
):
    """Three tables of patients 1 to 24 are 72 patients, and the doubt is told before training."""
    with (phantom_source.data / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    table = tmp_path / "labels.csv"
    lines = ["file,label,patient_id,site"]
    lines += [f"{r['file']},{r['label']},{r['patient_id'][3:]},{r['site']}" for r in rows]
    table.write_text("\n".join(lines))
    simulation = Simulation(
        small_recipe,
        ImportSource(data=phantom_source.data, labels=table),
        ByColumn(),
        tmp_path / "run",
    )
    _, made, said = campaigned_with(monkeypatch, simulation)
    assert [summary.patients for summary in made.imports] == [24, 24, 24]
    assert made.shared_patients == 24
    assert (said[0].hospital, said[0].code) == (None, "patient-ids-shared")
    assert said[0].message.startswith("24 patient ids occur")


def test_what_the_imports_warned_of_is_told_by_hospital(
    small_recipe, phantom_source, tmp_path, monkeypatch
):
    with (phantom_source.data / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    table = tmp_path / "labels.csv"
    lines = ["file,label,site"]
    lines += [f"{r['file']},{r['label']},{r['site']}" for r in rows]
    table.write_text("\n".join(lines))
    simulation = Simulation(
        small_recipe,
        ImportSource(data=phantom_source.data, labels=table),
        ByColumn(),
        tmp_path / "run",
    )
    _, made, said = campaigned_with(monkeypatch, simulation)
    unnamed = [one.hospital for one in said if one.code == "patients-unnamed"]
    assert unnamed == ["hospital-0", "hospital-1", "hospital-2"]
    assert tuple(said) == made.warnings


def test_random_features_are_told_before_the_rounds(
    small_recipe, phantom_source, tmp_path, monkeypatch
):
    head = small_recipe.privacy.model_copy(update={"trainable": "head"})
    recipe = small_recipe.model_copy(update={"privacy": head})
    simulation = Simulation(recipe, phantom_source, ByColumn(), tmp_path / "run")

    def rounds(*_, **__):
        raise Stopped

    monkeypatch.setattr("simulations.flower_ray.run_campaign_on_ray", rounds)
    for asked, codes in (
        (simulation, ["random-features"]),
        (replace(simulation, private=False), []),
    ):
        said = []
        made = prepare_federation(replace(asked, out=tmp_path / str(len(codes))))
        with pytest.raises(Stopped):
            run_campaign(asked, made, on_warning=said.append)
        assert [one.code for one in said] == codes


def test_progress_follows_the_registry(monkeypatch):
    class Registry:
        def rounds(self, _campaign):
            asked.set()
            return ()

    asked, told = threading.Event(), []
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.001)
    with progress.watching(Registry(), "c", told.append):
        assert asked.wait(5)
    assert set(told) == {0}
