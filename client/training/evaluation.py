"""Predictions of a model over holdout images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.training.dataset import PatientImages
from client.training.device import Device, physical_rows
from common.imaging import to_tensor
from common.recipe import ImageSpec


def predict(
    model: nn.Module,
    images: PatientImages,
    spec: ImageSpec,
    *,
    device: Device,
    memory_megabytes: int,
) -> NDArray[np.float32]:
    """Return the class probabilities of every image, float32 (N, K), in order.

    No augmentation; float32 throughout, as at inference. Where the images hold the features of
    the model's own backbone, its classifier alone is asked.
    """
    model.to(device.torch).eval()
    if images.features is not None:
        return _predict_from_features(model, images, device)
    rows = physical_rows(model, spec.size, megabytes=memory_megabytes, per_sample_gradients=False)
    parts: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for start in range(0, len(images), rows):
            indices = np.arange(start, min(start + rows, len(images)))
            inputs = to_tensor(images.read(indices), spec).to(device.torch)
            parts.append(torch.softmax(model(inputs).float(), dim=1).cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def _predict_from_features(
    model: nn.Module, images: PatientImages, device: Device
) -> NDArray[np.float32]:
    whole: Any = model
    classifier: nn.Module = whole.get_classifier()
    with torch.inference_mode():
        features = torch.from_numpy(images.read_features(np.arange(len(images))))
        probabilities = torch.softmax(classifier(features.to(device.torch)).float(), dim=1)
    found: NDArray[np.float32] = probabilities.cpu().numpy()
    return found
