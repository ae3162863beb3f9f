import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.training import train_plain
from client.training.augmentation import augment
from client.training.evaluation import predict
from client.training.loss import per_sample_loss
from client.training.mixing import mix
from client.training.noise import PrivateRandom
from client.training.sampling import sample_patients, shuffled_batch
from common.recipe import Augmentation, LossSpec, NonPrivateExtras
from tests.client.training_toys import CPU, TinyNet, flat, toy_images, toy_job, toy_recipe

MIXING = NonPrivateExtras(mixup_alpha=0.4, cutmix_alpha=1.0, balance_classes=True)


def test_it_learns_and_says_the_same_twice() -> None:
    images = toy_images([1, 3] * 20)
    job = toy_job(steps=20, rate=0.25, learning_rate=0.2)
    results = []
    for _ in range(2):
        model = TinyNet()
        trained = train_plain(model, images, job, campaign="c", steps_before=0)
        assert trained.steps == 20
        results.append(flat(trained.tensors))
    np.testing.assert_array_equal(results[0], results[1])
    probabilities = predict(model, images, job.recipe.image, device=CPU, memory_megabytes=64)
    assert probabilities.shape == (80, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (probabilities.argmax(1) == images.labels).mean() > 0.95


def test_rounds_continue_the_stream() -> None:
    """Two rounds of two steps see the batches of one round of four."""
    images = toy_images([1] * 10)
    whole = TinyNet()
    train_plain(whole, images, toy_job(steps=4, rate=0.3), campaign="c", steps_before=0)
    parts = TinyNet()
    for before in (0, 2):
        train_plain(parts, images, toy_job(steps=2, rate=0.3), campaign="c", steps_before=before)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_physical_batches_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for rows in (100, 3):
        monkeypatch.setattr("client.training.job.physical_rows", lambda *a, rows=rows, **k: rows)
        trained = train_plain(
            TinyNet(), toy_images([1] * 10), toy_job(steps=3), campaign="c", steps_before=0
        )
        results.append(flat(trained.tensors))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_mixing_trains_and_the_process_is_not_left_seeded() -> None:
    states = []
    for _ in range(2):
        train_plain(
            TinyNet(), toy_images([1] * 6), toy_job(steps=2), campaign="c", steps_before=0,
            extras=MIXING,
        )  # fmt: skip
        states.append(torch.rand(3))
    assert not torch.equal(states[0], states[1])


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 40), st.booleans(), st.integers(1, 4))
def test_the_stream_shows_every_image_once_a_pass(
    count: int, batch: int, step: int, balance: bool, classes: int
) -> None:
    labels = np.arange(count) % classes
    first = shuffled_batch(labels, batch=batch, step=step, campaign="c", balance=balance)
    again = shuffled_batch(labels, batch=batch, step=step, campaign="c", balance=balance)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (batch,)
    assert first.min() >= 0
    assert first.max() < count
    if not balance:
        stream = np.concatenate(
            [shuffled_batch(labels, batch=1, step=s, campaign="c") for s in range(count)]
        )
        assert sorted(stream.tolist()) == list(range(count))


def test_passes_differ_and_campaigns_differ() -> None:
    labels = np.zeros(50, dtype=np.int64)
    batches = [
        shuffled_batch(labels, batch=50, step=s, campaign=c).tolist()
        for s, c in ((0, "a"), (1, "a"), (0, "b"))
    ]
    assert len({tuple(b) for b in batches}) == 3


def test_a_balanced_pass_holds_each_class_equally_often() -> None:
    labels = np.array([0] * 27 + [1] * 3)
    whole = shuffled_batch(labels, batch=30, step=0, campaign="c", balance=True)
    assert np.bincount(labels[whole]).tolist() == [15, 15]
    assert set(whole[labels[whole] == 1]) == {27, 28, 29}


def test_patients_are_sampled_independently_one_image_each() -> None:
    images = toy_images([1, 4, 2] * 100)
    owner = np.empty(len(images), dtype=int)
    for patient, group in enumerate(images.patients):
        owner[group] = patient
    random = PrivateRandom()
    counts = np.zeros(300)
    sizes = []
    seen: set[int] = set()
    for _ in range(200):
        chosen = sample_patients(images, 0.3, random)
        assert len(set(owner[chosen])) == len(chosen)
        counts[owner[chosen]] += 1
        sizes.append(len(chosen))
        seen.update(chosen.tolist())
    assert counts.mean() / 200 == pytest.approx(0.3, abs=0.01)
    # Poisson sampling: the batch's size varies as a binomial's (7.9), it is not fixed.
    assert np.std(sizes) == pytest.approx(np.sqrt(300 * 0.3 * 0.7), rel=0.25)
    assert len(seen) == len(images)
    assert len(sample_patients(images, 1.0, random)) == 300


def test_losses_are_per_sample_and_match_torch() -> None:
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    weights = (0.5, 2.0, 3.0)
    plain = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(per_sample_loss(logits, labels, LossSpec()), plain)
    weighted = per_sample_loss(logits, labels, LossSpec(class_weights=weights))
    torch.testing.assert_close(weighted, plain * torch.tensor(weights)[labels])
    probability = torch.softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    focal = per_sample_loss(logits, labels, LossSpec(name="focal", focal_gamma=2.0))
    torch.testing.assert_close(focal, (1 - probability) ** 2 * plain)
    for spec in (LossSpec(name="focal", focal_gamma=0.5), LossSpec(class_weights=weights)):
        sure = torch.tensor([[60.0, 0.0, 0.0]], requires_grad=True)
        per_sample_loss(sure, torch.tensor([0]), spec).sum().backward()
        assert torch.isfinite(sure.grad).all()  # type: ignore[arg-type]
        for index in range(6):
            alone = per_sample_loss(logits[index : index + 1], labels[index : index + 1], spec)
            torch.testing.assert_close(alone, per_sample_loss(logits, labels, spec)[[index]])


@pytest.mark.parametrize(
    "spec",
    [
        Augmentation(horizontal_flip=False),
        Augmentation(horizontal_flip=True, vertical_flip=True),
        Augmentation(rotation_degrees=30.0, colour_jitter=0.4),
    ],
)
def test_augmenting_one_image_looks_at_no_other(spec: Augmentation) -> None:
    batch = toy_images([1] * 6).pixels
    changed = batch.copy()
    changed[3] = 255 - changed[3]
    one = augment(batch, spec, torch.Generator().manual_seed(5))
    other = augment(changed, spec, torch.Generator().manual_seed(5))
    same = [i for i in range(6) if np.array_equal(one[i], other[i])]
    assert same == [0, 1, 2, 4, 5]
    assert one.dtype == np.uint8
    assert one.shape == batch.shape
    assert augment(batch[:0], spec, torch.Generator()).shape == (0, 16, 16, 3)


def test_flips_are_exact_and_rotations_keep_the_middle() -> None:
    batch = toy_images([1] * 64).pixels
    flipped = augment(batch, Augmentation(horizontal_flip=True), torch.Generator().manual_seed(1))
    was = [np.array_equal(a, b) for a, b in zip(batch, flipped, strict=True)]
    mirrored = [np.array_equal(a[:, ::-1], b) for a, b in zip(batch, flipped, strict=True)]
    assert all(a or b for a, b in zip(was, mirrored, strict=True))
    assert 15 < sum(was) < 49
    flat_grey = np.full((8, 16, 16, 3), 120, np.uint8)
    turned = augment(
        flat_grey, Augmentation(horizontal_flip=False, rotation_degrees=45.0), torch.Generator()
    )
    assert (turned[:, 6:10, 6:10] == 120).all()
    assert (turned[:, 0, 0] < 120).any()


def test_mixing_shares_add_up() -> None:
    inputs, labels = torch.rand(8, 3, 16, 16), torch.arange(8)
    generator = torch.Generator().manual_seed(0)
    for extras in (NonPrivateExtras(mixup_alpha=0.5), NonPrivateExtras(cutmix_alpha=0.5)):
        for _ in range(20):
            mixed = mix(inputs, labels, extras, generator)
            assert 0 <= mixed.share <= 1
            expected = mixed.share * inputs.mean((1, 2, 3))
            expected += (1 - mixed.share) * inputs[mixed.partners].mean((1, 2, 3))
            torch.testing.assert_close(mixed.inputs.mean((1, 2, 3)), expected, atol=0.1, rtol=0)
    assert mix(inputs, labels, NonPrivateExtras(), generator).inputs is inputs


def test_no_image_no_prediction() -> None:
    recipe = toy_recipe()
    empty = toy_images([])
    assert len(predict(TinyNet(), empty, recipe.image, device=CPU, memory_megabytes=64)) == 0
