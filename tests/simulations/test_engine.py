import csv
import json
import logging
import os
import threading
from contextlib import closing

import psutil
import pytest

from client.cases.store import CaseStore
from client.intake.source import ImportSource
from client.privacy.accounting import Spend, epsilon
from client.privacy.ledger import PrivacyLedger
from common.errors import ConfigurationError, InputRefused
from simulations import engine, progress
from simulations.engine import Simulation, prepare_federation, run_simulation
from simulations.flower_ray import COORDINATOR_FOLDER, SINGLE_THREAD, SITES_FOLDER
from simulations.hospitals import ByColumn, ByPatientHash


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
    assert [r.sites for r in report.curve] == [3, 3]
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
    federation = small_recipe.federation.model_copy(update={"quorum": 3})
    recipe = small_recipe.model_copy(update={"federation": federation})
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
    federation = prepare_federation(
        Simulation(small_recipe, source, ByPatientHash(2), tmp_path / "run")
    )
    kept = sum(summary.kept for summary in federation.imports)
    held = sum(line.holdout for summary in federation.imports for line in summary.class_balance)
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
    assert engine._pseudonym_key(1, "a") != engine._pseudonym_key(2, "a")
    assert engine._pseudonym_key(1, "a") != engine._pseudonym_key(1, "b")


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
