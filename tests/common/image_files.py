"""Pictures as files of every format, and the code of what is refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from common.errors import ImageRefused


def picture(height: int = 24, width: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def png(pixels: NDArray[np.generic] | None = None, **options: object) -> bytes:
    return save(Image.fromarray(picture() if pixels is None else pixels), "PNG", **options)


def jpeg(pixels: NDArray[np.uint8] | None = None, **options: object) -> bytes:
    return save(Image.fromarray(picture() if pixels is None else pixels), "JPEG", **options)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(ImageRefused) as caught:
        call()
    return caught.value.code
