"""Patient-level DP-SGD (Abadi et al. 2016, arXiv:1607.00133, algorithm 1).

One step: every training patient enters with probability q; of each who entered, one image, as the
mean over a few augmentations of it (De et al. 2022, arXiv:2204.13650), gives ONE gradient, which
is clipped to norm C; their sum gets Gaussian noise of standard deviation sigma x C and is divided
by the expected, public number of patients. So no patient moves the sum by more than C, however
many images he or she has, and the step costs what `client.accounting` says.

Physical batches only bound memory: clipped gradients add up over them, and noise is added once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleHooks
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from client.dataset import PatientImages
from client.training_job import Trained, TrainingJob, Workbench
from client.training_loss import per_sample_loss
from client.training_noise import PrivateRandom
from client.training_sampling import sample_patients
from common.errors import PrivacyRefused
from common.recipe import NonPrivateExtras


@dataclass(frozen=True)
class PrivateStep:
    """The mechanism of every step of a round.

    Attributes
    ----------
    noise_multiplier : float
        sigma, as the ledger reserved it.
    max_grad_norm : float
        C, the clip of one patient's gradient.
    expected_patients : float
        q times the public number of patients: what the noisy sum is divided by.
    augmentation_multiplicity : int
        K augmentations of a patient's one image, averaged before the clip.
    """

    noise_multiplier: float
    max_grad_norm: float
    expected_patients: float
    augmentation_multiplicity: int = 1


class PatientOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus ships no types
    """Opacus' optimizer, with noise from a CSPRNG added in float64."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, step: PrivateStep, random: PrivateRandom
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=step.noise_multiplier,
            max_grad_norm=step.max_grad_norm,
            expected_batch_size=step.expected_patients,
            loss_reduction="mean",
        )
        self._random = random

    def add_noise(self) -> None:
        """Set each gradient to the clipped sum plus noise (Opacus' hook, once a logical step)."""
        deviation = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            total = parameter.summed_grad
            _check_processed_flag(total)
            noisy = total.cpu().double()  # in this order: MPS has no float64
            if deviation:
                noisy += deviation * self._random.normal(noisy.numel()).view_as(noisy)
            parameter.grad = noisy.to(device=parameter.device, dtype=parameter.dtype)
            _mark_as_processed(total)


class PatientHooks(GradSampleHooks):  # type: ignore[misc]  # Opacus ships no types
    """Opacus' hooks; each gradient is formed in float32, whatever the forward pass ran in."""

    def rearrange_grad_samples(
        self, **arguments: object
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return activations and output gradients as Opacus does, in float32 or wider."""
        activations, backprops = super().rearrange_grad_samples(**arguments)
        return [_at_least_float32(a) for a in activations], _at_least_float32(backprops)


def train_private(
    model: nn.Module,
    images: PatientImages,
    job: TrainingJob,
    *,
    step: PrivateStep,
    extras: NonPrivateExtras | None = None,
) -> Trained:
    """Train for exactly ``job.training.local_steps`` private steps.

    Parameters
    ----------
    model : nn.Module
        From `common.model.build_model`, with the round's base tensors; it is trained in place.
    images : PatientImages
        The training side.
    job : TrainingJob
        What and where.
    step : PrivateStep
        The noise must have been reserved in the ledger before this call.
    extras : NonPrivateExtras, optional
        Only there to be refused.

    Raises
    ------
    PrivacyRefused
        With code ``mixes-patients`` or ``batch-norm``.
    UpdateRefused
        With code ``update-not-finite``.
    """
    refuse_mixing(model, extras)
    bench = Workbench.prepare(job, model, private=True)
    random = PrivateRandom()
    augmentation = torch.Generator().manual_seed(random.seed())
    hooks = PatientHooks(model, loss_reduction="sum")
    try:
        optimizer = PatientOptimizer(bench.optimizer(), step, random)
        for _ in range(job.training.local_steps):
            chosen = sample_patients(images, job.training.sampling_rate, random)
            _step(
                bench,
                optimizer,
                images,
                chosen,
                augmentation=augmentation,
                multiplicity=step.augmentation_multiplicity,
            )
    finally:
        hooks.cleanup()
    return bench.trained(job.training.local_steps)


def refuse_mixing(model: nn.Module, extras: NonPrivateExtras | None) -> None:
    """Refuse everything that lets one patient reach another's gradient.

    Raises
    ------
    PrivacyRefused
        With code ``mixes-patients`` or ``batch-norm``.
    """
    if extras is not None and extras != NonPrivateExtras():
        raise PrivacyRefused(
            "MixUp, CutMix and class balancing are not possible with privacy.",
            meaning="They put one patient into several gradients or sampling chances, so that "
            "clipping would no longer bound what one patient does.",
            action="Leave them out, or study them without privacy.",
            code="mixes-patients",
        )
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            raise PrivacyRefused(
                f"The layer {name} is a BatchNorm.",
                meaning="It normalises each patient by the others of the batch.",
                action="Use group or frozen normalisation.",
                code="batch-norm",
            )


def _step(
    bench: Workbench,
    optimizer: PatientOptimizer,
    images: PatientImages,
    chosen: NDArray[np.int64],
    *,
    multiplicity: int,
    augmentation: torch.Generator,
) -> None:
    """Take one logical step over ``chosen`` (one image a patient), in physical batches."""
    at_once = max(1, bench.rows // multiplicity)
    parts = [chosen[start : start + at_once] for start in range(0, len(chosen), at_once)]
    if not parts:
        parts = [chosen]  # nobody came: the noise is added and accounted all the same
    for number, part in enumerate(parts, start=1):
        optimizer.zero_grad(set_to_none=True)
        _gradients(bench, images, part, multiplicity, augmentation)
        optimizer.signal_skip_step(do_skip=number < len(parts))
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _gradients(
    bench: Workbench,
    images: PatientImages,
    part: NDArray[np.int64],
    multiplicity: int,
    augmentation: torch.Generator,
) -> None:
    """Leave each patient's gradient in ``grad_sample``, shape (patients, *parameter.shape)."""
    parameters = bench.parameters()
    if len(part) == 0:
        for parameter in parameters:
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))  # type: ignore[attr-defined]
        return
    inputs, labels = bench.inputs(images, np.repeat(part, multiplicity), augmentation)
    with bench.precision():
        logits = bench.model(inputs)
    per_sample_loss(logits, labels, bench.job.recipe.loss).sum().backward()  # type: ignore[no-untyped-call]
    for parameter in parameters:
        rows: torch.Tensor = parameter.grad_sample  # type: ignore[attr-defined]
        if multiplicity > 1:
            rows = rows.view(len(part), multiplicity, *parameter.shape).mean(1)
            parameter.grad_sample = rows  # type: ignore[attr-defined]
    _silence_not_finite([p.grad_sample for p in parameters])  # type: ignore[attr-defined]


def _silence_not_finite(gradients: list[torch.Tensor]) -> None:
    """Zero a patient's whole gradient where any of it is no number.

    It could not be clipped, would wipe out all others, and that this happened would itself tell
    about the patient.
    """
    finite = torch.stack([g.flatten(1).isfinite().all(1) for g in gradients]).all(0)
    if not bool(finite.all()):
        for gradient in gradients:
            gradient[~finite] = 0


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    low = tensor.dtype in (torch.bfloat16, torch.float16)
    return tensor.float() if low else tensor
