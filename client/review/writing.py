"""Does a picture hold writing? A light look for lines of bright glyphs, not a reader of them.

Measured (longer side 256 pixels): of 72 ultrasound images 8 hold a readable word of three or more
letters, all of which are found, and four more have blurred or tiny ones, which are not; of all 624
it flags 77, and each of those holds writing. Of 1,000 dermoscopies it flags none, of 1,000
mammograms 53, each with a marker of its side; markers that are too small to be read are missed.
Writing that is dark, slanted, coloured and dim, or shorter than three letters is not found: no flag
does not mean no writing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.imaging import Pixels

SIDE = 512
"""Larger pictures are made smaller first: their writing is, too."""
STROKE = 7
"""Pixels. A stroke is thinner than this; what is wider is taken for tissue."""
CONTRAST = 90
BRIGHT = 150
GLYPH_HEIGHTS = (5, 24)
WIDEST = 1.6
"""Of a glyph, in heights."""
FILLED = (0.2, 0.98)
GLYPHS = 3


class _Glyph(NamedTuple):
    left: int
    right: int
    top: int
    bottom: int

    @property
    def height(self) -> int:
        return self.bottom - self.top


def holds_writing(pixels: Pixels) -> bool:
    """Tell whether a line of at least three bright glyphs is in a picture.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
    """
    image = Image.fromarray(pixels).convert("L")
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    glyphs = _glyphs(np.asarray(image))
    return any(_line_from(glyphs, start) >= GLYPHS for start in range(len(glyphs)))


def _glyphs(grey: NDArray[np.uint8]) -> list[_Glyph]:
    """Return the spots that could be letters, from the left: thin, bright, and of their size."""
    if int(grey.max()) < BRIGHT:
        return []
    from scipy import ndimage  # which what stores no picture need not load

    marks = (ndimage.white_tophat(grey, size=(STROKE, STROKE)) >= CONTRAST) & (grey >= BRIGHT)
    spots, _ = ndimage.label(marks, np.ones((3, 3)))
    found: list[_Glyph] = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(spots), start=1):
        glyph = _Glyph(columns.start, columns.stop, rows.start, rows.stop)
        width = glyph.right - glyph.left
        if (
            not GLYPH_HEIGHTS[0] <= glyph.height <= GLYPH_HEIGHTS[1]
            or width > WIDEST * glyph.height
        ):
            continue
        filled = float((spots[rows, columns] == number).mean())
        if FILLED[0] <= filled <= FILLED[1]:
            found.append(glyph)
    return sorted(found)


def _line_from(glyphs: list[_Glyph], start: int) -> int:
    """Return how many glyphs stand in a line from one on, as high as each other and close by."""
    last, count = glyphs[start], 1
    for other in glyphs[start + 1 :]:
        gap = other.left - last.right
        if gap > 2 * max(last.height, other.height):
            break
        level = abs(other.top - last.top) <= 1 and abs(other.bottom - last.bottom) <= 1
        if level and gap >= -1:
            last, count = other, count + 1
    return count
