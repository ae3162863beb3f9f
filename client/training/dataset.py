"""Labelled images grouped by patient, over prepared pixels or the features made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.cases.case import Case
from client.training.pixel_cache import CachedPixels
from common.imaging import Pixels


@dataclass(frozen=True)
class PatientImages:
    """Labelled images, and whose they are.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (M, size, size, 3)
        Usually a memory map, with images that are not used here, too.
    rows : ndarray of int64, shape (N,)
        Row in ``pixels`` of each image used.
    labels : ndarray of int64, shape (N,)
        Class index of each image.
    patients : tuple of ndarray of int64
        For each patient the indices (0 to N - 1) of his or her images.
    features : ndarray of float32, shape (M, D), or None
        What a frozen backbone makes of each row of ``pixels``, where it was computed.
    age_bands, sexes : tuple of str or None
        Of each image's case (`client.cases.case`); empty where nobody asks.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    patients: tuple[NDArray[np.int64], ...]
    features: NDArray[np.float32] | None = None
    age_bands: tuple[str | None, ...] = ()
    sexes: tuple[str | None, ...] = ()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.rows)

    def read(self, indices: NDArray[np.int64]) -> Pixels:
        """Return uint8 (B, size, size, 3) of some images."""
        return np.asarray(self.pixels[self.rows[indices]])

    def read_features(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 (B, D) features of some images; ``features`` must be there."""
        if self.features is None:
            raise ValueError("no features were computed")
        return np.asarray(self.features[self.rows[indices]])


def patient_images(
    cases: Sequence[Case], cached: CachedPixels, classes: Sequence[str]
) -> PatientImages:
    """Group the usable cases by patient, in the order of ``cases``.

    Cases whose label is no class of the recipe, or whose image could not be read, are left out.
    """
    class_of = {name: index for index, name in enumerate(classes)}
    usable = [c for c in cases if c.label in class_of and c.digest in cached.row_of]
    groups: dict[str, list[int]] = {}
    for index, case in enumerate(usable):
        groups.setdefault(case.patient, []).append(index)
    return PatientImages(
        pixels=cached.pixels,
        rows=np.array([cached.row_of[c.digest] for c in usable], dtype=np.int64),
        labels=np.array([class_of[c.label or ""] for c in usable], dtype=np.int64),
        patients=tuple(np.array(group, dtype=np.int64) for group in groups.values()),
        age_bands=tuple(c.age_band for c in usable),
        sexes=tuple(c.sex for c in usable),
    )
