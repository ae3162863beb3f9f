"""Layers that stay at their site: which parameters of a network they are.

``normalisation`` is FedBN (Li et al. 2021, arXiv:2102.07623): pictures of different scanners differ
in contrast and colour more than in what they show, and a network takes much of that up in the
scales and shifts of its normalisation layers. Averaged over hospitals these fit none. FedBN's are
BatchNorm's; here, where no statistics of a batch are allowed, they are those of group and layer
normalisation. ``head`` is FedPer (Arivazhagan et al. 2019, arXiv:1912.00818): the classifier.

Both ends ask this module, so that what a site leaves out is what its coordinator does not expect.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from common.model import classifier_names
from common.recipe import LocalLayers

_NORMALISATION = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def local_names(model: nn.Module, kinds: LocalLayers) -> frozenset[str]:
    """Return the names of the parameters that stay at the site.

    Parameters
    ----------
    model : nn.Module
        From `common.model.build_model`.
    kinds : tuple of {"normalisation", "head"}
        The recipe's; none for a network that is shared whole.

    Returns
    -------
    frozenset of str
        Whether they move or not. Frozen BatchNorm has none: its scales are constants.
    """
    found: set[str] = set()
    if "normalisation" in kinds:
        for prefix, module in model.named_modules():
            if isinstance(module, _NORMALISATION):
                found |= {
                    f"{prefix}.{name}" if prefix else name
                    for name, _ in module.named_parameters(recurse=False)
                }
    if "head" in kinds:
        found |= set(classifier_names(model))
    return frozenset(found)


def shared_names(names: Iterable[str], model: nn.Module, kinds: LocalLayers) -> tuple[str, ...]:
    """Return those of ``names`` that travel, in their order."""
    staying = local_names(model, kinds)
    return tuple(name for name in names if name not in staying)
