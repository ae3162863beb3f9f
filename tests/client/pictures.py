"""Pictures for tests; imports nothing heavy."""

import io

import numpy as np
from PIL import Image


def picture(label: int, generator: np.random.Generator) -> bytes:
    """A dark square of noise; of class 1 with a bright patch. PNG bytes."""
    pixels = generator.integers(0, 90, (36, 36, 3), dtype=np.uint8)
    if label:
        pixels[8:28, 8:28] += 120
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
