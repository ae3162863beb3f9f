"""A head of the site's own: fitted, judged, served, and gone when it must."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client.audit import open_site_audit
from client.inference.engine import InferenceEngine
from client.personalisation import personalise as module
from client.personalisation.head import PersonalHead, PersonalHeads
from client.personalisation.judging import HoldoutCases, judge, macro_auroc
from client.personalisation.personalise import personalise, stop_personalising
from client.personalisation.serving import load_personalised, outdated
from client.releases.cache import LocalRelease
from client.settings import SiteSettings
from client.site_records import SiteRecords
from client.unfinished_withdrawals import finish_withdrawals
from client.withdrawal import withdraw_patient
from common.audit_entries import PredictionMade
from common.errors import CaseRefused
from common.model import build_model, classifier_names, state_tensors
from common.release import ReleaseManifest
from tests.client.rounds import TOY, make_site
from tests.client.serving import (
    RECIPE,
    FakeReleases,
    picture,
    release,
    release_of,
    served_site,
    site_settings,
)

CPU = torch.device("cpu")


def toy_release(folder: Path, version: int = 1) -> LocalRelease:
    """A release that knows nothing yet of bright and dark."""
    return release_of(folder, version, state_tensors(build_model(TOY, seed=version)), recipe=TOY)


def made(tmp_path: Path, *, holdout: int = 40) -> tuple[SiteSettings, LocalRelease]:
    return make_site(tmp_path / "site", patients=30, holdout=holdout), toy_release(tmp_path)


def test_a_head_that_is_better_here_is_kept_for_this_release_alone(tmp_path: Path) -> None:
    site, released = made(tmp_path)
    told: list[tuple[int, int]] = []
    found = personalise(site, release=released, on_fit=lambda *n: told.append(n))
    assert found.serving == "personal"
    assert found.personal_auroc is not None
    assert found.personal_auroc > 0.95
    assert told[-1][0] == told[-1][1]
    heads = PersonalHeads(site)
    head = heads.find(released.manifest.model_digest)
    assert head is not None
    assert head.digest == found.head_digest
    assert heads.find("0" * 64) is None
    path = site.data / "personal-head.safetensors"
    assert path.stat().st_mode & 0o077 == 0
    assert personalise(site, release=released) == found  # the same cases, the same head


def test_what_is_served_is_the_release_with_that_head(tmp_path: Path) -> None:
    site, released = made(tmp_path)
    found = personalise(site, release=released)
    heads = PersonalHeads(site)
    plain = InferenceEngine.load(released, device=CPU)
    own = load_personalised(released, heads=heads, device=CPU)
    assert (own.digest, own.head_digest) == (plain.digest, found.head_digest)
    bright = np.full((1, 32, 32, 3), 220, dtype=np.uint8)
    assert np.abs(own.probabilities(bright) - plain.probabilities(bright)).max() > 0.01
    assert outdated(plain, heads=heads)
    assert not outdated(own, heads=heads)
    assert stop_personalising(site).removed
    assert outdated(own, heads=heads)
    assert not stop_personalising(site).removed


def test_another_release_has_no_part_in_it_and_leaves_it_until_it_answers(tmp_path: Path) -> None:
    site, released = made(tmp_path)
    personalise(site, release=released)
    heads = PersonalHeads(site)
    newer = toy_release(tmp_path, 2)
    assert load_personalised(newer, heads=heads, device=CPU).head_digest is None
    assert heads.find(released.manifest.model_digest) is not None
    heads.keep_only(newer.manifest.model_digest)
    assert heads.find(released.manifest.model_digest) is None


def test_a_withdrawn_patient_takes_it_along(tmp_path: Path) -> None:
    site, released = made(tmp_path)
    personalise(site, release=released)
    withdraw_patient(site, "train-3")
    assert PersonalHeads(site).find(released.manifest.model_digest) is None


def test_a_patient_who_withdraws_while_it_is_fitted_is_in_no_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, released = made(tmp_path)
    real = module.tune_head

    def slow(*given: object, **named: object) -> object:
        withdraw_patient(site, "train-3")
        return real(*given, **named)  # type: ignore[arg-type]

    written: list[PersonalHead] = []
    monkeypatch.setattr(module, "tune_head", slow)
    monkeypatch.setattr(PersonalHeads, "keep", lambda _, head, **__: written.append(head))
    with pytest.raises(CaseRefused) as caught:
        personalise(site, release=released)
    assert caught.value.code == "cases-changed"
    assert written == [], "no moment in which the service could take it up"


def test_a_killed_fit_leaves_no_head_of_a_patient_who_withdrew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patient withdraws between the last look and the writing; then nothing runs any more."""

    class Killed(BaseException):
        pass

    site, released = made(tmp_path)
    real = PersonalHeads.keep

    def last(*given: object, **named: object) -> None:
        withdraw_patient(site, "train-3")
        real(*given, **named)  # type: ignore[arg-type]
        raise Killed

    monkeypatch.setattr(PersonalHeads, "keep", last)
    with pytest.raises(Killed):
        personalise(site, release=released)
    assert PersonalHeads(site).find(released.manifest.model_digest) is not None
    with SiteRecords.open(site) as records:
        assert finish_withdrawals(site, records.ledger.engine) == ()
    assert PersonalHeads(site).find(released.manifest.model_digest) is None


def test_a_small_holdout_is_no_judge_and_leaves_no_head(tmp_path: Path) -> None:
    site, released = made(tmp_path, holdout=12)
    PersonalHeads(site).keep(PersonalHead(released.manifest.model_digest, {}))
    with pytest.raises(CaseRefused) as caught:
        personalise(site, release=released)
    assert caught.value.code == "holdout-too-small"
    assert PersonalHeads(site).find(released.manifest.model_digest) is None


@pytest.mark.parametrize("what", ["cut", "changed"])
def test_a_damaged_head_is_no_head(tmp_path: Path, what: str) -> None:
    site, released = made(tmp_path, holdout=0)
    digest = released.manifest.model_digest
    heads = PersonalHeads(site)
    heads.keep(PersonalHead(digest, {"w": np.ones(3, np.float32)}))
    path = site.data / "personal-head.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-4] if what == "cut" else data[:-4] + b"\0\0\0\0")
    assert heads.find(digest) is None
    assert load_personalised(released, heads=heads, device=CPU).head_digest is None


def test_a_head_that_fails_the_self_test_never_spoils_the_release(tmp_path: Path) -> None:
    site, released = made(tmp_path, holdout=0)
    heads = PersonalHeads(site)
    names = classifier_names(build_model(TOY, pretrained=False))
    own = state_tensors(build_model(TOY, pretrained=False))
    broken = {name: np.full_like(own[name], np.nan, dtype=np.float32) for name in names}
    heads.keep(PersonalHead(released.manifest.model_digest, broken))
    assert load_personalised(released, heads=heads, device=CPU).head_digest is None
    assert heads.find(released.manifest.model_digest) is None


def cases(*, gain: float, seed: int = 0, patients: int = 400) -> HoldoutCases:
    """Two classes; the personal head's signal is ``gain`` stronger than the release's."""
    dice = np.random.default_rng(seed)
    labels = np.arange(patients) % 2
    scores = []
    for strength in (1.0, 1.0 + gain):
        logits = strength * (2 * labels - 1) + dice.normal(size=patients)
        positive = 1 / (1 + np.exp(-logits))
        scores.append(np.stack([1 - positive, positive], axis=1))
    return HoldoutCases(scores[0], scores[1], labels, np.arange(patients))


def test_the_rule_serves_what_is_better_and_nothing_else() -> None:
    assert judge(cases(gain=1.0), positive=[1], threshold=0.5).serves
    assert not judge(cases(gain=-0.5), positive=[1], threshold=0.5).serves
    # Better by chance, perhaps: too few patients to say that it is not worse.
    few = [
        judge(cases(gain=0.0, seed=s, patients=24), positive=[1], threshold=0.5) for s in range(8)
    ]
    assert not any(one.serves for one in few if one.lower < -0.02)


def test_one_that_ranks_better_and_misses_more_positives_does_not_serve() -> None:
    better = cases(gain=1.0)
    timid = np.stack([1 - better.personal[:, 1] / 4, better.personal[:, 1] / 4], axis=1)
    found = judge(replace(better, personal=timid), positive=[1], threshold=0.5)
    assert found.difference > 0
    assert found.lower > 0
    assert not found.serves


def test_patients_are_resampled_not_images() -> None:
    """Each patient's case told five times over says no more about the difference."""
    once = cases(gain=0.5, patients=60)
    often = HoldoutCases(
        *(np.repeat(part, 5, axis=0) for part in (once.released, once.personal)),
        np.repeat(once.labels, 5),
        np.repeat(once.patients, 5),
    )
    first, again = (judge(c, positive=[1], threshold=0.5) for c in (once, often))
    assert again.upper - again.lower == pytest.approx(first.upper - first.lower, rel=0.05)


def test_the_area_is_scikit_learns() -> None:
    from sklearn.metrics import roc_auc_score

    dice = np.random.default_rng(0)
    labels = dice.integers(0, 3, 50)
    scores = dice.dirichlet(np.ones(3), 50).round(1)  # with ties
    expected = np.mean([roc_auc_score(labels == k, scores[:, k]) for k in range(3)])
    assert macro_auroc(scores, labels) == pytest.approx(expected)


def test_the_service_takes_it_up_says_so_and_writes_it_down(tmp_path: Path) -> None:
    settings, first = site_settings(tmp_path), release(tmp_path, 1)
    with served_site(settings, FakeReleases(first)) as site:
        assert site.call("GET", "/model").json()["personalised"] is False
        assert site.predict(picture()).json()["head_digest"] is None
        head = favouring("mel", first.manifest)
        PersonalHeads(settings).keep(head)
        site.services.watcher.poll()
        told = site.call("GET", "/model").json()
        assert (told["personalised"], told["head_digest"]) == (True, head.digest)
        answer = site.predict(picture()).json()
        assert answer["probabilities"]["mel"] > 0.99
        assert answer["head_digest"] == head.digest
        assert answer["model_digest"] == first.manifest.model_digest
        assert "personalised" in site.call("GET", "/").text
        PersonalHeads(settings).forget()
        site.services.watcher.poll()
        assert site.call("GET", "/health/ready").json()["personalised"] is False
    with open_site_audit(settings) as audit:
        made = [line.entry() for line in audit.lines(kinds=("prediction",))]
    assert [e.head_digest for e in made if isinstance(e, PredictionMade)] == [None, head.digest]


def favouring(name: str, manifest: ReleaseManifest) -> PersonalHead:
    network = build_model(RECIPE, pretrained=False)
    weight, bias = (state_tensors(network)[n] for n in classifier_names(network))
    tensors = dict(zip(classifier_names(network), (weight * 0, bias * 0), strict=True))
    tensors[classifier_names(network)[1]][RECIPE.classes.index(name)] = 20.0
    return PersonalHead(
        manifest.model_digest, {n: a.astype(np.float32) for n, a in tensors.items()}
    )
