"""Which DICOM modalities a task takes: the model has never seen others (PS3.3 C.7.3.1.1.1)."""

from __future__ import annotations

from collections.abc import Collection

from client.dicom.decoder import DicomDecoder
from client.dicom.intake import DicomIntake
from client.dicom.picture import DicomLimits
from client.settings import SiteSettings
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


def make_intake(settings: SiteSettings, recipe: Recipe | None) -> DicomIntake:
    """Return a site's intake; its decoding process starts with the first DICOM file."""
    table = settings.dicom
    modalities: Collection[str] | None = table.modalities or None
    if recipe is not None:
        modalities = accepted_modalities(recipe, table.modalities)
    decoder = DicomDecoder(limits=DicomLimits(bytes=table.maximum_bytes))
    return DicomIntake(decoder, modalities, table.burned_in)
