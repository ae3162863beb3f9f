"""A recipe: the typed, frozen description of one clinical task, read from TOML.

Training, evaluation, release and inference all follow from it. Adding a disease is one TOML
file beside the four in ``common/recipes/``.
"""

from __future__ import annotations

from common.recipe.aggregation import AggregationName, AggregationSpec, ServerOptimizer
from common.recipe.federation import (
    AlgorithmName,
    FederationSpec,
    LocalLayer,
    LocalLayers,
    RoundsMode,
)
from common.recipe.images import Augmentation, ImageSpec
from common.recipe.network import ModelSpec
from common.recipe.part import Fraction
from common.recipe.reading import load_recipe, parse_recipe, shipped_recipes
from common.recipe.release_gate import DecisionSpec, ReleaseGateSpec
from common.recipe.task import Recipe
from common.recipe.training import (
    SMALLEST_CLIP,
    LocalTraining,
    LossSpec,
    NonPrivateExtras,
    PrivacySpec,
)

__all__ = [
    "SMALLEST_CLIP",
    "AggregationName",
    "AggregationSpec",
    "AlgorithmName",
    "Augmentation",
    "DecisionSpec",
    "FederationSpec",
    "Fraction",
    "ImageSpec",
    "LocalLayer",
    "LocalLayers",
    "LocalTraining",
    "LossSpec",
    "ModelSpec",
    "NonPrivateExtras",
    "PrivacySpec",
    "Recipe",
    "ReleaseGateSpec",
    "RoundsMode",
    "ServerOptimizer",
    "load_recipe",
    "parse_recipe",
    "shipped_recipes",
]
