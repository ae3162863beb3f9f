"""A heat map drawn on the picture as it was uploaded, where the network saw it.

The colours are viridis (van der Walt and Smith 2015): brightness rises evenly with heat, so that
it is read the same by colour-blind people and in grey. A line, light beside dark, runs where the
heat is half its greatest. Outside the region that the network saw, the picture is dimmed.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.explanation.methods import Heat
from common.imaging import Pixels, Placement

LONGEST, SHORTEST = 768, 256
"""The drawn picture's longer side is between these, in pixels."""
STRENGTH = 0.65
"""How much of the picture the hottest place hides."""
_DIMMED = 0.5
_HALF = 0.5

# Nine of viridis' 256 colours, from 0 to 1 in steps of 1/8.
VIRIDIS = np.array(
    [
        *((68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141)),
        *((39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37)),
    ],
    np.float32,
)


def draw(pixels: Pixels, heat: Heat, where: Placement) -> Pixels:
    """Draw a heat map on a picture.

    Parameters
    ----------
    pixels : ndarray of uint8, (H, W, 3)
        The whole picture, upright.
    heat : ndarray of float32, (S, S)
        Over the network's square, in [0, 1].
    where : Placement
        Of the picture in the square.

    Returns
    -------
    ndarray of uint8, (h, w, 3)
        In the picture's proportions, 256 to 768 pixels along its longer side.
    """
    height, width = pixels.shape[:2]
    longer = max(height, width)
    scale = min(LONGEST, max(SHORTEST, longer)) / longer
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    drawn = np.asarray(picture).astype(np.float32)
    top, bottom, left, right = (
        min(limit, round(edge * scale))
        for edge, limit in zip(where.region, (size[1], size[1], size[0], size[0]), strict=True)
    )
    seen = (slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1)))
    within = drawn[seen]
    hot = _fitted(heat, where, within.shape[:2])
    outside = np.ones(drawn.shape[:2], bool)
    outside[seen] = False
    drawn[outside] *= _DIMMED
    share = STRENGTH * hot[..., None]
    drawn[seen] = _contoured(within * (1 - share) + colours(hot) * share, hot)
    return np.rint(drawn).clip(0, 255).astype(np.uint8)


def colours(heat: Heat) -> NDArray[np.float32]:
    """Return viridis' colours of heat in [0, 1], (..., 3) in [0, 255]."""
    place = np.clip(heat, 0, 1) * (len(VIRIDIS) - 1)
    below = np.minimum(place.astype(int), len(VIRIDIS) - 2)
    part = (place - below)[..., None].astype(np.float32)
    mixed: NDArray[np.float32] = VIRIDIS[below] * (1 - part) + VIRIDIS[below + 1] * part
    return mixed


def png(pixels: Pixels) -> bytes:
    """Write a picture as PNG, without any metadata."""
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG", compress_level=6)
    return target.getvalue()


def _fitted(heat: Heat, where: Placement, shape: tuple[int, ...]) -> Heat:
    top, bottom, left, right = where.inner
    inner = Image.fromarray(np.ascontiguousarray(heat[top:bottom, left:right], np.float32))
    wide = inner.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.clip(np.asarray(wide, np.float32), 0, 1)


def _contoured(drawn: NDArray[np.float32], heat: Heat) -> NDArray[np.float32]:
    hot = heat >= _HALF
    grown = _grown(hot)
    drawn[grown & ~hot] = 255
    drawn[_grown(grown) & ~grown] = 0
    return drawn


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    wide = np.pad(mask, 1)
    neighbours = (wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:])
    grown: NDArray[np.bool_] = np.logical_or.reduce((mask, *neighbours))
    return grown
