"""The pages on settings and recipes name every field, and no field that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from client.settings import SiteSettings
from common.recipe import (
    AggregationSpec,
    Augmentation,
    DecisionSpec,
    FederationSpec,
    ImageSpec,
    LocalTraining,
    LossSpec,
    ModelSpec,
    NonPrivateExtras,
    PrivacySpec,
    Recipe,
    ReleaseGateSpec,
    ServerOptimizer,
    parse_recipe,
)
from server.settings import CoordinatorSettings

DOCS = Path(__file__).parent.parent / "docs"
PARTS: tuple[type[BaseModel], ...] = (
    *(Recipe, ImageSpec, ModelSpec, Augmentation, LossSpec, LocalTraining, NonPrivateExtras),
    *(PrivacySpec, FederationSpec, AggregationSpec, ServerOptimizer, DecisionSpec),
    ReleaseGateSpec,
)


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def named(cells: str) -> set[str]:
    return {name.split(".")[-1] for name in re.findall(r"`\[?([a-z_.]+)\]?`", cells)}


def first_column(table: str) -> set[str]:
    cells = "\n".join(line.split("|")[1] for line in table.splitlines() if line[:3] == "| `")
    return named(re.sub(r"\([^)]*\)", "", cells))  # without defaults


@pytest.mark.parametrize(
    ("heading", "settings"),
    [("site.toml", SiteSettings), ("coordinator.toml", CoordinatorSettings)],
)
def test_every_setting_has_its_line_and_no_other(heading: str, settings: type[BaseModel]) -> None:
    told = first_column(section((DOCS / "settings.md").read_text(), heading))
    assert told == set(settings.model_fields) - {"folder"}


def test_every_field_of_a_recipe_is_named() -> None:
    told = named(section((DOCS / "recipes.md").read_text(), "Fields"))
    fields = {name for part in PARTS for name in part.model_fields}
    assert fields - told == set()


def test_the_smallest_recipe_of_the_page_is_one() -> None:
    page = (DOCS / "recipes.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    recipe = parse_recipe(example, origin="docs/recipes.md")
    assert (recipe.name, recipe.federation.rounds, recipe.privacy.trainable) == (
        *("chest-xray", 5),
        "all",
    )
