"""One clinical task: all parts of a recipe together, and what two ends must agree on."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

import tomli_w
from pydantic import Field, ValidationError, model_validator

from common.recipe.aggregation import AggregationName
from common.recipe.display import DisplayNames
from common.recipe.faults import recipe_error
from common.recipe.federation import AlgorithmName, FederationSpec, LocalLayers, RoundsMode
from common.recipe.images import Augmentation, ImageSpec
from common.recipe.network import ModelSpec
from common.recipe.part import Part
from common.recipe.release_gate import DecisionSpec, ReleaseGateSpec
from common.recipe.training import LocalTraining, LossSpec, NonPrivateExtras, PrivacySpec

_COORDINATORS_CHOICE = (
    *("title", "source", "model", "training", "without_privacy"),
    *("privacy", "federation", "release"),
)


class Recipe(Part):
    """One clinical task. See each part for its meaning and units.

    ``display`` has the words in which pages name a class, for those whose own name is a code.
    It is no part of what the recipe means: neither the digest nor `allows` looks at it.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    title: str
    images: str
    source: str = ""
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=1000)]
    optional_classes: tuple[str, ...] = ()
    image: ImageSpec
    model: ModelSpec
    augmentation: Augmentation = Augmentation()
    loss: LossSpec = LossSpec()
    training: LocalTraining = LocalTraining()
    without_privacy: NonPrivateExtras = NonPrivateExtras()
    privacy: PrivacySpec = PrivacySpec()
    federation: FederationSpec = FederationSpec()
    decision: DecisionSpec
    release: ReleaseGateSpec = ReleaseGateSpec()
    display: DisplayNames = ()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a class is named twice")
        if self.loss.class_weights and len(self.loss.class_weights) != len(self.classes):
            raise ValueError("loss.class_weights: one weight a class, or none")
        unknown = set(self.decision.positive_classes) - set(self.classes)
        if unknown:
            raise ValueError(f"decision.positive_classes: unknown {sorted(unknown)}")
        named = [name for name, _ in self.display]
        unknown = set(named) - {*self.classes, *self.optional_classes}
        if unknown or len(set(named)) != len(named):
            raise ValueError(f"display: unknown or named twice {sorted(unknown or named)}")
        return self

    @classmethod
    def checked(cls, data: dict[str, object], *, origin: str) -> Recipe:
        """Return the recipe that parsed TOML means; ``origin`` says in errors where it came from.

        Raises
        ------
        RecipeError
            If it breaks a rule; the message names the field.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise recipe_error(error, origin) from error

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON, so that two ends can tell that they agree.

        Without ``display``, which changes words and no meaning.
        """
        return hashlib.sha256(self.model_dump_json(exclude={"display"}).encode()).hexdigest()

    def display_name(self, name: str) -> str:
        """Return how a page names a class: ``Melanoma (mel)``, or the bare name without words."""
        words = dict(self.display).get(name)
        if words is None:
            return name
        return words if name.lower() in words.lower().split() else f"{words} ({name})"

    def allows(self, other: Recipe) -> bool:
        """Tell whether ``other`` is this task, at most with another of its networks.

        A coordinator may choose the network (this recipe's own or one of its alternatives), the
        image size, and all that concerns its own side: rounds, optimizers, limits, thresholds.
        What an image, a class and a patient's loss mean must be the same.
        """
        if other.model.architecture not in (self.model.architecture, *self.model.alternatives):
            return False
        return self._meaning() == other._meaning()

    def _meaning(self) -> str:
        data = self.model_dump()
        for part in _COORDINATORS_CHOICE:
            del data[part]
        data.pop("display", None)
        del data["image"]["size"], data["decision"]["threshold"]
        return json.dumps(data, sort_keys=True)

    def toml(self) -> str:
        """Return the recipe as TOML that `parse_recipe` reads back."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def with_changes(
        self,
        *,
        model: str | None = None,
        image_size: int | None = None,
        rounds: int | None = None,
        epsilon: float | None = None,
        normalisation: Literal["group", "frozen"] | None = None,
        aggregation: AggregationName | None = None,
        algorithm: AlgorithmName | None = None,
        local_layers: LocalLayers | None = None,
        mode: RoundsMode | None = None,
        buffer_size: int | None = None,
        site_rounds: int | None = None,
        quorum: int | None = None,
    ) -> Recipe:
        """Return the recipe with the parts that the command line may override.

        Raises
        ------
        RecipeError
            If the changed recipe breaks a rule.
        """
        data = self.model_dump()
        federation = data["federation"]
        for part, field, value in (
            (data["model"], "architecture", model),
            (data["model"], "normalisation", normalisation),
            (data["image"], "size", image_size),
            (data["privacy"], "epsilon", epsilon),
            (federation["aggregation"], "name", aggregation),
            (federation, "rounds", rounds),
            (federation, "algorithm", algorithm),
            (federation, "local_layers", local_layers),
            (federation, "mode", mode),
            (federation, "buffer_size", buffer_size),
            (federation, "site_rounds", site_rounds),
            (federation, "quorum", quorum),
        ):
            if value is not None:
                part[field] = value
        return Recipe.checked(data, origin=f"recipe {self.name} with changes")
