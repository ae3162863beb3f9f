"""Placeholder, replaced below."""
from __future__ import annotations
import numpy as np
from numpy.typing import NDArray
def tissue_region(pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    return 0, pixels.shape[0], 0, pixels.shape[1]
