"""Which network a recipe trains."""

from __future__ import annotations

from typing import Literal

from common.recipe.part import Part


class ModelSpec(Part):
    """The timm network. ``alternatives`` may be chosen instead with ``--model``.

    ``normalisation``: ``group`` replaces BatchNorm by GroupNorm (from scratch); ``frozen`` keeps
    pretrained BatchNorm features with frozen statistics. ``trainable`` says which parameters
    move: everything, norms and biases with the head (BiTFiT), or the head alone.
    """

    architecture: str
    alternatives: tuple[str, ...] = ()
    pretrained: bool = False
    normalisation: Literal["group", "frozen"] = "group"
    trainable: Literal["all", "bias", "head"] = "all"
