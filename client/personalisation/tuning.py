"""Fitting a release's classifier to a site's own patients, on the frozen backbone's features.

The head stays near the release's: the fit minimises the patients' mean loss plus half of
``pull / patients`` times the squared way from the release's head, a Gaussian prior around it. How
strong the pull is says five-fold cross-validation over the training patients; the holdout is
looked at once, afterwards (`client.personalisation.judging`). Every patient weighs the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.training.dataset import PatientImages
from client.training.loss import per_sample_loss
from common.recipe import LossSpec

PULLS = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
FOLDS = 5
ITERATIONS = 50
_TOLERANCE = 1e-7
_NOT_AT_ALL = float("inf")

OnFit = Callable[[int, int], None]
"""Told how many of how many fits are done."""


@dataclass(frozen=True)
class _Rows:
    """Features (N, D), labels (N,), and each image's share of its patient (N,)."""

    features: torch.Tensor
    labels: torch.Tensor
    shares: torch.Tensor
    patients: int


@dataclass(frozen=True)
class TunedHead:
    """Weight (K, D) and bias (K,) in float32, and the pull that cross-validation chose.

    An infinite pull is the release's own head: nothing that was fitted generalised better.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    pull: float


def tune_head(
    head: nn.Linear, images: PatientImages, loss: LossSpec, *, on_fit: OnFit = lambda *_: None
) -> TunedHead:
    """Fit a head; the same images give the same head.

    Parameters
    ----------
    head : Linear
        The release's; it is left as it is.
    images : PatientImages
        The training side, with features; at least `FOLDS` patients.
    loss : LossSpec
        The recipe's.
    on_fit : callable, optional
        For a progress display.
    """
    order = np.random.default_rng(0).permutation(len(images.patients))
    folds = [order[number::FOLDS] for number in range(FOLDS)]
    total = len(PULLS) * FOLDS + 1
    losses = {_NOT_AT_ALL: 0.0} | dict.fromkeys(PULLS, 0.0)
    for number, fold in enumerate(folds):
        inside, outside = _rows(images, np.setdiff1d(order, fold)), _rows(images, fold)
        losses[_NOT_AT_ALL] += _loss(_parameters(head), outside, loss) * outside.patients
        for index, pull in enumerate(PULLS):
            fitted = _fit(head, inside, loss, pull)
            losses[pull] += _loss(fitted, outside, loss) * outside.patients
            on_fit(number * len(PULLS) + index + 1, total)
    pull = min(losses, key=lambda one: losses[one])
    chosen = _parameters(head)
    if pull != _NOT_AT_ALL:
        chosen = _fit(head, _rows(images, order), loss, pull)
    on_fit(total, total)
    weight, bias = (part.detach().cpu().numpy().astype(np.float32) for part in chosen)
    return TunedHead(weight, bias, pull)


def _parameters(head: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    weight = head.weight.detach().double().cpu()
    bias = head.bias.detach().double().cpu() if head.bias is not None else weight.new_zeros(1)
    return weight, bias


def _fit(
    head: nn.Linear, rows: _Rows, loss: LossSpec, pull: float
) -> tuple[torch.Tensor, torch.Tensor]:
    start = _parameters(head)
    moving = [part.clone().requires_grad_() for part in start]
    optimizer = torch.optim.LBFGS(
        moving,
        max_iter=ITERATIONS,
        tolerance_grad=_TOLERANCE,
        tolerance_change=_TOLERANCE,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        way = sum(((one - first) ** 2).sum() for one, first in zip(moving, start, strict=True))
        value = _mean_loss(moving[0], moving[1], rows, loss) + pull / rows.patients * way / 2
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return moving[0].detach(), moving[1].detach()


def _mean_loss(
    weight: torch.Tensor, bias: torch.Tensor, rows: _Rows, loss: LossSpec
) -> torch.Tensor:
    logits = rows.features @ weight.T + bias
    return (per_sample_loss(logits, rows.labels, loss) * rows.shares).sum() / rows.patients


def _loss(parameters: tuple[torch.Tensor, torch.Tensor], rows: _Rows, loss: LossSpec) -> float:
    found = float(_mean_loss(parameters[0], parameters[1], rows, loss))
    return found if np.isfinite(found) else float("inf")


def _rows(images: PatientImages, patients: NDArray[np.int64]) -> _Rows:
    groups = [images.patients[number] for number in patients]
    indices = np.concatenate(groups)
    shares = np.concatenate([np.full(len(group), 1 / len(group)) for group in groups])
    return _Rows(
        torch.from_numpy(images.read_features(indices)).double(),
        torch.from_numpy(images.labels[indices]),
        torch.from_numpy(shares),
        len(groups),
    )
