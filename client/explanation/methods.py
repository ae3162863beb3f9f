"""Four ways of asking a network what in an image its answer rests on, by captum.

Each gives a heat map over the square that the network sees: what speaks FOR the class, zero
elsewhere. What speaks against it is left out.

* Grad-CAM (Selvaraju 2017, arXiv:1610.02391): the last spatial layer's activations, weighted by
  their mean gradients; one pass, coarse.
* Integrated gradients (Sundararajan 2017, arXiv:1703.01365) from the recipe's mean colour;
  smoothed, because single pixels say nothing to a reader.
* SHAP (Lundberg 2017, arXiv:1705.07874; KernelShap) and LIME (Ribeiro 2016, arXiv:1602.04938):
  squares of a grid are painted over with the mean colour, and a linear model is fitted to what
  that does to the class's log-odds (a probability near 1 would hardly move, whatever is hidden).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from client.explanation.budget import Budget
from client.explanation.twin import Twin

Heat: TypeAlias = NDArray[np.float32]
"""Shape (S, S), at least 0; 1 at its hottest, or all 0."""

STEPS = 32
GRID = 7
SAMPLES = 128
AT_ONCE = 4
"""Images in one call of the network: what bounds the memory of an explanation."""


class Method(StrEnum):
    """How an answer is explained."""

    grad_cam = "grad-cam"
    integrated_gradients = "integrated-gradients"
    shap = "shap"
    lime = "lime"

    @property
    def quick(self) -> bool:
        """Whether it takes one pass of the network; the others take a hundred."""
        return self is Method.grad_cam


def heat_map(
    method: Method, twin: Twin, image: NDArray[np.float32], target: int, budget: Budget
) -> Heat:
    """Return what in an image speaks for a class.

    Parameters
    ----------
    method : Method
    twin : Twin
        See `client.explanation.twin`.
    image : ndarray of float32, (1, 3, S, S)
        Normalised.
    target : int
        Position of the class.
    budget : Budget
        Looked at before each call of the network.

    Returns
    -------
    ndarray of float32, (S, S)
        In [0, 1].

    Raises
    ------
    Busy
        If the budget is spent.
    """
    tensor = torch.from_numpy(image).to(twin.device)
    return _scaled(_METHODS[method](twin, tensor, target, budget))


def _grad_cam(twin: Twin, image: torch.Tensor, target: int, budget: Budget) -> torch.Tensor:
    from captum.attr import LayerGradCam

    cam = LayerGradCam(_logits(twin, budget), twin.layer)
    found = cam.attribute(image.requires_grad_(), target, relu_attributions=True)
    wide = functional.interpolate(found, image.shape[2:], mode="bilinear", align_corners=False)
    return wide[0, 0]


def _integrated(twin: Twin, image: torch.Tensor, target: int, budget: Budget) -> torch.Tensor:
    from captum.attr import IntegratedGradients

    found = IntegratedGradients(_logits(twin, budget)).attribute(
        image.requires_grad_(),
        baselines=0.0,
        target=target,
        n_steps=STEPS,
        internal_batch_size=AT_ONCE,
    )
    speaks_for = functional.relu(found.sum(dim=1, keepdim=True).float())
    width = max(1, image.shape[2] // 16) | 1
    for _ in range(2):  # two boxes are nearly a bell
        speaks_for = functional.avg_pool2d(speaks_for, width, 1, width // 2)
    return speaks_for[0, 0]


def _shap(twin: Twin, image: torch.Tensor, target: int, budget: Budget) -> torch.Tensor:
    from captum.attr import KernelShap

    return _squares(KernelShap(_log_odds(twin, target, budget)), image)


def _lime(twin: Twin, image: torch.Tensor, target: int, budget: Budget) -> torch.Tensor:
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime

    # The ridge of the authors' own code for images; captum's lasso calls most squares 0.
    model = SkLearnRidge(alpha=1.0)
    return _squares(Lime(_log_odds(twin, target, budget), interpretable_model=model), image)


def _squares(attribution: Any, image: torch.Tensor) -> torch.Tensor:
    side = image.shape[2]
    place = torch.arange(side, device=image.device) * GRID // side
    mask = (place[:, None] * GRID + place[None, :])[None, None]
    with torch.no_grad(), _reproducible():
        found = attribution.attribute(
            image,
            baselines=0.0,
            feature_mask=mask,
            n_samples=SAMPLES,
            perturbations_per_eval=AT_ONCE,
        )
    speaks_for: torch.Tensor = found[0, 0].float()
    return speaks_for


_METHODS: dict[Method, Callable[[Twin, torch.Tensor, int, Budget], torch.Tensor]] = {
    Method.grad_cam: _grad_cam,
    Method.integrated_gradients: _integrated,
    Method.shap: _shap,
    Method.lime: _lime,
}


def _logits(twin: Twin, budget: Budget) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(images: torch.Tensor) -> torch.Tensor:
        budget.check()
        logits: torch.Tensor = twin.network(images)
        return logits

    return forward


def _log_odds(twin: Twin, target: int, budget: Budget) -> Callable[[torch.Tensor], torch.Tensor]:
    logits = _logits(twin, budget)

    def forward(images: torch.Tensor) -> torch.Tensor:
        found = logits(images)
        others = torch.cat([found[:, :target], found[:, target + 1 :]], dim=1)
        return found[:, target] - torch.logsumexp(others, dim=1)

    return forward


@contextmanager
def _reproducible() -> Iterator[None]:
    """Draw SHAP's and LIME's samples the same each time; put the generator's state back.

    It is the process's one generator: not for two threads at once.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def _scaled(raw: torch.Tensor) -> Heat:
    heat: Heat = raw.detach().float().clamp(min=0).cpu().numpy()
    heat = np.nan_to_num(heat, nan=0.0, posinf=0.0)
    most = float(heat.max(initial=0.0))
    return heat / np.float32(most) if most > 1e-12 else np.zeros_like(heat)
