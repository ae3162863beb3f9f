from dataclasses import replace

import numpy as np
import pytest
import torch

from client.training import PrivateStep, Trained, train_plain, train_private
from tests.client.training_toys import TinyNet, flat, toy_images, toy_job

IMAGES = toy_images([1] * 10)


def train(mu: float, *, steps: int = 2, rate: float = 0.05) -> tuple[Trained, TinyNet]:
    job = toy_job(steps=steps, rate=1.0, learning_rate=rate)
    job = replace(job, training=job.training.model_copy(update={"proximal_mu": mu}))
    torch.manual_seed(0)
    model = TinyNet()
    return train_plain(model, IMAGES, job, campaign="c", steps_before=0), model


def start() -> np.ndarray:
    torch.manual_seed(0)
    return flat({n: p.detach().numpy().copy() for n, p in TinyNet().named_parameters()})


def test_two_steps_are_equation_two_of_the_paper() -> None:
    """The first step feels no pull; the second is pulled back by rate x mu x the first."""
    rate, mu, begin = 0.05, 3.0, start()
    one = flat(train(0.0, steps=1, rate=rate)[0].tensors)
    free = flat(train(0.0, steps=2, rate=rate)[0].tensors)
    pulled = flat(train(mu, steps=2, rate=rate)[0].tensors)
    np.testing.assert_allclose(flat(train(mu, steps=1, rate=rate)[0].tensors), one, rtol=1e-6)
    np.testing.assert_allclose(pulled, free - rate * mu * (one - begin), rtol=1e-4, atol=1e-6)
    assert np.abs(pulled - free).max() > 1e-5


def test_mu_of_zero_changes_nothing() -> None:
    job = toy_job(steps=3, rate=1.0)
    torch.manual_seed(0)
    plain = train_plain(TinyNet(), IMAGES, job, campaign="c", steps_before=0)
    zero = train(0.0, steps=3, rate=job.training.learning_rate)[0]
    np.testing.assert_array_equal(flat(zero.tensors), flat(plain.tensors))


@pytest.mark.parametrize("mu", [0.0, 50.0])
def test_under_privacy_it_pulls_after_the_noise(mu: float) -> None:
    """A pull of rate x mu = 1 takes back the whole step before, noise and all."""
    job = toy_job(steps=6, rate=1.0, learning_rate=0.02)
    job = replace(job, training=job.training.model_copy(update={"proximal_mu": mu}))
    step = PrivateStep(noise_multiplier=50.0, max_grad_norm=1.0, expected_patients=1.0)
    torch.manual_seed(0)
    found = flat(train_private(TinyNet(), IMAGES, job, step=step).tensors)
    way = float(np.sqrt(np.mean((found - start()) ** 2)))
    # Six steps of deviation 0.02 x 50 = 1 walk sqrt(6); with the pull only the last one is left.
    assert way == pytest.approx(1.0 if mu else np.sqrt(6), rel=0.35)
