"""A stored picture for a reader's screen."""

from __future__ import annotations

import numpy as np
from PIL import Image

from common.imaging import decode, encode_png


def screen_png(data: bytes, *, side: int) -> bytes:
    """Return a stored image as PNG, its longer side at most ``side`` pixels.

    It is written anew from its pixels, so whatever else the file held is not in it.

    Raises
    ------
    ImageRefused
        If the bytes are no image; what was stored is.
    """
    pixels = decode(data)
    image = Image.fromarray(pixels)
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return encode_png(np.asarray(image))
