import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from client.training import PrivateStep, train_private
from client.training.device import Device
from client.training.gradients import ClippedSum, PatientHooks
from client.training.loss import per_sample_loss
from client.training.noise import PrivateRandom
from common.errors import PrivacyRefused, UpdateRefused
from common.imaging import to_tensor
from common.recipe import Augmentation, LossSpec, NonPrivateExtras
from tests.client.training_toys import TinyNet, flat, toy_images, toy_job, toy_recipe, weights

CLIP = 0.5
NO_NOISE = PrivateStep(
    noise_multiplier=0.0, max_grad_norm=CLIP, expected_patients=1.0, augmentation_multiplicity=1
)


def moved(images, job=None, step=NO_NOISE, model=None) -> np.ndarray:  # type: ignore[no-untyped-def]
    """What one private training adds to the weights."""
    model = model or TinyNet(classes=len((job or toy_job()).recipe.classes))
    before = weights(model)
    return flat(train_private(model, images, job or toy_job(), step=step).tensors) - before


def without(images, patient: int):  # type: ignore[no-untyped-def]
    kept = tuple(group for index, group in enumerate(images.patients) if index != patient)
    return replace(images, patients=kept)


@pytest.mark.parametrize("multiplicity", [1, 3])
@pytest.mark.parametrize(
    "loss",
    [
        LossSpec(),
        LossSpec(class_weights=(0.1, 1.0, 40.0)),
        LossSpec(name="focal", class_weights=(2.0, 1.0, 9.0)),
        LossSpec(label_smoothing=0.1),
    ],
)
def test_one_patient_moves_the_clipped_sum_by_at_most_the_clip(
    loss: LossSpec, multiplicity: int
) -> None:
    """Every patient enters (q = 1), no noise: the update is minus the clipped sum."""
    recipe = toy_recipe(loss=loss, classes=("a", "b", "c"))
    images = toy_images([1] * 5, classes=3)
    step = replace(NO_NOISE, augmentation_multiplicity=multiplicity)
    whole = moved(images, toy_job(recipe), step)
    for patient in range(len(images.patients)):
        change = whole - moved(without(images, patient), toy_job(recipe), step)
        assert np.linalg.norm(change) <= CLIP * (1 + 1e-4)
    assert np.linalg.norm(whole) > CLIP


def test_a_patient_with_many_images_counts_once() -> None:
    images = toy_images([8, 1, 1])
    many = replace(images, patients=(images.patients[0],))
    assert np.linalg.norm(moved(many)) <= CLIP * (1 + 1e-4)
    seen = {moved(many).tobytes() for _ in range(20)}
    assert len(seen) > 1  # one random image each time, not always the same


def test_a_small_gradient_is_not_scaled_up() -> None:
    images = toy_images([1])
    step = replace(NO_NOISE, max_grad_norm=1e6)
    job = toy_job()
    model = TinyNet()
    reference = copy.deepcopy(model)
    inputs = to_tensor(images.read(np.array([0])), job.recipe.image)
    labels = torch.from_numpy(images.labels)
    per_sample_loss(reference(inputs), labels, job.recipe.loss).sum().backward()
    expected = flat({n: -p.grad.numpy() for n, p in reference.named_parameters()})
    np.testing.assert_allclose(moved(images, job, step, model), expected, rtol=1e-4, atol=1e-6)


def test_physical_batches_give_the_update_of_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images = toy_images([1] * 11)
    step = replace(NO_NOISE, augmentation_multiplicity=2, expected_patients=11.0)
    job = toy_job(steps=3, learning_rate=0.3)
    whole = moved(images, job, step)
    for rows in (1, 5, 8):
        monkeypatch.setattr("client.training.job.physical_rows", lambda *a, rows=rows, **k: rows)
        np.testing.assert_allclose(moved(images, job, step), whole, rtol=1e-4, atol=1e-7)


def test_memory_splits_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = ClippedSum.add

    def spy(self, inputs, labels):  # type: ignore[no-untyped-def]
        sizes.append(len(labels))
        original(self, inputs, labels)

    monkeypatch.setattr(ClippedSum, "add", spy)
    monkeypatch.setattr("client.training.job.physical_rows", lambda *a, **k: 4)
    moved(toy_images([1] * 10))
    assert sizes == [4, 4, 2]


def test_noise_has_the_promised_deviation_and_is_added_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against the same training without noise; also over physical batches, and for AdamW's sake
    on plain SGD with rate 1, where the update is the noisy gradient itself.
    """
    images = toy_images([1] * 6)
    step = PrivateStep(noise_multiplier=1.7, max_grad_norm=CLIP, expected_patients=4.0)
    quiet = moved(images, step=replace(step, noise_multiplier=0.0))
    monkeypatch.setattr("client.training.job.physical_rows", lambda *a, **k: 2)
    draws = [(moved(images, step=step) - quiet) for _ in range(12)]
    noise = np.concatenate(draws) / (1.7 * CLIP / 4.0)
    # Nothing is seeded: bounds that a right noise breaks once in 1e8 runs, a wrong one always.
    assert noise.std() == pytest.approx(1.0, abs=6 / np.sqrt(2 * noise.size))
    assert abs(noise.mean()) < 6 / np.sqrt(noise.size)
    assert stats.kstest(noise, "norm").pvalue > 1e-9
    assert abs(np.corrcoef(draws[0], draws[1])[0, 1]) < 6 / np.sqrt(draws[0].size)


def test_seeding_the_process_does_not_repeat_the_noise() -> None:
    images = toy_images([1] * 3)
    step = PrivateStep(noise_multiplier=1.0, max_grad_norm=CLIP, expected_patients=1.0)
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        results.append(moved(images, step=step))
    assert not np.allclose(results[0], results[1])


def test_an_empty_batch_adds_noise_all_the_same() -> None:
    images = toy_images([1] * 3)
    job = toy_job(rate=1e-12, steps=4)
    step = PrivateStep(noise_multiplier=2.0, max_grad_norm=CLIP, expected_patients=1.0)
    noise = moved(images, job, step)
    assert noise.std() == pytest.approx(2.0 * CLIP * 2, rel=0.15)  # four steps: twice one step's
    assert np.abs(moved(images, job, replace(step, noise_multiplier=0.0))).max() == 0


def test_exactly_the_planned_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0
    original = torch.optim.SGD.step

    def count(self, *arguments):  # type: ignore[no-untyped-def]
        nonlocal taken
        taken += 1
        return original(self, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", count)
    monkeypatch.setattr("client.training.job.physical_rows", lambda *a, **k: 1)
    result = train_private(
        TinyNet(), toy_images([1] * 7), toy_job(steps=5, rate=0.4), step=NO_NOISE
    )
    assert taken == result.steps == 5


def test_it_learns_an_easy_task() -> None:
    images = toy_images([1, 2] * 40)
    recipe = toy_recipe(augmentation=Augmentation(horizontal_flip=True))
    model = TinyNet()
    step = PrivateStep(noise_multiplier=1.0, max_grad_norm=1.0, expected_patients=24.0)
    train_private(model, images, toy_job(recipe, steps=25, rate=0.3, learning_rate=0.3), step=step)
    fresh = toy_images([1] * 60, seed=9)
    with torch.no_grad():
        inputs = to_tensor(fresh.read(np.arange(60)), recipe.image)
        answers = model.eval()(inputs).argmax(1).numpy()
    assert (answers == fresh.labels).mean() > 0.95


@pytest.mark.parametrize("scope", ["head", "bias"])
def test_only_the_chosen_parameters_move(scope: str) -> None:
    model = TinyNet()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    result = train_private(
        model,
        toy_images([1] * 4),
        toy_job(trainable=scope),
        step=NO_NOISE,  # type: ignore[arg-type]
    )
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(result.tensors)
    assert "conv.weight" not in changed


def test_no_trace_of_the_hooks_is_left() -> None:
    model = TinyNet()
    train_private(model, toy_images([1] * 4), toy_job(), step=NO_NOISE)
    assert not any(hasattr(p, "grad_sample") for p in model.parameters())
    train_private(model, toy_images([1] * 4), toy_job(), step=NO_NOISE)  # and once more


@pytest.mark.parametrize(
    "extras",
    [
        NonPrivateExtras(mixup_alpha=0.2),
        NonPrivateExtras(cutmix_alpha=1.0),
        NonPrivateExtras(balance_classes=True),
    ],
)
def test_what_mixes_patients_is_refused(extras: NonPrivateExtras) -> None:
    with pytest.raises(PrivacyRefused) as caught:
        train_private(TinyNet(), toy_images([1]), toy_job(), step=NO_NOISE, extras=extras)
    assert caught.value.code == "mixes-patients"


def test_batch_norm_is_refused_even_when_frozen() -> None:
    model = TinyNet()
    norm = nn.BatchNorm2d(3, affine=False)
    model.conv = nn.Sequential(norm, model.conv)  # type: ignore[assignment]
    with pytest.raises(PrivacyRefused) as caught:
        train_private(model, toy_images([1]), toy_job(), step=NO_NOISE)
    assert caught.value.code == "batch-norm"


def test_a_patient_whose_gradient_is_no_number_adds_nothing() -> None:
    images = toy_images([1] * 4)
    images.pixels[0] = 0
    model = TinyNet()

    class Poisoned(TinyNet):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            logits = super().forward(batch)
            black = batch.flatten(1).amax(1) < -1.5
            bad = torch.zeros_like(logits)
            bad[black] = float("nan")
            return logits + bad

    poisoned = Poisoned()
    poisoned.load_state_dict(model.state_dict())
    expected = moved(without(images, 0), model=model)
    np.testing.assert_allclose(moved(images, model=poisoned), expected, rtol=1e-4, atol=1e-7)
    alone = replace(images, patients=images.patients[:1])
    assert np.abs(moved(alone, model=poisoned)).max() == 0


def test_divergence_is_refused() -> None:
    with pytest.raises(UpdateRefused) as caught:
        moved(
            toy_images([1] * 4),
            toy_job(steps=3, learning_rate=1e38),
            replace(NO_NOISE, expected_patients=1e-3),
        )
    assert caught.value.code == "update-not-finite"


def test_in_bfloat16_each_gradient_is_float32_and_still_clipped() -> None:
    device = Device(torch.device("cpu"), autocast=True)
    images = toy_images([1] * 5)
    job = toy_job(device=device)
    whole = moved(images, job)
    for patient in range(5):
        change = whole - moved(without(images, patient), job)
        assert np.linalg.norm(change) <= CLIP * (1 + 1e-3)
    exact = moved(images)
    assert 0 < np.linalg.norm(whole - exact) < 0.1 * np.linalg.norm(exact)
    model = TinyNet().train()
    hooks = PatientHooks(model, loss_reduction="sum")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.randn(2, 3, 16, 16))
    assert logits.dtype == torch.bfloat16
    logits.float().sum().backward()
    assert {p.grad_sample.dtype for p in model.parameters()} == {torch.float32}
    hooks.cleanup()


def test_random_deviates_are_normal_and_unseeded() -> None:
    random = PrivateRandom()
    for count in (0, 1, 2, 3, 65_537):
        assert random.normal(count).shape == (count,)
    sample = random.normal(200_001).numpy()
    assert stats.kstest(sample, "norm").pvalue > 1e-9
    assert abs(np.corrcoef(sample[:100_000], sample[100_000:200_000])[0, 1]) < 0.02
    assert not np.array_equal(PrivateRandom().uniform(8), PrivateRandom().uniform(8))
    uniform = random.uniform(100_000)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert stats.kstest(uniform, "uniform").pvalue > 1e-9
