"""What a network gives for a batch: logits, probabilities, and what its classifier saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.training.features import HeadSplit, split_head

Logits: TypeAlias = NDArray[np.float64]
Probabilities: TypeAlias = NDArray[np.float64]
Features: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Outputs:
    """A network's outputs for B images, K classes and D features.

    Attributes
    ----------
    logits : ndarray of float64, (B, K)
    probabilities : ndarray of float64, (B, K)
        Softmax of ``logits``; of several models together the mean of theirs.
    features : ndarray of float32, (B, D)
        What the linear classifier sees; of a network without one at its end, the logits.
    members : ndarray of float64, (B, M, K), or None
        Each model's own probabilities, where M of them answered together.
    """

    logits: Logits
    probabilities: Probabilities
    features: Features
    members: Probabilities | None = None

    def row(self, index: int) -> Outputs:
        """Return one image's outputs, with B of 1."""
        part = slice(index, index + 1)
        members = None if self.members is None else self.members[part]
        return Outputs(self.logits[part], self.probabilities[part], self.features[part], members)


@dataclass(frozen=True, eq=False)
class Classifier:
    """The linear layer at a network's end: ``logits = features @ weights.T + bias``.

    Attributes
    ----------
    weights : ndarray of float32, (K, D)
    bias : ndarray of float32, (K,)
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def features(self) -> int:
        """How many features it sees, D."""
        return int(self.weights.shape[1])


class WithFeatures(nn.Module):
    """A network that returns its logits and its features, from one pass.

    Parameters
    ----------
    network : nn.Module
        In ``eval()`` mode, on its device.
    size : int
        The images' side, pixels.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network = network
        dividable = hasattr(network, "get_classifier")
        self._split: HeadSplit | None = split_head(network, size) if dividable else None

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (B, K) and features (B, D)."""
        if self._split is None:
            logits: torch.Tensor = self.network(images)
            return logits, logits.clone()
        features = self._split.backbone(images)
        return self._split.head(features), features

    @property
    def classifier(self) -> Classifier | None:
        """The network's last layer, None where it is not a linear one."""
        if self._split is None:
            return None
        head = self._split.head
        weights = head.weight.detach().float().cpu().numpy().copy()
        none = torch.zeros(head.out_features) if head.bias is None else head.bias
        return Classifier(weights, none.detach().float().cpu().numpy().copy())


def probabilities_of(logits: Logits) -> Probabilities:
    """Return softmax over the last axis; NaN where an output is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
        result: Probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
    return result
