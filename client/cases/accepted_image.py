"""An image on its way into the case store: without metadata, and with its three digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.review.writing import holds_writing
from common.imaging import DEFAULT_LIMITS, ImageLimits, Pixels, anonymise

_LIKENESS_SIDE = 64
_ROWS, _COLUMNS = np.mgrid[:_LIKENESS_SIDE, :_LIKENESS_SIDE]
_COSINES = np.cos(np.pi * _ROWS * (2 * _COLUMNS + 1) / (2 * _LIKENESS_SIDE))
_LOWEST = np.argsort((_ROWS + _COLUMNS).ravel(), kind="stable")[1:257]


@dataclass(frozen=True)
class AcceptedImage:
    """Bytes that may be stored.

    Attributes
    ----------
    data : bytes
        File bytes without metadata.
    digest : str
        SHA-256 (hex) of ``data``.
    pixels_digest : str
        SHA-256 (hex) of the upright RGB pixels and their shape.
    likeness : str
        Perceptual hash, 256 bits (hex): look-alikes differ in few bits.
    writing : bool
        There seems to be writing in the picture (`client.review.writing`), if that was looked for.
    """

    data: bytes
    digest: str
    pixels_digest: str
    likeness: str
    writing: bool = False


def accept_image(
    data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS, look_for_writing: bool = False
) -> AcceptedImage:
    """Check an image file, and strip what could name the patient.

    Raises
    ------
    ImageRefused
        As for `common.imaging.decode`.
    """
    anonymous = anonymise(data, limits=limits)
    pixels = anonymous.pixels
    return AcceptedImage(
        data=anonymous.data,
        digest=hashlib.sha256(anonymous.data).hexdigest(),
        pixels_digest=pixels_digest(pixels),
        likeness=likeness(pixels),
        writing=look_for_writing and holds_writing(pixels),
    )


def pixels_digest(pixels: Pixels) -> str:
    """Return the SHA-256 (hex) of decoded pixels, uint8 (height, width, 3), and of their shape.

    It is equal for every file, of whatever format, that `common.imaging.decode` reads alike.
    """
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def likeness(pixels: Pixels) -> str:
    """Return the perceptual hash of an image, 64 hex digits.

    The signs of the 256 lowest frequencies (without the mean) of the discrete cosine transform
    of the image, shrunken to 64 x 64 grey: they survive resizing, re-compression and changes of
    brightness, and large dark backgrounds do not make images alike, as they do with differences
    of neighbouring pixels.
    """
    size = (_LIKENESS_SIDE, _LIKENESS_SIDE)
    small = Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.BOX)
    spectrum = _COSINES @ np.asarray(small, np.float64) @ _COSINES.T
    return np.packbits(spectrum.ravel()[_LOWEST] > 0).tobytes().hex()


def likeness_words(hashes: list[str]) -> NDArray[np.uint64]:
    """Return hashes as an array, shape (n, 4), for counting differing bits."""
    raw = bytes.fromhex("".join(hashes))
    return np.frombuffer(raw, ">u8").astype(np.uint64).reshape(len(hashes), 4)
