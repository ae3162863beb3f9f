"""What is kept of an answer so that drift can be seen later: no pixel, and no feature itself.

The layout is the image's figures, then `PROJECTIONS` random projections of the features, then
the network's class probabilities before any calibration at the site (which may change while
the network does not).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from client.monitoring.input_statistics import DIGITS, IMAGE_STATISTICS, image_statistics

PROJECTIONS = 16
INPUTS = len(IMAGE_STATISTICS)


def answer_statistics(
    pixels: NDArray[np.uint8], logits: NDArray[np.floating], features: NDArray[np.floating]
) -> tuple[float, ...]:
    """Return the figures that `client.monitoring.drift` compares with the reference.

    Parameters
    ----------
    pixels : ndarray of uint8, (S, S, 3)
        As from `common.imaging.prepare`.
    logits : ndarray of float, (K,)
        The network's, before a site's temperature.
    features : ndarray of float, (D,)
        What the classifier sees.

    Returns
    -------
    tuple of float
        ``INPUTS + PROJECTIONS + K`` figures.
    """
    rest = network_statistics(np.asarray(logits)[None], np.asarray(features)[None])
    return (*image_statistics(pixels), *rest[0].tolist())


def network_statistics(
    logits: NDArray[np.floating], features: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return projections and probabilities of N answers, float64 (N, PROJECTIONS + K)."""
    wide = np.asarray(features, dtype=np.float64)
    projected = wide @ projection(wide.shape[1]) / np.sqrt(wide.shape[1])
    values = np.asarray(logits, dtype=np.float64)
    odds = np.exp(values - values.max(axis=1, keepdims=True))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    found: NDArray[np.float64] = np.round(np.hstack([projected, probabilities]), DIGITS)
    return found


@lru_cache(maxsize=4)
def projection(features: int) -> NDArray[np.float64]:
    """Return the fixed matrix of signs, float64 (features, PROJECTIONS).

    Random signs keep distances between samples about as they are (Achlioptas 2003,
    doi:10.1016/S0022-0000(03)00025-4). They follow from the number of features alone and not
    from data: principal components of a small reference would make every later sample look
    narrower than it. SHAKE-256 draws them, the same on every machine and for ever.
    """
    stream = hashlib.shake_256(f"wardround drift projection {features}".encode())
    drawn = np.frombuffer(stream.digest(features * PROJECTIONS // 8), dtype=np.uint8)
    signs = np.unpackbits(drawn).astype(np.float64) * 2.0 - 1.0
    return signs.reshape(features, PROJECTIONS)
