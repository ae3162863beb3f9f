"""The layers that stayed at a site, on the release of their campaign: judged, served, gone."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from client.local_layers import LocalLayerStore
from client.personalisation.head import PersonalHeads
from client.personalisation.own_layers import serve_own_layers
from client.personalisation.personalise import personalise
from client.personalisation.serving import load_personalised, outdated
from client.releases.cache import LocalRelease, ReleaseCache
from client.releases.decision_file import DecisionFile
from client.settings import SiteSettings
from client.withdrawal import withdraw_patient
from common.errors import CaseRefused, ReleaseError
from common.local_layers import local_names
from common.model import build_model, state_tensors
from common.plan import RoundPlan
from common.recipe import FederationSpec
from tests.client.rounds import TOY, make_plan, make_site
from tests.client.serving import release_of

LOCAL = TOY.model_copy(update={"federation": FederationSpec(local_layers=("normalisation",))})
STAYING = local_names(build_model(LOCAL, pretrained=False), ("normalisation",))
Layers = dict[str, NDArray[np.float32]]


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path / "site", patients=30, holdout=40)


def blind_release(site: SiteSettings, tmp_path: Path) -> tuple[LocalRelease, Layers]:
    """A release that answers the same for every image, and the layers with which it sees."""
    weights = state_tensors(build_model(TOY, seed=1))
    first = release_of(tmp_path, 1, weights, recipe=TOY)
    personalise(site, release=first)
    head = PersonalHeads(site).find(first.manifest.model_digest)
    assert head is not None
    seeing = {name: np.asarray(weights[name], dtype=np.float32) for name in STAYING}
    blind = {name: np.zeros_like(array) for name, array in seeing.items()}
    release = release_of(tmp_path, 2, {**weights, **head.tensors, **blind}, recipe=LOCAL)
    return release, seeing


def plan_for(release: LocalRelease) -> RoundPlan:
    return make_plan(campaign=release.manifest.lineage.campaign, recipe=LOCAL)


def test_the_better_one_answers_and_it_goes_with_a_patient(
    site: SiteSettings, tmp_path: Path
) -> None:
    release, seeing = blind_release(site, tmp_path)
    LocalLayerStore(site).keep(plan_for(release), seeing)
    found = serve_own_layers(site, release=release)
    assert (found.what, found.serving) == ("layers", "personal")
    assert found.released_auroc == pytest.approx(0.5)
    assert found.personal_auroc is not None
    assert found.personal_auroc > 0.95
    heads = PersonalHeads(site)
    engine = load_personalised(release, heads=heads, device=torch.device("cpu"))
    assert (engine.digest, engine.head_digest) == (
        release.manifest.model_digest,
        found.head_digest,
    )
    withdraw_patient(site, "train-3")
    assert outdated(engine, heads=heads)
    with pytest.raises(ReleaseError) as refused:
        serve_own_layers(site, release=release)
    assert refused.value.code == "no-local-layers"


def test_they_are_judged_on_the_release_that_answers_not_on_one_that_is_held(
    site: SiteSettings, tmp_path: Path
) -> None:
    release, seeing = blind_release(site, tmp_path)
    LocalLayerStore(site).keep(plan_for(release), seeing)
    held = release_of(tmp_path, 3, state_tensors(build_model(TOY, seed=3)), recipe=TOY)
    for one in (release, held):
        folder = site.releases / f"v{one.version}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(one.manifest.to_json())
        shutil.copy(one.path, folder / "model.safetensors")
    DecisionFile(site.releases).change(lambda state: state.answering(release.manifest))
    assert ReleaseCache(site).current() is not None
    assert serve_own_layers(site).release == 2


def test_layers_that_are_no_better_do_not_answer(site: SiteSettings, tmp_path: Path) -> None:
    release, seeing = blind_release(site, tmp_path)
    blind = {name: np.zeros_like(array) for name, array in seeing.items()}
    LocalLayerStore(site).keep(plan_for(release), blind)
    assert serve_own_layers(site, release=release).serving == "release"
    assert PersonalHeads(site).find(release.manifest.model_digest) is None


def test_a_patient_who_withdraws_meanwhile_is_in_nothing_that_answers(
    site: SiteSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, seeing = blind_release(site, tmp_path)
    LocalLayerStore(site).keep(plan_for(release), seeing)
    keep = PersonalHeads.keep

    def late(heads: PersonalHeads, head: object, *, withdrawn: int) -> None:
        withdraw_patient(site, "train-3")
        keep(heads, head, withdrawn=withdrawn)  # type: ignore[arg-type]

    monkeypatch.setattr(PersonalHeads, "keep", late)
    with pytest.raises(CaseRefused) as refused:
        serve_own_layers(site, release=release)
    assert refused.value.code == "cases-changed"
    assert PersonalHeads(site).find(release.manifest.model_digest) is None


def test_layers_that_a_killed_round_left_after_a_withdrawal_are_not_tried(
    site: SiteSettings, tmp_path: Path
) -> None:
    release, seeing = blind_release(site, tmp_path)
    withdraw_patient(site, "train-3")
    LocalLayerStore(site).keep(plan_for(release), seeing, withdrawn=0)
    with pytest.raises(ReleaseError) as refused:
        serve_own_layers(site, release=release)
    assert refused.value.code == "no-local-layers"


@pytest.mark.parametrize("fault", ["campaign", "shape", "shared"])
def test_layers_of_another_model_are_not_tried(
    site: SiteSettings, tmp_path: Path, fault: str
) -> None:
    release, seeing = blind_release(site, tmp_path)
    plan = plan_for(release)
    if fault == "campaign":
        plan = plan.model_copy(update={"campaign": "another"})
    elif fault == "shape":
        seeing[min(STAYING)] = np.zeros(3, dtype=np.float32)
    else:  # a release whose campaign shared all
        manifest = release.manifest.model_copy(update={"recipe": TOY})
        release = replace(release, manifest=manifest)
    LocalLayerStore(site).keep(plan, seeing)
    with pytest.raises(ReleaseError) as refused:
        serve_own_layers(site, release=release)
    assert refused.value.code == "no-local-layers"
