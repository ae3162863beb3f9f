"""Per-sample losses: one term a row, so that a patient moves nobody else's term."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (PyTorch's own name for it)

from common.recipe import LossSpec


def per_sample_loss(logits: torch.Tensor, labels: torch.Tensor, spec: LossSpec) -> torch.Tensor:
    """Return each row's loss, unreduced.

    Class weights multiply each row's own term. torch's weighted mean would divide by the weights
    of the whole batch, and so let one patient scale the others' gradients.

    Parameters
    ----------
    logits : Tensor, shape (B, K)
        Any float dtype; the loss is computed in float32.
    labels : Tensor of int64, shape (B,)
        Class indices.
    spec : LossSpec
        Cross entropy, or the focal loss (Lin et al. 2017, arXiv:1708.02002, equation 5).

    Returns
    -------
    Tensor of float32, shape (B,)
    """
    logits = logits.float()
    losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=spec.label_smoothing)
    if spec.name == "focal":
        log_probability = F.log_softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]
        # expm1 keeps 1 - p exact where p is close to 1; the clamp keeps the power's slope finite.
        losses = (-torch.expm1(log_probability)).clamp(min=1e-8) ** spec.focal_gamma * losses
    if spec.class_weights:
        weights = torch.tensor(spec.class_weights, dtype=losses.dtype, device=losses.device)
        losses = losses * weights[labels]
    return losses
