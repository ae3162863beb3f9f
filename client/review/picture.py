"""A stored picture: its file, and what of it a reader's screen shows."""

from __future__ import annotations

import numpy as np
from PIL import Image

from client.cases.case import Case
from client.cases.store import CaseStore
from common.errors import NotFound
from common.imaging import decode, encode_png


def stored_image(store: CaseStore, case: Case) -> bytes:
    """Return a case's stored file, whose pixels are the case's; `NotFound` if it was withdrawn."""
    if case.status == "withdrawn":
        raise NotFound("This case was withdrawn; its image is gone.", code="case-withdrawn")
    return store.image_bytes(case)


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
