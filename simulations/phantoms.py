"""Phantom hospitals: synthetic patients with a real, learnable signal and no real data."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import ConfigurationError
from common.recipe import Recipe
from simulations.lesions import LesionStyle, between, style_for, vary
from simulations.scanners import SCANNERS, Picture, Scanner, scanner_for_site
from simulations.scenes import scene_for

__all__ = [
    "SCANNERS",
    "PhantomCase",
    "Scanner",
    "phantom_hospital",
    "scanner_for_site",
    "write_phantom_folder",
]

MINIMUM_SIDE = 48


@dataclass(frozen=True)
class PhantomCase:
    """One synthetic image. ``image`` holds PNG bytes, ``age`` is in years."""

    image: bytes
    label: str
    patient_id: str
    age: int
    sex: str


def phantom_hospital(
    recipe: Recipe,
    scanner: Scanner,
    patients: int,
    rng: np.random.Generator,
    class_mix: Mapping[str, float] | None = None,
    *,
    size: int | None = None,
    most_images: int = 3,
    patient_prefix: str = "P",
    atypical: float = 0.15,
) -> Iterator[PhantomCase]:
    """Draw the patients of one hospital, each with one lesion seen one or more times.

    Parameters
    ----------
    recipe : Recipe
        Its classes, and the kind of image to draw.
    scanner : Scanner
        The hospital's device.
    patients : int
        How many patients, at least 0.
    rng : numpy.random.Generator
        Everything is drawn from it: the same seed gives the same bytes.
    class_mix : mapping of str to float, optional
        Relative frequency of each class; equal when absent, 0 for a class that it leaves out.
        Counts follow it as closely as whole patients allow.
    size : int, optional
        Side in pixels, at least 48; the recipe's image size when absent.
    most_images : int, default 3
        Most images of one patient; each number from 1 to this is equally likely.
    patient_prefix : str, default "P"
        Begins each patient's id, so that several hospitals can share one table.
    atypical : float, default 0.15
        Mean share of another class in a lesion's look, from 0 (classes hardly overlap) to below
        1.

    Yields
    ------
    PhantomCase
        Patients in random order, the images of one patient one after another.

    Raises
    ------
    ConfigurationError
        If a number is too small, or ``class_mix`` names an unknown class or is all zero.
    """
    if patients < 0 or most_images < 1 or not 0 <= atypical < 1:
        raise ConfigurationError(
            "A phantom hospital needs patients >= 0, most_images >= 1 and 0 <= atypical < 1."
        )
    side = max(MINIMUM_SIDE, size or recipe.image.size)
    scene = scene_for(recipe)
    for number, index in enumerate(_labels(recipe.classes, patients, class_mix, rng)):
        label = recipe.classes[index]
        lesion = _lesion_of_patient(recipe, index, atypical, rng)
        harmful = label in recipe.decision.positive_classes
        age = int(np.clip(rng.normal(62 if harmful else 54, 14), 18, 95))
        sex = "female" if _always_female(recipe) or rng.random() < 0.5 else "male"
        for _ in range(int(rng.integers(1, most_images + 1))):
            picture = scanner.record(scene(lesion, side, rng), rng)
            yield PhantomCase(_png(picture), label, f"{patient_prefix}{number:05d}", age, sex)


def write_phantom_folder(
    folder: Path,
    recipe: Recipe,
    scanner: Scanner,
    patients: int,
    rng: np.random.Generator,
    *,
    class_mix: Mapping[str, float] | None = None,
    size: int | None = None,
    most_images: int = 3,
    patient_prefix: str = "P",
    site: str = "",
) -> int:
    """Write a phantom hospital as a folder that `wardround site import` reads.

    The folder holds ``images/*.png`` and ``labels.csv`` with the columns file, label,
    patient_id, site, age, sex. Written into a folder that already has a ``labels.csv``, it adds
    another hospital to it. The other parameters are those of `phantom_hospital`.

    Returns
    -------
    int
        Images written.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    table = folder / "labels.csv"
    new = not table.exists()
    count = 0
    cases = phantom_hospital(
        recipe,
        scanner,
        patients,
        rng,
        class_mix,
        size=size,
        most_images=most_images,
        patient_prefix=patient_prefix,
    )
    with table.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if new:
            writer.writerow(["file", "label", "patient_id", "site", "age", "sex"])
        for count, case in enumerate(cases, start=1):
            name = f"images/{patient_prefix}{count:06d}.png"
            (folder / name).write_bytes(case.image)
            writer.writerow([name, case.label, case.patient_id, site, case.age, case.sex])
    return count


def _lesion_of_patient(
    recipe: Recipe, index: int, atypical: float, rng: np.random.Generator
) -> LesionStyle:
    """Draw one patient's look: the class's own, part of the way to another class's."""
    other = (index + 1 + int(rng.integers(len(recipe.classes) - 1))) % len(recipe.classes)
    # Beta with this mean and a fixed shape of 1.5: most lesions are typical, a few mislead.
    share = float(rng.beta(1.5, 1.5 * (1 - atypical) / atypical)) if atypical > 0 else 0.0
    own = style_for(recipe.classes[index], index)
    return vary(between(own, style_for(recipe.classes[other], other), share), rng)


def _labels(
    classes: tuple[str, ...],
    patients: int,
    mix: Mapping[str, float] | None,
    rng: np.random.Generator,
) -> list[int]:
    """Return a class index for each patient, in random order, in the wanted proportions."""
    if mix is not None and not set(mix) <= set(classes):
        raise ConfigurationError(
            f"class_mix names unknown classes {sorted(set(mix) - set(classes))}."
        )
    weights = np.array([1.0 if mix is None else mix.get(name, 0.0) for name in classes])
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise ConfigurationError("class_mix needs finite weights >= 0, and one above 0.")
    wanted = weights / weights.sum() * patients
    counts = np.floor(wanted).astype(int)
    order = np.argsort(-(wanted - counts), kind="stable")
    counts[order[: patients - int(counts.sum())]] += 1
    labels = np.repeat(np.arange(len(classes)), counts)
    rng.shuffle(labels)
    return [int(label) for label in labels]


def _always_female(recipe: Recipe) -> bool:
    return "breast" in recipe.title.lower()


def _png(picture: Picture) -> bytes:
    pixels = np.rint(picture * 255.0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
