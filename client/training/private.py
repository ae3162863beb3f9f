"""Patient-level DP-SGD (Abadi et al. 2016, arXiv:1607.00133, algorithm 1).

One step: every training patient enters with probability q; of each who entered, one image, as the
mean over a few augmentations of it (De et al. 2022, arXiv:2204.13650), gives ONE gradient, which
is clipped to norm C; their sum gets Gaussian noise of standard deviation sigma x C and is divided
by the expected, public number of patients. So no patient moves the sum by more than C, however
many images he or she has, and the step costs what `client.privacy.accounting` says.

Physical batches only bound memory: clipped gradients add up over them, and noise is added once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from client.training.dataset import PatientImages
from client.training.gradients import ClippedSum
from client.training.job import Trained, TrainingJob, Workbench
from client.training.noise import PrivateRandom
from client.training.sampling import sample_patients
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


class NoisyOptimizer(DPOptimizerFastGradientClipping):  # type: ignore[misc]  # no types
    """Opacus' optimizer for sums clipped before, with noise from a CSPRNG added in float64."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        step: PrivateStep,
        random: PrivateRandom,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=step.noise_multiplier,
            max_grad_norm=step.max_grad_norm,
            expected_batch_size=step.expected_patients,
            loss_reduction="mean",
        )
        self._random = random
        self._then = then

    def scale_grad(self) -> None:
        """Divide by the expected batch; ``then`` gets the finished, noised mean gradient."""
        super().scale_grad()
        self._then()

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
    bench = Workbench.prepare(job, model, images)
    random = PrivateRandom()
    augmentation = torch.Generator().manual_seed(random.seed())
    multiplicity = 1 if bench.on_features else step.augmentation_multiplicity
    gradients = ClippedSum(bench, max_grad_norm=step.max_grad_norm, multiplicity=multiplicity)
    at_once = gradients.patients_at_once
    try:
        optimizer = NoisyOptimizer(bench.optimizer(), step, random, bench.correct_gradients)
        for _ in range(job.training.local_steps):
            chosen = sample_patients(images, job.training.sampling_rate, random)
            parts = np.split(chosen, range(at_once, len(chosen), at_once))
            for number, part in enumerate(parts, start=1):
                optimizer.zero_grad(set_to_none=True)
                if len(part):
                    rows = np.repeat(part, multiplicity)
                    gradients.add(*bench.inputs(images, rows, augmentation))
                else:
                    gradients.add_nobody()  # nobody came: noise and accounting all the same
                optimizer.signal_skip_step(do_skip=number < len(parts))
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    finally:
        gradients.close()
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
