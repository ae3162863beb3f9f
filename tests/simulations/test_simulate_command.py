import json
from typing import get_args

import numpy as np
import pytest
from rich.console import Console

from common.errors import ConfigurationError
from common.recipe import AlgorithmName, load_recipe
from deploy.commands import simulate as command
from deploy.commands.campaign_flags import LocalLayerName
from deploy.commands.simulate import show_report, simulate
from simulations.adversaries import Adversary
from simulations.federation import prepare_federation
from simulations.report import Setup, SimulationReport
from simulations.report_words import as_markdown
from simulations.scoring import HospitalImages, Predictions
from simulations.slow_sites import SlowSite
from simulations.warned import Warned
from tests.client.stores import picture

RECIPE = "mammography"


def test_data_and_phantoms_exclude_each_other(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        simulate(RECIPE, data=tmp_path, phantom=True)
    assert caught.value.code == "simulation-data"
    with pytest.raises(ConfigurationError):
        simulate(RECIPE)


def test_a_rule_that_cannot_be_read_is_refused_first(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        simulate(RECIPE, phantom=True, sites_by="hash:one", out=tmp_path / "run")
    assert caught.value.code == "sites-by"
    assert not (tmp_path / "run").exists()


def test_phantoms_are_not_drawn_into_a_folder_in_use(tmp_path):
    (tmp_path / "old").touch()
    with pytest.raises(ConfigurationError) as caught:
        simulate(RECIPE, phantom=True, out=tmp_path)
    assert caught.value.code == "folder-exists"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"adversary": ["north=nan"]}, "adversary"),
        ({"slow": ["hospital-004=3"]}, "slow-site"),
        ({"slow": ["hospital-003=3"], "sites_by": "hash:2"}, "slow-site"),
    ],
)
def test_hospitals_that_there_are_not_are_refused_before_phantoms_are_drawn(
    tmp_path, monkeypatch, options, code
):
    def drawn(*_, **__):
        raise AssertionError("phantoms were drawn")

    monkeypatch.setattr(command, "_phantom_data", drawn)
    with pytest.raises(ConfigurationError) as caught:
        simulate(RECIPE, phantom=True, out=tmp_path / "run", **options)
    assert caught.value.code == code
    assert not (tmp_path / "run").exists()


def test_phantoms_of_a_refused_simulation_do_not_stand_in_the_way_of_the_next(
    tmp_path, monkeypatch
):
    """What only the data can tell: here fewer hospitals than the quorum."""
    options = {"phantom": True, "patients": 5, "hospitals": 2, "out": tmp_path / "run"}
    with pytest.raises(ConfigurationError) as caught:
        simulate(RECIPE, quorum=3, **options)
    assert caught.value.code == "quorum"
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr("simulations.engine.run_simulation", lambda *_, **__: report())
    simulate(RECIPE, quorum=2, **options)


def test_options_reach_the_simulation(tmp_path, monkeypatch, capsys):
    asked = {}

    def run(simulation, *, on_stage, on_warning):
        asked["simulation"] = simulation
        on_stage("Rounds", 1, 2)
        on_warning(Warned(hospital="north", code="label-leak", message="The label is [told]."))
        return report()

    monkeypatch.setattr("simulations.engine.run_simulation", run)
    simulate(
        RECIPE,
        phantom=True,
        patients=5,
        hospitals=2,
        model="test_resnet",
        image_size=48,
        rounds=2,
        epsilon=3.0,
        aggregation="median",
        quorum=3,
        adversary=["hospital-002=sign-flip"],
        local_layers=[LocalLayerName.normalisation],
        mode="buffered",
        buffer_size=2,
        slow=["hospital-001=3"],
        baseline=command.Baseline.pooled,
        out=tmp_path / "run",
        as_json=True,
    )
    simulation = asked["simulation"]
    assert simulation.recipe.federation.rounds == 2
    assert simulation.recipe.privacy.epsilon == 3.0
    assert simulation.recipe.model.architecture == "test_resnet"
    assert simulation.recipe.federation.aggregation.name == "median"
    assert simulation.adversaries == (Adversary("hospital-002", "sign-flip"),)
    assert simulation.slow == (SlowSite("hospital-001", 3.0),)
    federation = simulation.recipe.federation
    assert (federation.mode, federation.buffer_size) == ("buffered", 2)
    assert federation.local_layers == ("normalisation",)
    assert (simulation.private, simulation.pooled) == (True, True)
    assert (tmp_path / "run" / "data" / "labels.csv").is_file()
    said = capsys.readouterr()
    assert json.loads(said.out)["recipe"] == RECIPE
    assert said.err.strip() == "Warning: north: label-leak: The label is [told]."


def asked_for(monkeypatch, tmp_path, **options):
    """Return the simulation that options make, its hospitals imported."""
    asked = []

    def run(simulation, *, on_stage, on_warning):
        federation = prepare_federation(simulation)
        asked.append((simulation, federation))
        return report()

    monkeypatch.setattr("simulations.engine.run_simulation", run)
    simulate(RECIPE, out=tmp_path / "run", as_json=True, **options)
    return asked[0]


def test_an_npz_file_is_simulated(tmp_path, monkeypatch):
    parts = {}
    for seed, split in enumerate(("train", "val", "test")):
        rng = np.random.default_rng(seed)
        parts[f"{split}_images"] = rng.integers(0, 256, (12, 28, 28), np.uint8)
        parts[f"{split}_labels"] = np.arange(12)[:, None] % 2
    np.savez(tmp_path / "data.npz", **parts)
    _, federation = asked_for(
        monkeypatch,
        tmp_path,
        data=tmp_path / "data.npz",
        sites_by="hash:2",
        class_order="malignant, benign",
    )
    balance = [line for summary in federation.imports for line in summary.class_balance]
    assert sum(line.train for line in balance) == 12
    assert sum(line.holdout for line in balance) == 24


def test_a_table_is_read_by_the_flags_that_its_errors_name(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    rows = ["path;diagnosis"]
    for n in range(20):
        (tmp_path / "images" / f"p{n}_left.png").write_bytes(picture(n))
        rows.append(f"p{n}_left.png;{'cancer' if n % 2 else 'none'}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    simulation, federation = asked_for(
        monkeypatch,
        tmp_path,
        data=tmp_path / "images",
        labels=tmp_path / "table.csv",
        file_column="path",
        label_column="diagnosis",
        label_alias=["cancer=malignant", "none=benign"],
        patient_pattern="^(p[0-9]+)_",
        sites_by="hash:2",
    )
    assert sum(summary.kept for summary in federation.imports) == 20
    assert sum(summary.patients for summary in federation.imports) == 20
    assert simulation.source.labels == tmp_path / "table.csv"


def test_liars_that_could_be_half_are_refused_before_anything_is_made(tmp_path, monkeypatch):
    chosen = {"phantom": True, "patients": 5, "aggregation": "descent", "as_json": True}
    with pytest.raises(ConfigurationError, match="cannot bear") as caught:
        simulate(RECIPE, out=tmp_path / "run", **chosen)
    assert caught.value.code == "campaign-settings"
    assert "--quorum" in str(caught.value.action)
    assert not (tmp_path / "run").exists()
    asked = []
    monkeypatch.setattr(
        "simulations.engine.run_simulation", lambda s, **_: asked.append(s) or report()
    )
    weights = tmp_path / "weights.safetensors"
    simulate(RECIPE, out=tmp_path / "run", quorum=3, weights=weights, **chosen)
    assert asked[0].recipe.federation.quorum == 3
    assert asked[0].weights == weights


@pytest.mark.parametrize("private", [True, False])
def test_every_algorithm_can_be_tried_on_phantoms(tmp_path, monkeypatch, private):
    """SCAFFOLD wants plain SGD at the sites, which the other phantoms do not take."""
    asked = []
    monkeypatch.setattr(
        "simulations.engine.run_simulation", lambda s, **_: asked.append(s) or report()
    )
    for name in get_args(AlgorithmName):
        simulate(
            RECIPE,
            phantom=True,
            patients=5,
            hospitals=2,
            algorithm=name,
            no_privacy=not private,
            out=tmp_path / name,
            as_json=True,
        )
    for simulation in asked:
        recipe = simulation.recipe
        recipe.federation.local(recipe.privacy.training if private else recipe.training)


def test_a_person_sees_the_gap_and_the_baseline(tmp_path):
    console = Console(record=True, width=100)
    show_report(report(), tmp_path, console)
    text = console.export_text()
    assert "gap" in text
    assert "always the most frequent class" in text
    assert "north" in text
    assert "Attacked" not in text
    attacked = report().model_copy(update={"adversaries": ("north=nan",)})
    show_report(attacked, tmp_path, console)
    assert "Attacked by north=nan" in console.export_text()
    assert "ATTACKED by north=nan" in as_markdown(attacked)
    assert "ATTACKED" not in as_markdown(report())


def report():
    from client.training.dataset import PatientImages

    recipe = load_recipe(RECIPE)
    images = PatientImages(
        np.zeros((4, 48, 48, 3), np.uint8),
        np.arange(4),
        np.array([0, 0, 1, 1]),
        tuple(np.array([n]) for n in range(4)),
    )
    hospitals = [HospitalImages(name, images, images) for name in ("north", "south")]
    good = Predictions((np.eye(2)[[0, 0, 1, 1]],) * 2, (images.labels,) * 2)
    worse = Predictions((np.eye(2)[[0, 1, 1, 1]],) * 2, (images.labels,) * 2)
    built = SimulationReport.build(
        recipe,
        hospitals,
        (),
        (),
        setup=Setup(seed=0, sites_by="column:site"),
        federated=worse,
        pooled=good,
        private=False,
        campaign_seconds=1.0,
        seconds=2.0,
    )
    assert built.gap is not None
    assert built.gap.macro_auroc == pytest.approx(0.25)
    return built
