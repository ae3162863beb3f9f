"""Local training without privacy, for studies that a site's policy allows by name."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.training.dataset import PatientImages
from client.training.job import Trained, TrainingJob, Workbench
from client.training.loss import per_sample_loss
from client.training.mixing import mix
from client.training.sampling import shuffled_batch
from common.recipe import NonPrivateExtras


def train_plain(
    model: nn.Module,
    images: PatientImages,
    job: TrainingJob,
    *,
    campaign: str,
    steps_before: int,
    extras: NonPrivateExtras | None = None,
) -> Trained:
    """Train for exactly ``job.training.local_steps`` steps of the campaign's shuffled stream.

    The same call gives the same result: batches follow from the campaign and the step's number.

    Parameters
    ----------
    model : nn.Module
        With the round's base tensors; it is trained in place.
    images : PatientImages
        The training side, at least one image. A batch is a fraction q of them, at least one.
    job : TrainingJob
        What and where.
    campaign : str
        Its identifier.
    steps_before : int
        Local steps of the campaign's earlier rounds.
    extras : NonPrivateExtras, optional
        MixUp, CutMix and class balancing; the recipe's by default.

    Raises
    ------
    UpdateRefused
        With code ``update-not-finite``.
    """
    extras = job.recipe.without_privacy if extras is None else extras
    bench = Workbench.prepare(job, model, images)
    optimizer = bench.optimizer()
    batch = max(1, round(job.training.sampling_rate * len(images)))
    generator = _generator(campaign, steps_before)
    rows = bench.rows(per_sample_gradients=False)
    # Dropout draws from torch's own generators; they are put back, so that nothing stays seeded.
    with torch.random.fork_rng(devices=_cuda_devices(job)):
        torch.random.manual_seed(generator.initial_seed())
        for number in range(steps_before, steps_before + job.training.local_steps):
            chosen = shuffled_batch(
                images.labels,
                batch=batch,
                step=number,
                campaign=campaign,
                balance=extras.balance_classes,
            )
            optimizer.zero_grad(set_to_none=True)
            _accumulate(bench, images, chosen, extras, rows=rows, generator=generator)
            bench.correct_gradients()
            optimizer.step()
    return bench.trained(job.training.local_steps)


def _accumulate(
    bench: Workbench,
    images: PatientImages,
    chosen: NDArray[np.int64],
    extras: NonPrivateExtras,
    *,
    rows: int,
    generator: torch.Generator,
) -> None:
    """Add up the gradient of the batch's mean loss, in physical batches."""
    for start in range(0, len(chosen), rows):
        part = chosen[start : start + rows]
        inputs, labels = bench.inputs(images, part, generator)
        mixed = mix(inputs, labels, extras, generator)
        with bench.precision():
            logits = bench.network(mixed.inputs)
        spec = bench.job.recipe.loss
        losses = mixed.share * per_sample_loss(logits, mixed.labels, spec)
        if mixed.share < 1:
            losses = losses + (1 - mixed.share) * per_sample_loss(logits, mixed.partners, spec)
        (losses.sum() / len(chosen)).backward()  # type: ignore[no-untyped-call]


def _generator(campaign: str, steps_before: int) -> torch.Generator:
    digest = hashlib.sha256(f"{campaign}\0{steps_before}\0augmentation".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))


def _cuda_devices(job: TrainingJob) -> list[int]:
    device = job.device.torch
    return [device.index or 0] if device.type == "cuda" else []
