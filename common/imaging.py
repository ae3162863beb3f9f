"""From the bytes of an image file to the array that the network sees.

Training, evaluation and inference all go through `decode`, `prepare` and `to_tensor`: there is
no second path that could differ.

Rules, in the order in which they apply
---------------------------------------
1. The header is read first. More pixels than `ImageLimits` allows are refused before a buffer
   is made; Pillow's process-wide ``MAX_IMAGE_PIXELS`` is not relied on.
2. Accepted: PNG, JPEG, and single-frame BMP, GIF and TIFF.
3. The EXIF orientation is applied, so that the array is upright.
4. Alpha is composed on black. Palettes, CMYK and grey become RGB; embedded colour profiles are
   ignored.
5. More than 8 bits a sample (grey): the depth b is the smallest of 8, 10, 12, 14 and 16 bits that
   holds the image's largest value, and x becomes ``round(255 x / (2**b - 1))``. A detector's 12
   bits in a 16-bit file thus keep their range. Negative or larger values are refused. Pillow
   itself keeps the high byte of 16-bit RGB.
6. `prepare` crops the recipe's region, then resizes (Pillow, bilinear with antialias) keeping
   the aspect ratio, on a black square: taller-than-wide is a sign of malignancy in ultrasound
   (BI-RADS), so shapes are not squashed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from common.errors import ImageRefused
from common.image_stripping import (
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    StrippedImage,
    multi_frame,
    strip_jpeg,
    strip_png,
    truncated,
    unreadable,
)
from common.recipe import ImageSpec

if TYPE_CHECKING:
    import torch

Pixels = NDArray[np.uint8]

_OTHER_FORMATS = ("BMP", "GIF", "TIFF")
_DEPTHS = (8, 10, 12, 14, 16)
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageLimits:
    """What is refused unseen: more than ``pixels`` or ``bytes``, or a side under ``side``."""

    pixels: int = 64_000_000
    bytes: int = 128 * 1024 * 1024
    side: int = 8


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True)
class AnonymousImage:
    """Upright pixels, and file bytes that make the same pixels and hold no metadata.

    Attributes
    ----------
    data : bytes
        The PNG or JPEG without metadata; other formats, and pictures that had to be turned,
        are written anew as PNG of ``pixels``.
    pixels : ndarray of uint8, shape (height, width, 3)
        RGB.
    """

    data: bytes
    pixels: Pixels


def decode(data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> Pixels:
    """Decode an image file to upright RGB.

    Parameters
    ----------
    data : bytes
        The whole file. What it is called does not matter.
    limits : ImageLimits
        What to refuse before decoding.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)

    Raises
    ------
    ImageRefused
        ``image-unreadable``, ``image-truncated``, ``image-too-large``, ``image-too-small``,
        ``image-unsupported`` or ``image-multi-frame``. Nothing else, whatever the bytes are.
    """
    return _decode_stripped(_strip(data, limits), data, limits)


def anonymise(data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> AnonymousImage:
    """Decode an image file, and make the bytes that may be stored.

    Raises
    ------
    ImageRefused
        As for `decode`.
    """
    stripped = _strip(data, limits)
    pixels = _decode_stripped(stripped, data, limits)
    if stripped is not None and stripped.orientation == 1:
        return AnonymousImage(stripped.data, pixels)
    return AnonymousImage(encode_png(pixels), pixels)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Write pixels, shape (height, width, 3) or (height, width), as PNG; grey RGB as 8-bit grey."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    target = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(target, "PNG", compress_level=4)
    return target.getvalue()


def prepare(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """Crop the recipe's region and fit it into the square that the network sees.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
        As from `decode`.
    spec : ImageSpec
        Size and region.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
    """
    where = placement(pixels, spec)
    top, bottom, left, right = where.region
    image = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
    top, bottom, left, right = where.inner
    inner = (right - left, bottom - top)
    if inner != image.size:
        # reducing_gap first shrinks huge images by an integer box: fast, and close to exact.
        image = image.resize(inner, Image.Resampling.BILINEAR, reducing_gap=3.0)
    if inner == (spec.size, spec.size):
        return np.array(image)
    square = np.zeros((spec.size, spec.size, 3), np.uint8)
    square[top:bottom, left:right] = np.asarray(image)
    return square


@dataclass(frozen=True)
class Placement:
    """Which part of a picture the network sees, and where in its square.

    Both are rectangles (top, bottom, left, right), such as ``pixels[top:bottom, left:right]``.

    Attributes
    ----------
    region : tuple of int
        Of the picture.
    inner : tuple of int
        Of the square; what is outside is black.
    """

    region: tuple[int, int, int, int]
    inner: tuple[int, int, int, int]


def placement(pixels: Pixels, spec: ImageSpec) -> Placement:
    """Return where `prepare` takes a picture from, and where it puts it."""
    region = (0, pixels.shape[0], 0, pixels.shape[1])
    if spec.region == "tissue":
        from common.tissue_region import tissue_region  # SciPy, which other recipes need not load

        region = tissue_region(pixels)
    height, width = region[1] - region[0], region[3] - region[2]
    scale = spec.size / max(height, width)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top = (spec.size - inner[0]) // 2, (spec.size - inner[1]) // 2
    return Placement(region, (top, top + inner[1], left, left + inner[0]))


def normalise(batch: Pixels, spec: ImageSpec) -> NDArray[np.float32]:
    """Scale prepared pixels by the recipe's public mean and standard deviation.

    Parameters
    ----------
    batch : ndarray of uint8, shape (batch, size, size, 3)
    spec : ImageSpec

    Returns
    -------
    ndarray of float32, shape (batch, 3, size, size), contiguous
    """
    mean = np.asarray(spec.mean, np.float32)
    scale = np.float32(1) / np.asarray(spec.std, np.float32)
    planes = np.empty((batch.shape[0], 3, *batch.shape[1:3]), np.float32)
    # Plane by plane, in place: five times as fast as on whole images, and the same to the bit.
    for channel in range(3):
        plane = planes[:, channel]
        np.multiply(batch[..., channel], np.float32(1 / 255), out=plane)
        plane -= mean[channel]
        plane *= scale[channel]
    return planes


def to_tensor(batch: Pixels, spec: ImageSpec) -> torch.Tensor:
    """Return `normalise` as a float32 tensor, shape (batch, 3, size, size), on the CPU."""
    import torch

    return torch.from_numpy(normalise(batch, spec))


def _strip(data: bytes, limits: ImageLimits) -> StrippedImage | None:
    if len(data) > limits.bytes:
        raise _too_large(f"{len(data)} bytes")
    if data.startswith(PNG_SIGNATURE):
        _check_size(*_png_header_size(data), limits)
        stripped = strip_png(data)
    elif data.startswith(JPEG_SIGNATURE):
        stripped = strip_jpeg(data)
    else:
        return None
    _check_size(stripped.width, stripped.height, limits)
    return stripped


def _png_header_size(data: bytes) -> tuple[int, int]:
    if len(data) < 24:
        raise truncated("no header")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _decode_stripped(stripped: StrippedImage | None, data: bytes, limits: ImageLimits) -> Pixels:
    try:
        image = _open(stripped, data)
        _check_size(*image.size, limits)
        if getattr(image, "n_frames", 1) != 1:
            raise multi_frame()
        image.load()
        if stripped is not None and stripped.orientation in _TRANSPOSE:
            return _to_rgb(image.transpose(_TRANSPOSE[stripped.orientation]))
        return _to_rgb(image)
    except ImageRefused:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("by its header") from error
    except MemoryError as error:
        raise _too_large("for this machine's memory") from error
    except Exception as error:  # decoders raise almost anything on hostile bytes
        if "truncated" in str(error).lower():
            raise truncated("the pixels stop early") from error
        raise unreadable("no supported image, or a damaged one") from error


def _open(stripped: StrippedImage | None, data: bytes) -> ImageFile.ImageFile:
    """Read a header; no pixel is decoded, and no format beyond ours is tried."""
    if stripped is None:
        return Image.open(io.BytesIO(data), formats=_OTHER_FORMATS)
    return Image.open(io.BytesIO(stripped.data), formats=("PNG", "JPEG"))


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode == "RGB":
        return np.array(image)
    if image.mode.startswith("I"):
        grey = _to_eight_bits(np.array(image))
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return np.array(Image.alpha_composite(black, image).convert("RGB"))
    if image.mode in ("1", "L", "P", "CMYK", "YCbCr", "RGBX"):
        return np.array(image.convert("RGB"))
    raise ImageRefused(
        f"Images with {image.mode} pixels are not supported.",
        action="Export it as 8-bit or 16-bit grey or RGB.",
        code="image-unsupported",
    )


def _to_eight_bits(grey: NDArray[np.generic]) -> Pixels:
    values = grey.astype(np.int64)
    largest = int(values.max(initial=0))
    depth = next((b for b in _DEPTHS if largest < 2**b), None)
    if depth is None or int(values.min(initial=0)) < 0:
        raise ImageRefused(
            "The image has samples of more than 16 bits, or negative ones.",
            action="Export it as 8-bit or 16-bit grey.",
            code="image-unsupported",
        )
    full = 2**depth - 1
    scaled: Pixels = ((values * 255 + full // 2) // full).astype(np.uint8)
    return scaled


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.pixels:
        raise _too_large(f"{width} x {height} pixels")
    if min(width, height) < limits.side:
        raise ImageRefused(
            f"The image is too small ({width} x {height} pixels).",
            action=f"Each side needs at least {limits.side} pixels.",
            code="image-too-small",
        )


def _too_large(detail: str) -> ImageRefused:
    return ImageRefused(
        f"The image is too large ({detail}).",
        meaning="It was not opened.",
        action="Export it smaller.",
        code="image-too-large",
    )
