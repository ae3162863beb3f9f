"""Pictures that have look-alikes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def scene(seed: int, *, quality: int | None = None) -> bytes:
    """Return a picture with detail of every size; with ``quality`` its copy as a smaller JPEG."""
    generator = np.random.default_rng(seed)
    pixels = np.zeros((96, 128), np.float64)
    for side in (4, 8, 16, 32):
        layer = generator.normal(0, 1, (side, side)).astype(np.float32)
        pixels += np.asarray(Image.fromarray(layer).resize((128, 96), Image.Resampling.BICUBIC))
    image = Image.fromarray((128 + 25 * pixels).clip(0, 255).astype(np.uint8))
    target = io.BytesIO()
    if quality is None:
        image.save(target, "PNG")
    else:
        image.resize((102, 77)).save(target, "JPEG", quality=quality)
    return target.getvalue()
