"""The network of a recipe: a timm model, made DP-trainable and exact.

Order matters: build, load weights, THEN convert (`common.dp_layers.convert`), because conversion
renames some parameters and would otherwise drop what was loaded into the replaced layers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import nn

from common.dp_layers import convert, must_stay_frozen
from common.errors import ModelError
from common.model_files import load_tensors, read_safetensors, state_tensors, write_safetensors
from common.recipe import Recipe

__all__ = [
    "Scope",
    "build_model",
    "classifier_names",
    "load_tensors",
    "read_safetensors",
    "set_trainable",
    "state_tensors",
    "write_safetensors",
]

logger = logging.getLogger(__name__)

Scope: TypeAlias = Literal["all", "bias", "head"]

SHORT_NAMES = {
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "mobilenetv2": "mobilenetv2_100",
}


def build_model(
    recipe: Recipe, *, weights: Path | None = None, pretrained: bool | None = None, seed: int = 0
) -> nn.Module:
    """Build a recipe's network, load weights if there are any, and convert it for DP-SGD.

    Parameters
    ----------
    recipe : Recipe
        Its architecture, classes, image size, normalisation and trainable scope are used.
    weights : Path, optional
        A local safetensors file: timm's own for this architecture (a classifier of another class
        count is dropped, with a log line; ViT positions are resampled), or one that Wardround
        wrote.
    pretrained : bool, optional
        Whether timm fetches its published weights; as the recipe says by default, and never when
        ``weights`` is given. Pass False where the tensors come from elsewhere, as at a site.
    seed : int, default 0
        Of the random initialisation: equal seeds give equal models. The process's generators
        (which also draw the privacy noise) are left as they were.

    Returns
    -------
    nn.Module
        On the CPU, float32, in ``train()`` mode. Images in: float32, shape (B, 3, size, size),
        normalised; logits out: shape (B, classes).

    Raises
    ------
    ModelError
        If the architecture is unknown or cannot be made exact, or the weights do not fit.
    """
    fetch = weights is None and (recipe.model.pretrained if pretrained is None else pretrained)
    with _seeded(seed):
        model = _create(recipe, fetch=fetch)
    tensors = _read_weights(weights, model)
    if tensors is not None and tensors.keys() == model.state_dict().keys():
        load_tensors(model, tensors)
        tensors = None
    model = convert(model, normalisation=recipe.model.normalisation)
    if tensors is not None:
        load_tensors(model, tensors)
    set_trainable(model, recipe.model.trainable)
    return model


def set_trainable(model: nn.Module, scope: Scope) -> tuple[str, ...]:
    """Choose which parameters move, and return their names in the model's order.

    ``all`` is every parameter; ``bias`` is biases, normalisation layers and scales with the
    classifier (BiTFiT, Bu et al. 2022, arXiv:2210.00036); ``head`` is the classifier alone.
    Parameters without an exact per-sample gradient (ViT's tokens) stay frozen in every scope.

    Raises
    ------
    ModelError
        If nothing would be left to train.
    """
    head = set(classifier_names(model))
    trainable: list[str] = []
    for prefix, owner in model.named_modules():
        for own_name, parameter in owner.named_parameters(recurse=False):
            name = f"{prefix}.{own_name}" if prefix else own_name
            chosen = scope == "all" or name in head or (scope == "bias" and parameter.dim() == 1)
            moves = chosen and not must_stay_frozen(owner, own_name)
            parameter.requires_grad_(moves)
            parameter.grad = None
            if moves:
                trainable.append(name)
    if not trainable:
        raise ModelError("No parameter is left to train.", code="model-unsupported")
    return tuple(trainable)


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Return the parameter names of the final classifier, as timm's ``get_classifier`` says."""
    classifier: Any = model
    head = classifier.get_classifier()
    if not isinstance(head, nn.Module):
        raise ModelError("The network has no single classifier.", code="model-unsupported")
    own = {id(parameter) for parameter in head.parameters()}
    return tuple(name for name, p in model.named_parameters() if id(p) in own)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the CPU generator alone, and put its state back.

    `torch.manual_seed` would also seed every GPU and leave it so; the privacy noise drawn there
    would then repeat from round to round, and cancel.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _create(recipe: Recipe, *, fetch: bool) -> nn.Module:
    name = SHORT_NAMES.get(recipe.model.architecture, recipe.model.architecture)
    # A plain name of timm's registry: "hf-hub:..." would fetch code's choice of weights.
    if not timm.is_model(name):
        raise ModelError(
            f"timm {timm.__version__} has no network {name!r}.",
            action="Choose one of the recipe's networks.",
            code="model-unknown",
        )
    options: dict[str, Any] = {}
    if "vit" in name.split("_"):
        # A fixed size: timm's dynamic one cannot take the empty batch that Poisson sampling draws.
        options = {"img_size": recipe.image.size, "dynamic_img_size": False}
    try:
        model = timm.create_model(
            name, pretrained=fetch, num_classes=len(recipe.classes), **options
        )
    except (OSError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"The network {name} cannot be built: {reason}.",
            action="Without a way to the weights' registry, give a local safetensors file."
            if fetch
            else "Choose another network or image size.",
            code="model-build",
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} is not a torch network.", code="model-build")
    _check_patches(model, recipe.image.size)
    logger.info("model built architecture=%s pretrained=%s", name, fetch)
    return model


def _check_patches(model: nn.Module, size: int) -> None:
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and any(size % side for side in patch):
        raise ModelError(
            f"An image of {size} pixels does not divide into patches of {patch[0]}.",
            action=f"Choose an image size that is a multiple of {patch[0]}.",
            code="model-build",
        )


def _read_weights(path: Path | None, model: nn.Module) -> dict[str, NDArray[np.generic]] | None:
    """Read a weights file and fit its classifier and ViT positions to the model's."""
    if path is None:
        return None
    tensors = read_safetensors(path)
    state = model.state_dict()
    for name in classifier_names(model):
        if name not in tensors or tensors[name].shape != tuple(state[name].shape):
            found = list(tensors[name].shape) if name in tensors else "nothing"
            logger.warning(
                "classifier dropped tensor=%s found=%s needed=%s",
                name,
                found,
                list(state[name].shape),
            )
            tensors[name] = state[name].numpy().copy()
    positions = tensors.get("pos_embed")
    if positions is not None and "pos_embed" in state:
        tensors["pos_embed"] = _resampled(positions, state["pos_embed"], model)
    return tensors


def _resampled(
    positions: NDArray[np.generic], like: torch.Tensor, model: nn.Module
) -> NDArray[np.generic]:
    if positions.shape == tuple(like.shape) or positions.ndim != 3:
        return positions
    timm_model: Any = model
    try:
        resampled = resample_abs_pos_embed(
            torch.from_numpy(np.array(positions)),
            new_size=list(timm_model.patch_embed.grid_size),
            num_prefix_tokens=like.shape[1] - timm_model.patch_embed.num_patches,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(
            "The positions in the weights file do not fit the network.", code="model-mismatch"
        ) from error
    logger.info("positions resampled from=%d to=%d", positions.shape[1], like.shape[1])
    array: NDArray[np.generic] = resampled.numpy()
    return array
