"""Imaging devices: how one hospital's pictures differ from another's.

A scanner changes only how a scene is recorded, never what is in it, so it shifts the data of a
site without moving the label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Scanner:
    """One device's fixed settings. The default records a scene as it is.

    Attributes
    ----------
    brightness : float
        Added to every pixel, on the 0-1 scale.
    contrast : float
        Multiplies the distance from mid-grey.
    blur : float
        Standard deviation of the Gaussian blur, in thousandths of the picture's side.
    noise : float
        Standard deviation of white noise, on the 0-1 scale.
    vignette : float
        How much darker the corners are than the centre, 0 to 1.
    field_rotation : float
        Degrees by which the field of view is turned.
    colour_cast : tuple of float
        Gain of red, green and blue; ignored in greyscale.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    blur: float = 0.0
    noise: float = 0.01
    vignette: float = 0.0
    field_rotation: float = 0.0
    colour_cast: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def record(self, scene: Picture, rng: np.random.Generator) -> Picture:
        """Return the scene as this device records it.

        Parameters
        ----------
        scene : ndarray, float32, (S, S) or (S, S, 3)
            Light on the 0-1 scale.
        rng : numpy.random.Generator
            Source of the noise.

        Returns
        -------
        ndarray, float32
            The same shape, clipped to 0-1.
        """
        picture = scene
        if self.field_rotation:
            picture = ndimage.rotate(
                picture, self.field_rotation, axes=(1, 0), reshape=False, order=1, mode="reflect"
            )
        if self.blur:
            sigma = self.blur * scene.shape[0] / 1000.0
            picture = ndimage.gaussian_filter(picture, sigma, axes=(0, 1))
        picture = (picture - 0.5) * self.contrast + 0.5 + self.brightness
        if scene.ndim == 3:
            picture = picture * np.asarray(self.colour_cast, np.float32)
        if self.vignette:
            shade = 1.0 - self.vignette * _squared_radius(scene.shape[0])
            picture = picture * (shade[..., None] if scene.ndim == 3 else shade)
        if self.noise:
            picture = picture + self.noise * rng.standard_normal(scene.shape, np.float32)
        return np.clip(picture, 0.0, 1.0).astype(np.float32)


SCANNERS: tuple[Scanner, ...] = (
    Scanner(noise=0.02),
    Scanner(brightness=0.06, contrast=0.85, blur=8.0, noise=0.01, colour_cast=(1.04, 1.0, 0.92)),
    Scanner(brightness=-0.05, contrast=1.15, noise=0.03, vignette=0.35, field_rotation=8.0),
    Scanner(contrast=0.95, blur=14.0, noise=0.015, vignette=0.2, colour_cast=(0.94, 1.0, 1.06)),
    Scanner(brightness=0.03, contrast=1.1, noise=0.04, field_rotation=-6.0),
)


def scanner_for_site(index: int) -> Scanner:
    """Return the scanner of the site with this number; beyond the fifth they repeat."""
    return SCANNERS[index % len(SCANNERS)]


def _squared_radius(side: int) -> Picture:
    line = np.linspace(-1.0, 1.0, side, dtype=np.float32)
    squares = np.square(line)[:, None] + np.square(line)[None, :]
    return np.asarray(squares / 2.0, np.float32)
