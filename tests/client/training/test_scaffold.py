"""SCAFFOLD's correction in a site's local steps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from client.training import PrivateStep, train_plain, train_private
from tests.client.training_toys import TinyNet, flat, toy_images, toy_job

IMAGES = toy_images([1] * 10)
QUIET = PrivateStep(noise_multiplier=0.0, max_grad_norm=0.01, expected_patients=10.0)


def correction(length: float) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    found = {n: generator.normal(size=p.shape) for n, p in TinyNet().named_parameters()}
    norm = np.linalg.norm(np.concatenate([a.ravel() for a in found.values()]))
    return {n: np.asarray(a * length / norm, dtype=np.float32) for n, a in found.items()}


@pytest.mark.parametrize("private", [False, True])
def test_it_is_added_to_every_steps_gradient_and_no_clip_shortens_it(private: bool) -> None:
    """A loss without a gradient would move by K x rate x correction: here by that, and its own."""
    rate, added = 0.001, correction(5.0)

    def train(steps: int, given: dict[str, np.ndarray] | None) -> np.ndarray:
        job = replace(toy_job(steps=steps, learning_rate=rate), correction=given)
        torch.manual_seed(0)
        if private:
            return flat(train_private(TinyNet(), IMAGES, job, step=QUIET).tensors)
        return flat(train_plain(TinyNet(), IMAGES, job, campaign="c", steps_before=0).tensors)

    np.testing.assert_allclose(train(1, added), train(1, None) - rate * flat(added), atol=1e-6)
    moved = train(3, added) - train(3, None)
    # The losses' own gradients differ a little after the first step; clipped ones by 0.02 at most.
    np.testing.assert_allclose(moved, -3 * rate * flat(added), atol=2e-3)
    assert np.linalg.norm(moved) == pytest.approx(3 * rate * 5.0, rel=0.2)


def test_only_what_moves_is_corrected() -> None:
    head = {n: a for n, a in correction(1.0).items() if n.startswith("head")}
    job = replace(toy_job(steps=2, learning_rate=0.01, trainable="head"), correction=head)
    torch.manual_seed(0)
    found = train_plain(TinyNet(), IMAGES, job, campaign="c", steps_before=0)
    assert found.tensors.keys() == head.keys()
