"""Which DICOM modalities a task takes: the model has never seen others (PS3.3 C.7.3.1.1.1)."""

from __future__ import annotations

from collections.abc import Collection

from common.recipe import Recipe

# By the word that a recipe's name or images hold. SC and OT files carry photographs and scans.
_BY_WORD: tuple[tuple[str, frozenset[str]], ...] = (
    ("mammo", frozenset({"MG"})),
    ("ultrasound", frozenset({"US"})),
    ("dermo", frozenset({"XC", "OT", "GM", "DMS", "ES"})),
)


def accepted_modalities(recipe: Recipe, configured: Collection[str] = ()) -> frozenset[str] | None:
    """Return the modalities that a task takes; None where nothing is known: any picture.

    ``configured`` (site.toml, ``[dicom] modalities``) wins over what the recipe's name says.
    """
    if configured:
        return frozenset(configured)
    said = f"{recipe.name} {recipe.images}".lower()
    return next((kinds for word, kinds in _BY_WORD if word in said), None)
