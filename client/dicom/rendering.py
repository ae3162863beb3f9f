"""From stored samples to the picture that a reader would see (PS3.3 C.7.6.3, C.11.1, C.11.2).

1. Samples are decoded by pydicom with GDCM, OpenJPEG or CharLS; YBR becomes RGB.
2. Palette colours are looked up; colour is scaled to 8 bits by Bits Stored.
3. Grey: modality LUT or rescale, then the first VOI LUT or window, to 8 bits. Without either,
   whole non-negative values go on as 16 bits (`common.imaging` scales by the depth in use), and
   others are stretched from least to largest.
4. MONOCHROME1 is inverted, so that larger is always brighter; pixel padding becomes black.

Overlays are not drawn.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEGExtended12Bit

from client.dicom.refusals import refused, unreadable
from common.errors import ImageRefused

Samples = NDArray[Any]
Values = NDArray[np.float32]
_GREY = ("MONOCHROME1", "MONOCHROME2")


def render(dataset: Dataset, *, frame: int | None = None) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Render one frame.

    Returns
    -------
    ndarray
        uint8 of shape (rows, columns) or (rows, columns, 3), or uint16 of shape (rows, columns).

    Raises
    ------
    ImageRefused
        If the pixels cannot be decoded or their photometric interpretation is not known.
    """
    kind = str(dataset.get("PhotometricInterpretation", "")).strip().upper()
    if kind not in (*_GREY, "PALETTE COLOR", "RGB") and not kind.startswith("YBR_"):
        raise refused("colours", "The photometric interpretation is not one that is known.")
    samples = _decoded(dataset, frame)
    if kind in _GREY:
        if samples.ndim != 2:
            raise unreadable("grey pixels of a wrong shape")
        return _grey(samples, dataset, inverted=kind == "MONOCHROME1")
    if kind == "PALETTE COLOR":
        table = dataset.get("RedPaletteColorLookupTableDescriptor")
        samples = apply_color_lut(samples, dataset)
        # An 8-bit table may be declared with 16 bits, and the other way round: the values tell.
        wide = samples.dtype.itemsize > 1 and (table is None or int(table[2]) == 16)
        return _eight_bits(samples[..., :3], 16 if wide and int(samples.max()) > 255 else 8)
    if samples.ndim != 3 or samples.shape[2] != 3:
        raise unreadable("colour pixels of a wrong shape")
    return _eight_bits(samples, int(dataset.get("BitsStored", 8)))


def png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Write rendered pixels as PNG."""
    target = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(target, "PNG", compress_level=1)
    return target.getvalue()


def _decoded(dataset: Dataset, frame: int | None) -> Samples:
    try:
        samples = pixel_array(dataset, index=(frame or 1) - 1)
    except MemoryError as error:
        raise unreadable("its pixels do not fit into memory") from error
    except Exception as error:  # decoders raise almost anything; their texts may quote the header
        raise _undecodable(dataset, error) from error
    if samples.shape[:2] != (dataset.Rows, dataset.Columns):
        raise unreadable("its pixels have another size than its header says")
    return samples


def _undecodable(dataset: Dataset, error: Exception) -> ImageRefused:
    syntax = dataset.file_meta.TransferSyntaxUID
    if "less than expected" in str(error):
        return refused(
            "truncated",
            "The DICOM file is truncated.",
            meaning="Part of the picture is missing.",
            action="Copy or export it again.",
        )
    if syntax == JPEGExtended12Bit and int(dataset.BitsStored) > 8:
        return refused(
            "transfer-syntax",
            "JPEG Extended with 12 bits cannot be decoded here.",
            action="Export it uncompressed or as lossless JPEG.",
        )
    return unreadable(f"its {syntax.name} pixels cannot be decoded, {type(error).__name__}")


def _eight_bits(samples: Samples, bits: int) -> NDArray[np.uint8]:
    if bits <= 8 and samples.dtype == np.uint8:
        return samples if bits == 8 else _scaled(samples.astype(np.float32) / (2**bits - 1))
    return _scaled(samples.astype(np.float32) / (2**bits - 1))


def _scaled(unit: Values) -> NDArray[np.uint8]:
    return (np.clip(unit, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _grey(
    stored: Samples, dataset: Dataset, *, inverted: bool
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    padding = _padding(stored, dataset)
    values = apply_modality_lut(stored, dataset)
    if not np.isfinite(values).all():
        raise unreadable("its modality LUT makes values that are no numbers")
    unit = _voi(values, dataset)
    if unit is None and values.min() >= 0 and values.max() < 2**16 and _whole(values):
        return _plain(values.astype(np.uint16), dataset, padding, inverted=inverted)
    if unit is None:
        seen = values if padding is None or padding.all() else values[~padding]
        low, high = float(seen.min()), float(seen.max())
        unit = ((values - low) / max(high - low, 1e-6)).astype(np.float32)
    picture = _scaled(1 - unit if inverted else unit)
    if padding is not None:
        picture[padding] = 0
    return picture


def _plain(
    values: NDArray[np.uint16], dataset: Dataset, padding: Samples | None, *, inverted: bool
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Keep whole values as they are; the picture's depth is `common.imaging`'s to find."""
    bits = max(int(dataset.BitsStored), int(values.max()).bit_length())
    if inverted:
        values = np.uint16(2**bits - 1) - values
    if padding is not None:
        values[padding] = 0
    return values.astype(np.uint8) if bits == 8 else values


def _whole(values: Samples) -> bool:
    return values.dtype.kind in "iu" or bool((values == np.round(values)).all())


def _padding(stored: Samples, dataset: Dataset) -> Samples | None:
    """Return where pixels are padding (PS3.3 C.7.5.1.1.2), None if nowhere."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit", value)
    low, high = sorted((int(value), int(limit)))
    found: Samples = (stored >= low) & (stored <= high)
    return found if found.any() else None


def _voi(values: Samples, dataset: Dataset) -> Values | None:
    """Apply the first VOI LUT or window; the result is on 0 to 1. None if there is neither."""
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        if not 8 <= bits <= 16:
            raise unreadable("its VOI LUT has a wrong depth")
        looked_up = apply_voi(np.round(values).astype(np.int64), dataset)
        return (looked_up / np.float32(2**bits - 1)).astype(np.float32)
    centre, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if centre is None or width is None:
        return None
    return _windowed(values.astype(np.float32), dataset, centre, width)


def _windowed(x: Values, dataset: Dataset, centre: float, width: float) -> Values | None:
    """Apply a window (PS3.3 C.11.2.1.2 and C.11.2.1.3); None if its width is not allowed."""
    function = str(dataset.get("VOILUTFunction", "LINEAR")).strip().upper()
    if function == "SIGMOID" and width > 0:
        return _unit(1 / (1 + np.exp(-4 * (x - centre) / width)))
    if function == "LINEAR_EXACT" and width > 0:
        return _unit((x - centre) / width + 0.5)
    if width < 1:
        return None
    if width == 1:
        return _unit(x > centre - 0.5)
    return _unit((x - (centre - 0.5)) / (width - 1) + 0.5)


def _unit(values: Samples) -> Values:
    return np.clip(values, 0, 1).astype(np.float32)


def _first(dataset: Dataset, keyword: str) -> float | None:
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    number = float(value[0] if type(value).__name__ == "MultiValue" else value)
    return number if np.isfinite(number) else None
