"""The demo's two federations: figures that are set side by side are of the same patients."""

from __future__ import annotations

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
from common.recipe import load_recipe
from common.signing import SigningKey
from deploy.demo import journey
from deploy.demo.hospitals import real_hospitals
from deploy.demo.journey import Demo, DemoChoices
from deploy.demo.stages import Stages
from tests.client.stores import picture

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
