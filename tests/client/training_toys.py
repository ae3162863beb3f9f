"""A small network and easy images, for tests of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from client.training import TrainingJob
from client.training.dataset import PatientImages
from client.training.device import Device
from common.model import Scope
from common.recipe import (
    Augmentation,
    DecisionSpec,
    ImageSpec,
    LocalTraining,
    LossSpec,
    ModelSpec,
    Recipe,
)

CPU = Device(torch.device("cpu"), autocast=False)


class TinyNet(nn.Module):
    """One convolution, one linear layer, 16 x 16 pixels in, two or three classes out."""

    def __init__(self, classes: int = 2, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
            self.head = nn.Linear(4 * 64, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.conv(images)).flatten(1)
        logits: torch.Tensor = self.head(features)
        return logits

    def get_classifier(self) -> nn.Module:
        return self.head


def toy_recipe(
    *,
    loss: LossSpec | None = None,
    augmentation: Augmentation | None = None,
    classes: Sequence[str] = ("dark", "bright"),
) -> Recipe:
    return Recipe(
        name="toy",
        title="Toy",
        images="drawn",
        classes=tuple(classes),
        image=ImageSpec(size=16),
        model=ModelSpec(architecture="test_resnet"),
        loss=loss or LossSpec(),
        augmentation=augmentation or Augmentation(horizontal_flip=False),
        decision=DecisionSpec(positive_classes=(classes[-1],)),
    )


def toy_images(groups: Sequence[int], *, classes: int = 2, seed: int = 0) -> PatientImages:
    """``groups`` holds each patient's number of images; brighter means a higher class."""
    generator = np.random.default_rng(seed)
    owners = np.repeat(np.arange(len(groups)), groups)
    labels = owners % classes
    pixels = generator.integers(0, 100, (len(owners), 16, 16, 3), dtype=np.uint8)
    pixels = (pixels + (labels * (150 // (classes - 1)))[:, None, None, None]).astype(np.uint8)
    return PatientImages(
        pixels=pixels,
        rows=np.arange(len(owners), dtype=np.int64),
        labels=labels.astype(np.int64),
        patients=tuple(np.flatnonzero(owners == p) for p in range(len(groups))),
    )


def toy_job(
    recipe: Recipe | None = None,
    *,
    steps: int = 1,
    rate: float = 1.0,
    learning_rate: float = 1.0,
    trainable: Scope = "all",
    device: Device = CPU,
    megabytes: int = 2048,
    optimizer: str = "sgd",
) -> TrainingJob:
    return TrainingJob(
        recipe=recipe or toy_recipe(),
        training=LocalTraining.model_validate(
            {
                "optimizer": optimizer,
                "local_steps": steps,
                "sampling_rate": rate,
                "learning_rate": learning_rate,
            }
        ),
        trainable=trainable,
        device=device,
        memory_megabytes=megabytes,
    )


def flat(tensors: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)])


def weights(model: nn.Module) -> np.ndarray:
    return flat({n: p.detach().numpy().copy() for n, p in model.named_parameters()})
