import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from client.training.dataset import PatientImages
from common.errors import InputRefused
from common.imaging import decode, prepare
from common.model import build_model
from common.model_files import state_tensors
from simulations.phantoms import phantom_hospital, scanner_for_site
from simulations.pooled import PooledTraining, train_pooled
from simulations.scoring import HospitalImages, pooled_score, predictions_of


def images_of(recipe, patients, seed, scanner):
    cases = list(
        phantom_hospital(
            recipe,
            scanner_for_site(scanner),
            patients,
            np.random.default_rng(seed),
            size=48,
            most_images=1,
        )
    )
    pixels = np.stack([prepare(decode(case.image), recipe.image) for case in cases])
    labels = np.array([recipe.classes.index(case.label) for case in cases])
    rows = np.arange(len(cases))
    return PatientImages(pixels, rows, labels, tuple(np.array([n]) for n in rows))


@pytest.fixture(scope="module")
def hospitals(small_recipe):
    return [
        HospitalImages(
            f"h{n}", images_of(small_recipe, 120, n, n), images_of(small_recipe, 40, 10 + n, n)
        )
        for n in range(2)
    ]


def test_pooled_training_learns_the_phantoms(small_recipe, hospitals):
    model = train_pooled(
        small_recipe,
        [h.training for h in hospitals],
        PooledTraining(passes=12, batch=24),
        threads=1,
    )
    found = pooled_score(predictions_of(model, hospitals, small_recipe), 2)
    assert found.count == 80
    assert found.macro_auroc > 0.85


def test_equal_seeds_make_equal_models(small_recipe, hospitals):
    def trained(seed):
        plan = PooledTraining(passes=0.2, batch=16)
        return train_pooled(
            small_recipe, [h.training for h in hospitals], plan, seed=seed, threads=1
        ).state_dict()

    first, again, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_every_image_is_seen_once_a_pass(small_recipe, hospitals):
    from simulations.pooled import _gather, _Order

    order = _Order(10, np.random.default_rng(0))
    seen = np.concatenate([order.take(4) for _ in range(5)])
    assert sorted(seen[:10]) == list(range(10))
    assert sorted(seen[10:]) == list(range(10))
    sets = [h.training for h in hospitals]
    chosen = np.array([0, len(sets[0]), len(sets[0]) + 1, 5])
    pixels, labels = _gather(sets, [len(s) for s in sets], chosen)
    assert pixels.shape == (4, 48, 48, 3)
    expected = [sets[0].labels[0], sets[0].labels[5], sets[1].labels[0], sets[1].labels[1]]
    assert labels.tolist() == expected


def test_no_image_is_refused(small_recipe):
    empty = PatientImages(np.zeros((0, 48, 48, 3), np.uint8), *[np.zeros(0, int)] * 2, ())
    with pytest.raises(InputRefused):
        train_pooled(small_recipe, [empty], PooledTraining(passes=1), threads=1)


def test_it_starts_from_the_weights_that_the_campaign_started_from(
    small_recipe, hospitals, tmp_path
):
    given = state_tensors(build_model(small_recipe, seed=9))
    save_file(given, tmp_path / "weights.safetensors")
    plan = PooledTraining(passes=0.01, batch=4, learning_rate=1e-12)
    sets = [h.training for h in hospitals]
    model = train_pooled(
        small_recipe, sets, plan, weights=tmp_path / "weights.safetensors", threads=1
    )
    moved = state_tensors(model)
    assert all(np.allclose(moved[name], given[name], atol=1e-6) for name in given)
