"""Where to compute, and how many images at once."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from common.errors import ConfigurationError

logger = logging.getLogger(__name__)

BYTES = 4
ACTIVATION_COPIES = 2.0
"""Each layer's output is kept for the backward pass, and its gradient lives beside it."""
GRADIENT_COPIES = 2.5
"""A per-sample gradient, the tensor that it is gathered from, and work space."""
MAXIMUM_ROWS = 4096


@dataclass(frozen=True)
class Device:
    """A torch device. ``autocast``: forward passes run in bfloat16 (CUDA only)."""

    torch: torch.device
    autocast: bool


def choose_device(setting: Literal["auto", "cpu", "cuda", "mps"] = "auto") -> Device:
    """Pick CUDA, else Apple's MPS, else the CPU; or exactly what the setting says.

    Raises
    ------
    ConfigurationError
        With code ``device-absent`` if the setting names a device that is not there.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    name = setting if setting != "auto" else next(n for n, there in available.items() if there)
    if not available[name]:
        raise ConfigurationError(
            f"This machine has no {name} device.",
            action='Set device = "auto" in site.toml.',
            code="device-absent",
        )
    autocast = name == "cuda" and torch.cuda.is_bf16_supported()
    return Device(torch.device(name), autocast)


def limit_threads(threads: int) -> None:
    """Use at most ``threads`` CPU threads; 0 leaves torch's own choice."""
    if threads:
        torch.set_num_threads(min(threads, os.cpu_count() or threads))


def physical_rows(
    model: nn.Module, image_size: int, *, megabytes: int, per_sample_gradients: bool
) -> int:
    """Estimate how many images fit a forward and backward pass within ``megabytes``.

    Parameters
    ----------
    model : nn.Module
        On any device, its trainable parameters chosen.
    image_size : int
        Side in pixels.
    megabytes : int
        The bound, the model itself included.
    per_sample_gradients : bool
        Whether each image's gradient is held at once (DP-SGD by hooks).

    Returns
    -------
    int
        At least 1, even where one image alone exceeds the bound.
    """
    outputs, largest_patches = _measure(model, image_size)
    parameters = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    row = ACTIVATION_COPIES * outputs + largest_patches
    if per_sample_gradients:
        row += GRADIENT_COPIES * trainable
    left = megabytes * 2**20 - BYTES * (parameters + 4 * trainable)
    rows = int(left / (BYTES * row)) if left > 0 else 1
    return max(1, min(MAXIMUM_ROWS, rows))


def _measure(model: nn.Module, image_size: int) -> tuple[int, int]:
    """Return the numbers of elements of one image: all outputs, and the largest unfolded input."""
    outputs = 0
    patches = 0

    def count(module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal outputs, patches
        if not isinstance(output, torch.Tensor):
            return
        outputs += output.numel()
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
            window = module.weight[0].numel()
            patches = max(patches, window * output.shape[-1] * output.shape[-2])

    leaves = [m for m in model.modules() if not any(True for _ in m.children())]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    training = model.training
    parameter = next(model.parameters())
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, 3, image_size, image_size, device=parameter.device))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return outputs, patches
