"""A few figures of a prepared image, cheap enough to be kept with every answer.

None says what is on an image; together they say how it was taken: exposure, contrast, colour,
focus, noise, vignetting and shape. They are rounded, so that a kept figure equals a fresh one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DIGITS = 6
GRID, MIDDLE = 128, 160
"""Colours are those of a grid of about so many pixels a side, focus and noise of the middle."""

DARK, BRIGHT = 5, 250
_LEVELS = np.arange(256, dtype=np.float64) / 255.0

IMAGE_STATISTICS: tuple[str, ...] = (
    "red-mean", "green-mean", "blue-mean",
    "red-deviation", "green-deviation", "blue-deviation",
    "colour", "dark-share", "bright-share", "entropy",
    "sharpness", "grain", "border-darkness", "aspect",
)  # fmt: skip
"""Names of the figures, in their order.

Means and deviations are on the 0-1 scale. ``colour`` is the mean distance of red and blue from
green. ``dark-share`` and ``bright-share`` are the shares of pixels near black and near white,
``entropy`` (bits) that of the grey histogram. ``sharpness`` is the log of the mean squared second
difference, ``grain`` the standard deviation of noise (Immerkaer 1996, doi:10.1006/cviu.1996.0060).
``border-darkness`` is how much darker the outer eighth is than the middle. ``aspect`` is the log of
width by height of the picture inside its black bars, which count for no other figure.
"""

_ASPECT_ALONE = (0.0,) * (len(IMAGE_STATISTICS) - 1)


def image_statistics(pixels: NDArray[np.uint8]) -> tuple[float, ...]:
    """Return the figures of `IMAGE_STATISTICS`.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (S, S, 3)
        As from `common.imaging.prepare`.

    Returns
    -------
    tuple of float
        Finite, rounded to `DIGITS` decimals; a wholly black picture has zeros alone.
    """
    top, bottom, left, right = _content(pixels)
    height, width = bottom - top, right - left
    if min(height, width) < 3:
        return (*_ASPECT_ALONE, 0.0)
    picture = pixels[top:bottom, left:right]
    thin = np.ascontiguousarray(_thinned(picture))
    image = Image.fromarray(thin)
    counts = np.array(image.histogram(), dtype=np.float64).reshape(3, 256)
    shares = counts / counts.sum(axis=1, keepdims=True)
    means = shares @ _LEVELS
    deviations = np.sqrt(np.maximum(shares @ _LEVELS**2 - means**2, 0.0))
    grey_image = Image.fromarray(np.ascontiguousarray(_middle(picture))).convert("L")
    grey_shares = np.array(grey_image.histogram(), dtype=np.float64) / math.prod(grey_image.size)
    grey = np.asarray(grey_image)
    figures = (
        *means,
        *deviations,
        _colour(thin),
        grey_shares[: DARK + 1].sum(),
        grey_shares[BRIGHT:].sum(),
        _entropy(grey_shares),
        *_detail(grey),
        _border_darkness(thin),
        math.log(width / height),
    )
    return tuple(round(float(figure), DIGITS) for figure in figures)


def _content(pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Return top, bottom, left, right of what lies inside black bars."""
    wide = pixels.reshape(pixels.shape[0], -1)
    rows = np.flatnonzero(wide.max(axis=1))
    columns = np.flatnonzero(wide.max(axis=0)) // 3
    if not rows.size:
        return 0, 0, 0, 0
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _thinned(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    step = -(-max(picture.shape[:2]) // GRID)
    return picture[::step, ::step]


def _middle(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    top, left = max(0, height - MIDDLE) // 2, max(0, width - MIDDLE) // 2
    return picture[top : top + MIDDLE, left : left + MIDDLE]


def _colour(thin: NDArray[np.uint8]) -> float:
    red, green, blue = np.ascontiguousarray(thin[::2, ::2].reshape(-1, 3).T, dtype=np.int16)
    apart = int(np.abs(red - green).sum()) + int(np.abs(blue - green).sum())
    return apart / (510.0 * int(green.size))


def _entropy(shares: NDArray[np.float64]) -> float:
    some = shares[shares > 0]
    return float(-(some * np.log2(some)).sum())


def _detail(grey: NDArray[np.uint8]) -> tuple[float, float]:
    """Return sharpness and grain."""
    values = grey.astype(np.int16)
    across = values[:, 2:] - 2 * values[:, 1:-1] + values[:, :-2]
    down = values[2:] - 2 * values[1:-1] + values[:-2]
    both = across[2:] - 2 * across[1:-1] + across[:-2]
    squares = _mean_square(across) + _mean_square(down)
    noise = math.sqrt(math.pi / 2.0) / 6.0 * float(np.abs(both).mean())
    return math.log1p(squares), noise / 255.0


def _mean_square(values: NDArray[np.int16]) -> float:
    flat = values.astype(np.float32).ravel()
    return float(flat @ flat) / flat.size


def _border_darkness(thin: NDArray[np.uint8]) -> float:
    green = thin[..., 1]
    height, width = green.shape
    inside = green[height // 8 : height - height // 8, width // 8 : width - width // 8]
    centre = green[height // 4 : height - height // 4, width // 4 : width - width // 4]
    outer = green.size - inside.size
    if outer == 0 or centre.size == 0:
        return 0.0
    edge = (int(green.sum(dtype=np.int64)) - int(inside.sum(dtype=np.int64))) / outer
    return (float(centre.mean()) - edge) / 255.0
