"""Model tensors in and out: numpy snapshots and safetensors files. Never pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy
from torch import nn

from common.errors import ModelError
from common.recipe import Recipe


def state_tensors(model: nn.Module) -> dict[str, NDArray[np.generic]]:
    """Return the whole state (parameters and buffers) as numpy copies, by state_dict name.

    Later training of the model does not change what was returned.
    """
    return {
        name: np.array(tensor.detach().cpu().numpy(), copy=True, order="C")
        for name, tensor in model.state_dict().items()
    }


def load_tensors(model: nn.Module, tensors: Mapping[str, NDArray[np.generic]]) -> None:
    """Copy tensors into a model; all or nothing.

    Parameters
    ----------
    model : nn.Module
        As `common.model.build_model` made it.
    tensors : mapping of str to ndarray
        Exactly the names and shapes of `state_tensors`; floating values are cast to the model's
        dtype. They are copied, never aliased.

    Raises
    ------
    ModelError
        With code ``model-mismatch`` if a name, shape or kind of number differs, and
        ``model-not-finite`` if a value is NaN or infinite. The model is then unchanged.
    """
    state = model.state_dict()
    missing, unknown = sorted(state.keys() - tensors.keys()), sorted(tensors.keys() - state.keys())
    if missing or unknown:
        raise ModelError(
            f"The tensors are of another network: {len(missing)} missing (such as "
            f"{missing[:1] or 'none'}), {len(unknown)} unknown (such as {unknown[:1] or 'none'}).",
            action="Use weights made with the same recipe and network.",
            code="model-mismatch",
        )
    checked = {name: _checked(name, tensors[name], state[name]) for name in state}
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(checked[name])


def _checked(name: str, array: NDArray[np.generic], like: torch.Tensor) -> torch.Tensor:
    floating = like.is_floating_point()
    fits = array.dtype.kind in ("f" if floating else "iu") and array.dtype.itemsize <= 8
    if tuple(array.shape) != tuple(like.shape) or not fits:
        raise ModelError(
            f"The tensor {name} is {array.dtype}{list(array.shape)} where the network has "
            f"{str(like.dtype).removeprefix('torch.')}{list(like.shape)}.",
            action="Use weights made with the same recipe and network.",
            code="model-mismatch",
        )
    native = np.array(array, dtype=array.dtype.newbyteorder("="), copy=True, order="C")
    tensor = torch.from_numpy(native).to(like.dtype)
    # After the cast: a float64 may be finite, and too large for the model's float32.
    if floating and not bool(torch.isfinite(tensor).all()):
        raise ModelError(
            f"The tensor {name} holds a value that is not finite.",
            meaning="Training that made it diverged, or the file is damaged.",
            code="model-not-finite",
        )
    return tensor


def read_safetensors(path: Path) -> dict[str, NDArray[np.generic]]:
    """Read a safetensors file.

    Raises
    ------
    ModelError
        With code ``model-file`` if it is absent, unreadable, damaged or of an unknown number type.
    """
    try:
        tensors: dict[str, NDArray[np.generic]] = safetensors_numpy.load(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"The model file {path} cannot be read: {error.strerror or error}.",
            action="Check the path and its permissions.",
            code="model-file",
        ) from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file: {error}.",
            action="Fetch it again.",
            code="model-file",
        ) from error
    return tensors


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[np.generic]]) -> None:
    """Write a safetensors file, so that after a crash either the old or the new one is there.

    Raises
    ------
    ModelError
        With code ``model-file`` if the disk refuses; the old file is then untouched.
    """
    content = safetensors_numpy.save(
        {name: np.array(array, copy=True, order="C") for name, array in tensors.items()}
    )
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ModelError(
            f"The model file {path} cannot be written: {error.strerror or error}.",
            action="Check the folder and the free space.",
            code="model-file",
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable (POSIX: the name lives in the folder's own blocks)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def holds_batch_norm(path: Path) -> bool:
    """Tell whether a safetensors file holds BatchNorm statistics, as pretrained networks' do.

    Raises
    ------
    ModelError
        If it is absent or no safetensors file.
    """
    return any(name.endswith(".running_mean") for name in read_safetensors(path))


def keeping_batch_norm(recipe: Recipe, weights: Path | None) -> Recipe:
    """Return the recipe for a campaign that starts from a file: its BatchNorm is kept, frozen.

    The recipe as it is where the file holds no BatchNorm statistics, or there is no file. Whoever
    builds the campaign's network needs this recipe, not the one that it was made of.

    Raises
    ------
    ModelError
        If the file is absent or no safetensors file.
    """
    if weights is None or not holds_batch_norm(weights):
        return recipe
    return recipe.with_changes(normalisation="frozen")
