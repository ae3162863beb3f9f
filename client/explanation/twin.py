"""A network of its own for gradients and hooks, made of the weights that serve.

Attribution hangs hooks on layers and asks for gradients. On the serving network either would
reach the predictions of other threads. A twin has modules of its own over the same tensors: it
costs no second set of weights, its hooks are seen by nobody else, and none of its parameters asks
for a gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from common.errors import ModelError

_SEED = 7


@dataclass(frozen=True)
class Twin:
    """A network to explain.

    Attributes
    ----------
    network : nn.Module
        In ``eval()``; images in, logits out, as the served one.
    layer : nn.Module
        The last layer with a spatial output that the logits depend on, (B, C, H, W); of a
        vision transformer the patch tokens, put back on their grid.
    device : torch.device
        Where it computes.
    """

    network: nn.Module
    layer: nn.Module
    device: torch.device


def make_twin(network: nn.Module, side: int) -> Twin:
    """Return a network's twin, and find the layer that Grad-CAM looks at.

    Parameters
    ----------
    network : nn.Module
        A timm network that serves; it is not touched.
    side : int
        Of the images, in pixels.

    Raises
    ------
    ModelError
        With code ``explanation-unsupported``, if no layer has a spatial output.
    """
    twin = _sharing_weights(network).eval()
    device = next(twin.parameters()).device
    layer = _last_spatial(twin, side, device)
    return Twin(twin, layer, device)


class _TokenGrid(nn.Module):
    """A layer of tokens, whose patch tokens also pass ``grid`` as (B, C, H, W)."""

    def __init__(self, layer: nn.Module, prefix: int, side: int) -> None:
        super().__init__()
        self.layer = layer
        self.grid = nn.Identity()
        self._prefix, self._side = prefix, side

    def forward(self, *inputs: Any, **named: Any) -> torch.Tensor:
        """Return what the layer returns."""
        tokens: torch.Tensor = self.layer(*inputs, **named)
        count, _, width = tokens.shape
        shape = (count, width, self._side, self._side)
        patches = tokens[:, self._prefix :].transpose(1, 2).reshape(shape)
        seen = self.grid(patches).flatten(2).transpose(1, 2)
        return torch.cat([tokens[:, : self._prefix], seen], dim=1)


@dataclass(frozen=True)
class _Output:
    name: str
    module: nn.Module
    tensor: torch.Tensor


def _sharing_weights(network: nn.Module) -> nn.Module:
    memory: dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), requires_grad=False) for p in network.parameters()
    }
    memory |= {id(b): b.detach() for b in network.buffers()}
    return copy.deepcopy(network, memory)


def _last_spatial(twin: nn.Module, side: int, device: torch.device) -> nn.Module:
    """Return the last layer whose spatial output moves the logits; prepare it if it has tokens.

    The gradient must not vanish: the patch tokens of a transformer's last block are not read
    where the class token alone is, so its block's first normalisation is what is found.
    """
    outputs, logits = _outputs(twin, side, device)
    generator = torch.Generator().manual_seed(_SEED)
    weights = torch.randn(logits.shape, generator=generator).to(device)
    tensors = [output.tensor for output in outputs]
    gradients = torch.autograd.grad((logits * weights).sum(), tensors, allow_unused=True)
    spatial = _tokens if _has_tokens(twin) else _map
    for output, gradient in zip(reversed(outputs), reversed(gradients), strict=True):
        found = spatial(twin, output.tensor)
        if found is None or gradient is None or not bool(gradient[found].any()):
            continue
        return _gridded(twin, output) if _has_tokens(twin) else output.module
    raise ModelError(
        "No layer of this network keeps where things are in the image.",
        meaning="Grad-CAM cannot say what the answer rests on.",
        action="Ask for integrated-gradients instead.",
        code="explanation-unsupported",
    )


def _outputs(twin: nn.Module, side: int, device: torch.device) -> tuple[list[_Output], Any]:
    """Return what each module put out on a noise image, in the order of their ends."""
    outputs: list[_Output] = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.requires_grad:
                outputs.append(_Output(name, module, output))

        return hook

    with _hooks([(module, note(name)) for name, module in twin.named_modules() if name]):
        noise = torch.randn((1, 3, side, side), generator=torch.Generator().manual_seed(_SEED))
        with torch.enable_grad():
            logits = twin(noise.to(device).requires_grad_())
    return outputs, logits


@contextmanager
def _hooks(wanted: list[tuple[nn.Module, Any]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in wanted]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _has_tokens(twin: Any) -> bool:
    return hasattr(twin, "num_prefix_tokens") and hasattr(twin, "patch_embed")


def _map(_twin: nn.Module, output: torch.Tensor) -> tuple[Any, ...] | None:
    """Return where the spatial part of (B, C, H, W) is; None where there is none."""
    if output.dim() == 4 and output.shape[2] == output.shape[3] and output.shape[2] > 1:
        return (slice(None),)
    return None


def _tokens(twin: Any, output: torch.Tensor) -> tuple[Any, ...] | None:
    """Return where the patch tokens of (B, N, C) are."""
    prefix: int = twin.num_prefix_tokens
    width: int = twin.num_features
    whole = (output.shape[1] - prefix, output.shape[2]) if output.dim() == 3 else None
    if whole == (twin.patch_embed.num_patches, width):
        return (slice(None), slice(prefix, None))
    return None


def _gridded(twin: Any, output: _Output) -> nn.Module:
    parent_name, _, own = output.name.rpartition(".")
    side = round(twin.patch_embed.num_patches**0.5)
    wrapped = _TokenGrid(output.module, twin.num_prefix_tokens, side)
    setattr(twin.get_submodule(parent_name), own, wrapped)
    return wrapped.grid
