"""The demo's two federations: figures that are set side by side are of the same patients."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from client.cases.store import CaseStore
from client.intake.source import ImportSource
from client.settings import SiteSettings
from client.site_folder import create_site_folder
from common.errors import ConfigurationError
from common.model import build_model, state_tensors, write_safetensors
from common.recipe import Recipe, load_recipe
from common.signing import SigningKey
from deploy.campaigns import prepare_campaign
from deploy.demo import journey
from deploy.demo.hospitals import real_hospitals
from deploy.demo.journey import Demo, DemoChoices
from deploy.demo.recipes import for_hospitals, without_noise
from deploy.demo.stages import Stages
from tests.client.stores import picture
from tests.releases import Coordinator

PATIENTS = 40


class Provisioned:
    """A federation's folders, without its processes."""

    def __init__(self, folder: Path, *, sites: tuple[str, ...], **given: Any) -> None:
        self._sites = {
            name: create_site_folder(
                folder / "sites" / name,
                name=name,
                task=given["task"],
                plan_keys=[SigningKey.generate().verify_key.pem()],
                policy=given["policy"],
                recipe=given["recipe"],
            )
            for name in sites
        }

    def __enter__(self) -> Provisioned:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self) -> None:
        pass

    def wait_ready(self) -> None:
        pass

    def site(self, name: str) -> SiteSettings:
        return self._sites[name]


def held_out(federation: Any, names: tuple[str, ...], task: str) -> dict[str, set[str]]:
    held = {}
    for name in names:
        with closing(CaseStore.open(federation.site(name))) as store:
            held[name] = {case.digest for case in store.holdout_cases(task)}
    return held


def test_the_same_without_privacy_is_scored_on_the_same_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = ["file,label,patient_id,site"]
    for n in range(PATIENTS):
        (data / f"{n}.png").write_bytes(picture(n))
        rows.append(f"{n}.png,nv,p{n},{'ab'[n % 2]}")
    rows.insert(3, "a,row,that,somebody,broke")  # stops no demo
    (data / "labels.csv").write_text("\n".join(rows))
    recipe = load_recipe("dermoscopy")
    hospitals = real_hospitals(ImportSource(data), recipe)
    monkeypatch.setattr(journey, "LocalFederation", Provisioned)
    choices = DemoChoices(recipe=recipe, epsilon=8.0, rounds=1, private=True, compare=True)
    console = Console(quiet=True)
    demo = Demo(tmp_path / "demo", hospitals, choices, Stages(Progress(console=console), None))
    names = tuple(h.name for h in hospitals)
    with demo.federation(private=True) as first:
        held = held_out(first, names, recipe.name)
    compared = []

    def campaign(federation: Any, *_: object, **__: object) -> None:
        compared.append(held_out(federation, names, recipe.name))
        raise KeyboardInterrupt  # the rest of the journey is not of interest

    monkeypatch.setattr(demo, "_campaign", campaign)
    with pytest.raises(KeyboardInterrupt):
        demo.compare_without_privacy(None)  # type: ignore[arg-type]
    assert all(held.values())
    assert compared == [held]


def test_the_demo_reads_an_npz_and_other_names_of_labels(tmp_path: Path) -> None:
    recipe = load_recipe("mammography")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 28, 28), np.uint8)
    np.savez(tmp_path / "d.npz", train_images=images, train_labels=np.arange(40) % 2)
    order = (recipe.classes[1], recipe.classes[0])
    found = real_hospitals(ImportSource(tmp_path / "d.npz", class_order=order), recipe)
    assert len(found) == 4
    labels = [case.label for hospital in found for case in hospital.newcomers]
    assert labels
    assert set(labels) <= set(recipe.classes)
    for case in found[0].newcomers + found[1].newcomers:
        assert case.read().startswith(b"\x89PNG")


def test_hospitals_that_number_their_own_patients_each_import_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patients 0 to 19 at both: 40 people, whose rows no other hospital takes, and it is told."""
    demo, said = numbered_alike(tmp_path, monkeypatch)
    with demo.federation(private=True) as federation:
        kept = {}
        for name in ("a", "b"):
            with closing(CaseStore.open(federation.site(name))) as store:
                kept[name] = store.counts("dermoscopy").confirmed
    later = sum(len(h.newcomers) for h in demo._hospitals.values())
    assert sum(kept.values()) + later == 40
    assert min(kept.values()) >= 15
    told = said.getvalue()
    assert "Warning: patient-ids-shared: 20 patient ids occur" in told
    assert "Warning: a: one-class:" in told
    assert {w.code for w in demo._warnings if w.hospital == "b"} == {
        line.split(": ")[2] for line in told.splitlines() if line.startswith("Warning: b: ")
    }


def numbered_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Demo, io.StringIO]:
    data = tmp_path / "data"
    data.mkdir()
    rows = ["file,label,patient_id,site"]
    for n in range(40):
        (data / f"{n}.png").write_bytes(picture(n))
        rows.append(f"{n}.png,nv,{n // 2},{'ab'[n % 2]}")
    (data / "labels.csv").write_text("\n".join(rows))
    recipe = load_recipe("dermoscopy")
    monkeypatch.setattr(journey, "LocalFederation", Provisioned)
    said = io.StringIO()
    stages = Stages(Progress(console=Console(file=said, width=40), disable=True), None)
    choices = DemoChoices(recipe=recipe, epsilon=8.0, rounds=1, private=True, compare=True)
    hospitals = real_hospitals(ImportSource(data), recipe)
    return Demo(tmp_path / "demo", hospitals, choices, stages), said


def test_two_hospitals_lower_the_quorum_and_the_gates_sites_and_it_is_said() -> None:
    """With the gate's three sites a demo of two trains twice and can release nothing."""
    recipe = load_recipe("dermoscopy")
    assert recipe.release.minimum_sites == 3
    fitted, warnings = for_hospitals(recipe, 2)
    assert (fitted.federation.quorum, fitted.release.minimum_sites) == (2, 2)
    assert [warned.code for warned in warnings] == ["few-hospitals"]
    assert "3 before a release" in warnings[0].message
    assert "would not release" in warnings[0].message
    assert for_hospitals(recipe, 3) == (recipe, ())


def test_an_aggregator_that_cannot_work_with_so_few_is_refused_beforehand() -> None:
    recipe = load_recipe("dermoscopy").with_changes(aggregation="median", quorum=3)
    with pytest.raises(ConfigurationError) as caught:
        for_hospitals(recipe, 2)
    assert caught.value.code == "campaign-settings"


def test_without_noise_as_many_images_are_seen_as_with_it() -> None:
    """A private step draws patients, one image of each; one without draws images."""
    recipe = load_recipe("dermoscopy")
    rate = recipe.privacy.training.sampling_rate
    free = without_noise(recipe, patients=100, images=300)
    assert free.training.sampling_rate == pytest.approx(rate / 3)
    assert free.training.local_steps == recipe.privacy.training.local_steps
    assert free.model.trainable == recipe.privacy.trainable


def test_the_same_without_privacy_counts_the_patients_and_images_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = ["file,label,patient_id,site"]
    for n in range(60):
        (data / f"{n}.png").write_bytes(picture(n))
        rows.append(f"{n}.png,nv,p{n // 6 * 2 + n % 2},{'ab'[n % 2]}")
    (data / "labels.csv").write_text("\n".join(rows))
    recipe = load_recipe("dermoscopy")
    hospitals = real_hospitals(ImportSource(data), recipe)
    monkeypatch.setattr(journey, "LocalFederation", Provisioned)
    choices = DemoChoices(recipe=recipe, epsilon=8.0, rounds=1, private=True, compare=True)
    stages = Stages(Progress(console=Console(quiet=True)), None)
    demo = Demo(tmp_path / "demo", hospitals, choices, stages)
    with demo.federation(private=True) as federation:
        free = demo._without_noise(federation)  # type: ignore[arg-type]
    rate = recipe.privacy.training.sampling_rate
    assert free.training.sampling_rate == pytest.approx(rate / 3)


def test_a_classifier_on_random_features_is_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("dermoscopy").with_changes(model="test_resnet", image_size=32)
    settings = Coordinator.create(tmp_path / "coordinator").settings
    weights = tmp_path / "features.safetensors"
    write_safetensors(weights, state_tensors(build_model(recipe, seed=1)))

    class Created:
        coordinator = settings

        def start_campaign(self, recipe: Recipe, **chosen: Any) -> str:
            return prepare_campaign(settings, recipe, **chosen)

        def wait_campaign(self, *_: object) -> None:
            raise KeyboardInterrupt  # the rest of the journey is not of interest

    said = io.StringIO()
    stages = Stages(Progress(console=Console(file=said), disable=True), None)
    choices = DemoChoices(recipe=recipe, epsilon=8.0, rounds=1, private=True, compare=False)
    for given, codes in ((None, ["random-features"]), (weights, [])):
        demo = Demo(tmp_path / "demo", (), choices, stages)
        with pytest.raises(KeyboardInterrupt):
            demo._campaign(Created(), "campaign 1", 1, 5.6, weights=given)  # type: ignore[arg-type]
        assert [warned.code for warned in demo._warnings] == codes
    assert said.getvalue().count("random features") == 1
