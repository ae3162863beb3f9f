"""The start-up self-test: a network's per-sample gradients are truly its samples' gradients.

A sampler that is silently wrong clips the wrong vector, and the promised epsilon is then fiction.
So before a site trains privately, two random images go through the recipe's network in float64,
by Opacus' hooks and by ghost clipping, and are held against plain autograd, one image at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (PyTorch's own name for it)
from opacus.grad_sample import GradSampleHooks, GradSampleHooksFastGradientClipping
from torch import Tensor, nn

from common.errors import ModelError, PrivacyRefused
from common.model import SHORT_NAMES, Scope, build_model, set_trainable
from common.recipe import Recipe

logger = logging.getLogger(__name__)

CHECK_IMAGE_SIZE = 32
NEGLIGIBLE = 1e-8
"""Gradients this much smaller than the largest one are compared on that one's scale."""


@dataclass(frozen=True)
class GradientCheck:
    """What the self-test found. Errors are relative, 0 is exact.

    Attributes
    ----------
    architecture : str
        The timm network.
    hooks_error : float
        Largest deviation of a per-sample gradient from the single-image one, of any parameter,
        in units of that parameter's largest gradient.
    ghost_error : float
        Largest deviation of a sample's gradient norm as ghost clipping computes it.
    dependence : float
        Largest change of one sample's gradient when the other image of the batch is exchanged.
    seconds : float
        Time that it took.
    """

    architecture: str
    hooks_error: float
    ghost_error: float
    dependence: float
    seconds: float


@dataclass(frozen=True)
class _Probe:
    """Random images (B, 3, S, S) float64, and labels (B,) int64."""

    images: Tensor
    labels: Tensor


def check_gradients(
    recipe: Recipe, *, tolerance: float = 1e-6, trainable: Scope | None = None
) -> GradientCheck:
    """Build a recipe's network at a small size and prove its per-sample gradients.

    Parameters
    ----------
    recipe : Recipe
        Its weights are not fetched: exactness does not depend on them.
    tolerance : float, default 1e-6
        Largest relative error that passes.
    trainable : {"all", "bias", "head"}, optional
        The scope to prove; the recipe's own by default.

    Raises
    ------
    PrivacyRefused
        With code ``self-test-failed``, if a gradient is wrong, hangs on another sample, or cannot
        be computed. Nothing private may then be trained.
    """
    small = recipe.with_changes(image_size=CHECK_IMAGE_SIZE)
    name = SHORT_NAMES.get(recipe.model.architecture, recipe.model.architecture)
    try:
        model = build_model(small, pretrained=False)
        set_trainable(model, trainable or recipe.model.trainable)
        return check_model(
            model, image_size=CHECK_IMAGE_SIZE, architecture=name, tolerance=tolerance
        )
    except ModelError as error:
        raise _refusal(name, error.what) from error


def check_model(
    model: nn.Module,
    *,
    image_size: int,
    architecture: str = "",
    samples: int = 2,
    tolerance: float = 1e-6,
) -> GradientCheck:
    """Prove the per-sample gradients of a model.

    The model is changed by it (float64, perturbed weights): give a copy.

    Parameters
    ----------
    model : nn.Module
        Takes images of shape (B, 3, image_size, image_size), returns logits (B, classes).
    image_size : int
        Side in pixels.
    architecture : str
        Name for the report.
    samples : int, default 2
        Images in the batch, at least 2.
    tolerance : float, default 1e-6
        Largest relative error that passes.

    Raises
    ------
    PrivacyRefused
        As for `check_gradients`.
    """
    started = time.perf_counter()
    model = model.double().train()
    generator = torch.Generator().manual_seed(0)
    _perturb(model, generator)
    classes = _class_count(model, image_size)
    images = torch.randn(
        samples + 1, 3, image_size, image_size, dtype=torch.float64, generator=generator
    )
    labels = torch.arange(samples + 1) % classes
    probe = _Probe(images[:samples], labels[:samples])
    exchanged = _Probe(images[[0, -1]], labels[[0, -1]])  # the same first, another beside it
    try:
        hooks_error, norms, first = _compare_hooks(model, probe)
        result = GradientCheck(
            architecture=architecture or type(model).__name__,
            hooks_error=hooks_error,
            ghost_error=_compare_ghost(model, probe, norms),
            dependence=_dependence(model, exchanged, first),
            seconds=time.perf_counter() - started,
        )
    except (RuntimeError, NotImplementedError, ValueError, AttributeError) as error:
        raise _refusal(architecture, f"{type(error).__name__}: {_first_line(error)}") from error
    _judge(result, tolerance)
    return result


def _judge(result: GradientCheck, tolerance: float) -> None:
    errors = {
        "hooks": result.hooks_error,
        "ghost": result.ghost_error,
        "another sample": result.dependence,
    }
    # "not <=" and not ">": a NaN must fail.
    wrong = [f"{name} {error:.1e}" for name, error in errors.items() if not error <= tolerance]
    if wrong:
        raise _refusal(result.architecture, f"relative error by {', '.join(wrong)}")
    logger.info(
        "gradient check passed architecture=%s hooks=%.1e ghost=%.1e dependence=%.1e seconds=%.1f",
        result.architecture,
        result.hooks_error,
        result.ghost_error,
        result.dependence,
        result.seconds,
    )


def _refusal(architecture: str, reason: str) -> PrivacyRefused:
    return PrivacyRefused(
        f"The gradient self-test of {architecture} failed: {reason}.",
        meaning="Its per-sample gradients are not what clipping would take them for, so the "
        "privacy promise would not hold.",
        action="Use a network that passes, or versions of torch, timm and Opacus that do.",
        code="self-test-failed",
    )


def _first_line(error: Exception) -> str:
    """Return the start of an error's text; it can hold nothing private, the images are random."""
    return (str(error).strip().splitlines() or ["no text"])[0][:200]


def _perturb(model: nn.Module, generator: torch.Generator) -> None:
    """Move scales and shifts off 0 and 1, where a wrong gradient could hide as zero."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.dim() == 1 and tensor.is_floating_point():
                noise = torch.rand(tensor.shape, dtype=tensor.dtype, generator=generator)
                tensor.add_(0.1 + 0.1 * noise)


def _class_count(model: nn.Module, image_size: int) -> int:
    with torch.no_grad():
        blank = torch.zeros(1, 3, image_size, image_size, dtype=torch.float64)
        return int(model(blank).shape[1])


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _compare_hooks(model: nn.Module, probe: _Probe) -> tuple[float, Tensor, list[Tensor]]:
    """Return the error by hooks, the true norms (B,), and the first sample's gradients."""
    singles = _single_gradients(model, probe)
    _require_signal(singles)
    with _hooked(model, GradSampleHooks):
        _backward(model, probe)
        batched = _grad_samples(model)
    squares = [torch.stack([g.square().sum() for g in single]).sum() for single in singles]
    error = max(
        _relative([gradients[i] for gradients in batched], single)
        for i, single in enumerate(singles)
    )
    return error, torch.stack(squares).sqrt(), [gradients[0].clone() for gradients in batched]


def _compare_ghost(model: nn.Module, probe: _Probe, norms: Tensor) -> float:
    with _hooked(model, GradSampleHooksFastGradientClipping) as hooks:
        _backward(model, probe)
        ghost: Tensor = hooks.get_norm_sample()
    return float(((ghost - norms).abs() / norms).max())


def _dependence(model: nn.Module, exchanged: _Probe, first: list[Tensor]) -> float:
    with _hooked(model, GradSampleHooks):
        _backward(model, exchanged)
        return _relative([gradients[0] for gradients in _grad_samples(model)], first)


def _single_gradients(model: nn.Module, probe: _Probe) -> list[tuple[Tensor, ...]]:
    """Return each sample's gradients by plain autograd, one forward pass an image."""
    parameters = _trainable(model)
    gradients = []
    for image, label in zip(probe.images, probe.labels, strict=True):
        loss = F.cross_entropy(model(image[None]), label[None])
        gradients.append(torch.autograd.grad(loss, parameters))
    return gradients


def _require_signal(singles: list[tuple[Tensor, ...]]) -> None:
    """Refuse a proof in which a parameter's gradient vanished: zero equals a wrong zero."""
    scales = torch.stack([torch.stack([g.abs().max() for g in single]) for single in singles])
    largest = scales.max(dim=0).values
    if not bool((largest > NEGLIGIBLE * largest.max()).all()):
        raise ValueError("a parameter's gradient vanished, so nothing is proven of it")


def _backward(model: nn.Module, probe: _Probe) -> None:
    images = probe.images.clone().requires_grad_()  # else torch warns of hooks without an input
    F.cross_entropy(model(images), probe.labels).backward()  # type: ignore[no-untyped-call]


def _grad_samples(model: nn.Module) -> list[Tensor]:
    gradients: list[Tensor] = []
    for parameter in _trainable(model):
        found = getattr(parameter, "grad_sample", None)
        if not isinstance(found, Tensor):
            raise ValueError("a parameter has no per-sample gradient")
        gradients.append(found.detach())
    return gradients


def _relative(found: list[Tensor], true: list[Tensor] | tuple[Tensor, ...]) -> float:
    """Return the largest deviation of any tensor, in units of its own largest true value."""
    scales = torch.stack([gradient.abs().max() for gradient in true])
    floor = NEGLIGIBLE * scales.max()
    deviations = torch.stack([(f - t).abs().max() for f, t in zip(found, true, strict=True)])
    return float((deviations / torch.maximum(scales, floor)).max())


@contextmanager
def _hooked(model: nn.Module, kind: type) -> Iterator[GradSampleHooksFastGradientClipping]:
    """Attach Opacus' hooks for one pass, and leave no trace of them."""
    hooks = kind(model)
    try:
        yield hooks
    finally:
        hooks.cleanup()
        model.zero_grad(set_to_none=True)
        for module in model.modules():
            if hasattr(module, "activations"):
                del module.activations
