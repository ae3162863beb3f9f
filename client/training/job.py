"""What private and plain training share: the job, its optimizer and its result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.training.augmentation import augment
from client.training.dataset import PatientImages
from client.training.device import MAXIMUM_ROWS, Device, physical_rows
from common.correction import Correction
from common.errors import UpdateRefused
from common.imaging import to_tensor
from common.model import Scope, set_trainable
from common.recipe import LocalTraining, Recipe


@dataclass(frozen=True)
class TrainingJob:
    """One round's local training.

    Attributes
    ----------
    recipe : Recipe
        Its image, augmentation and loss parts are used.
    training : LocalTraining
        From the plan, which may differ from the recipe's own.
    trainable : {"all", "bias", "head"}
        Which parameters move.
    device : Device
        Where to compute.
    memory_megabytes : int
        Bounds the images that are computed at once; it never changes the result.
    correction : mapping of str to ndarray, optional
        SCAFFOLD's, added to the gradient of every step; of the names that move and are shared.
    staying : frozenset of str
        Parameters that never leave the site: they have no part in what holds sites together.
    """

    recipe: Recipe
    training: LocalTraining
    trainable: Scope
    device: Device
    memory_megabytes: int = 2048
    correction: Correction | None = None
    staying: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Trained:
    """The trainable tensors after training, float32 by name, and the optimizer steps taken."""

    tensors: dict[str, NDArray[np.float32]]
    steps: int


@dataclass(frozen=True)
class Workbench:
    """A model in training mode on its device, what moves, and what a batch passes through.

    ``network`` is the model itself, or its classifier alone where ``images`` hold the features
    of the frozen rest. ``anchors`` are the parameters as they came, by name, where a proximal term
    pulls towards them; ``corrections`` what SCAFFOLD adds to their gradients. Both are empty
    otherwise, and have nothing of layers that stay at the site.
    """

    job: TrainingJob
    model: nn.Module
    names: tuple[str, ...]
    network: nn.Module
    anchors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    corrections: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def prepare(cls, job: TrainingJob, model: nn.Module, images: PatientImages) -> Workbench:
        """Choose the trainable parameters and move the model to the device."""
        names = set_trainable(model, job.trainable)
        model.to(job.device.torch).train()
        own = dict(model.named_parameters())
        shared = [name for name in names if name not in job.staying]
        pulled = shared if job.training.proximal_mu > 0 else ()
        anchors = {name: own[name].detach().clone() for name in pulled}
        given = job.correction or {}
        where = job.device.torch
        corrections = {n: torch.from_numpy(given[n]).to(where) for n in shared if given}
        whole: Any = model
        on_features = images.features is not None and job.trainable == "head"
        network = whole.get_classifier() if on_features else model
        return cls(job, model, names, network, anchors, corrections)

    @property
    def on_features(self) -> bool:
        """Whether batches are features, not images."""
        return self.network is not self.model

    def rows(self, *, per_sample_gradients: bool) -> int:
        """Return how many images fit the job's memory at once."""
        if self.on_features:
            trainable = sum(p.numel() for p in self.parameters())
            return max(1, min(MAXIMUM_ROWS, self.job.memory_megabytes * 2**16 // trainable))
        return physical_rows(
            self.model,
            self.job.recipe.image.size,
            megabytes=self.job.memory_megabytes,
            per_sample_gradients=per_sample_gradients,
        )

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that move, in the order of ``names``."""
        own = dict(self.model.named_parameters())
        return [own[name] for name in self.names]

    def correct_gradients(self) -> None:
        """Add what the algorithm adds to a step's finished gradient, if it adds anything."""
        self.add_proximal()
        self.add_correction()

    def add_correction(self) -> None:
        """Add SCAFFOLD's ``c - c_i`` to the gradients.

        Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1, line 10; after clipping and noise,
        as in DP-SCAFFOLD (Noble et al. 2022, arXiv:2111.09278). It was known before the round, and
        reads no patient: under privacy it is post-processing.
        """
        for name, parameter in zip(self.names, self.parameters(), strict=True):
            if parameter.grad is not None and name in self.corrections:
                parameter.grad.add_(self.corrections[name])

    def add_proximal(self) -> None:
        """Add FedProx' term to the gradients: mu times the way from the round's base.

        Li et al. 2020, arXiv:1812.06127, equation 2. It reads weights alone: under privacy, which
        has noised them, it is post-processing.
        """
        mu = self.job.training.proximal_mu
        for name, parameter in zip(self.names, self.parameters(), strict=True):
            if parameter.grad is not None and name in self.anchors:
                parameter.grad.add_(parameter.detach() - self.anchors[name], alpha=mu)

    def optimizer(self) -> torch.optim.Optimizer:
        """Build the plan's optimizer afresh: no state outlives a round."""
        training = self.job.training
        if training.optimizer == "adamw":
            return torch.optim.AdamW(
                self.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
            )
        return torch.optim.SGD(
            self.parameters(),
            lr=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )

    def inputs(
        self, images: PatientImages, indices: NDArray[np.int64], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return augmented, normalised images (B, 3, S, S) and labels (B,), on the device.

        On features, those (B, D) of the images as they are.
        """
        if self.on_features:
            where = self.job.device.torch
            features = torch.from_numpy(images.read_features(indices)).to(where)
            return features, torch.from_numpy(images.labels[indices]).to(where)
        batch = augment(images.read(indices), self.job.recipe.augmentation, generator)
        where = self.job.device.torch
        labels = torch.from_numpy(images.labels[indices]).to(where)
        return to_tensor(batch, self.job.recipe.image).to(where), labels

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Compute the forward pass in bfloat16 where the device is made for it."""
        device = self.job.device
        with torch.autocast(device.torch.type, dtype=torch.bfloat16, enabled=device.autocast):
            yield

    def trained(self, steps: int) -> Trained:
        """Return the result.

        Raises
        ------
        UpdateRefused
            With code ``update-not-finite`` if training diverged.
        """
        tensors: dict[str, NDArray[np.float32]] = {}
        for name, parameter in zip(self.names, self.parameters(), strict=True):
            array = cast(NDArray[np.float32], parameter.detach().float().cpu().numpy().copy())
            if not np.isfinite(array).all():
                raise UpdateRefused(
                    "Training diverged: the update is not finite.",
                    action="Lower the learning rate.",
                    code="update-not-finite",
                )
            tensors[name] = array
        return Trained(tensors, steps)
