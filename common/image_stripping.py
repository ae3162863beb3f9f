"""Taking names out of image files: only the parts that make pixels are kept.

EXIF, XMP, IPTC, PNG text, colour profiles, thumbnails, comments and whatever is appended after the
end of the picture may carry a patient's name or number. PNG (ISO/IEC 15948) and JPEG (ITU-T T.81,
annex B) are walked part by part and written anew without them, so that the compressed pixels stay
as they were, bit for bit. The walk also finds the frame size and truncation before any decoder
has run, and no decoder ever sees the parts that are dropped.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from common.errors import ImageRefused

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_PNG_CRITICAL_BIT = 0x20
_ORIENTATION_TAG = 0x0112
_MAXIMUM_SCANS = 100
_JFIF = b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
_EXIF_HEADER = b"Exif\0\0"
_SOI, _EOI, _SOS, _APP0, _APP1, _APP14, _APP15, _COM = (
    0xD8,
    0xD9,
    0xDA,
    0xE0,
    0xE1,
    0xEE,
    0xEF,
    0xFE,
)
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# In entropy-coded data 0xFF is followed by 0x00 (stuffing), by RST0-RST7, or by a fill byte.
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True)
class StrippedImage:
    """An image file without metadata, and what its header said.

    Attributes
    ----------
    data : bytes
        A valid file of the same format; equal pixels, before orientation.
    width, height : int
        In pixels, as coded.
    orientation : int
        EXIF orientation, 1 to 8; 1 is upright. It is no longer in ``data``.
    """

    data: bytes
    width: int
    height: int
    orientation: int


def truncated(detail: str) -> ImageRefused:
    """Return the error for a file that stops before its end."""
    return ImageRefused(
        f"The image is truncated ({detail}).",
        meaning="Part of the picture is missing.",
        action="Copy or export it again.",
        code="image-truncated",
    )


def unreadable(detail: str) -> ImageRefused:
    """Return the error for bytes that are no image, or a damaged one."""
    return ImageRefused(
        f"The image cannot be read ({detail}).",
        action="Send an undamaged PNG, JPEG, TIFF, BMP or DICOM file.",
        code="image-unreadable",
    )


def strip_png(data: bytes) -> StrippedImage:
    """Keep IHDR, PLTE, tRNS, IDAT and IEND of a PNG; check every CRC on the way.

    Raises
    ------
    ImageRefused
        ``image-truncated``, ``image-unreadable`` or ``image-multi-frame`` (APNG).
    """
    kept = [PNG_SIGNATURE]
    size: tuple[int, int] | None = None
    orientation = 1
    for name, body, whole in _png_chunks(data):
        if size is None:
            if name != b"IHDR" or len(body) != 13:
                raise unreadable("PNG without a header")
            size = struct.unpack(">II", body[:8])
        if name == b"acTL" and body[:4] not in (b"\0\0\0\0", b"\0\0\0\1"):
            raise multi_frame()
        if name == b"eXIf":
            orientation = _orientation(body)
        if name in _PNG_KEPT:
            kept.append(whole)
        elif not name[0] & _PNG_CRITICAL_BIT:
            raise unreadable("unknown critical PNG chunk")
    if size is None:
        raise truncated("no header")
    return StrippedImage(b"".join(kept), size[0], size[1], orientation)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    position = len(PNG_SIGNATURE)
    while True:
        if position + 12 > len(data):
            raise truncated("PNG ends without IEND")
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            raise truncated("a PNG chunk is cut off")
        name = data[position + 4 : position + 8]
        body = data[position + 8 : end - 4]
        if zlib.crc32(name + body) != struct.unpack_from(">I", data, end - 4)[0]:
            raise unreadable("a PNG checksum is wrong")
        yield name, body, data[position:end]
        if name == b"IEND":
            return
        position = end


def strip_jpeg(data: bytes) -> StrippedImage:
    """Keep frame, tables and scans of a JPEG; APPn and comments go, JFIF and Adobe are rewritten.

    JFIF (APP0) and Adobe (APP14) say how the colours are coded, so a bare copy of each that was
    there is kept. Everything after the first end-of-image marker is dropped.

    Raises
    ------
    ImageRefused
        ``image-truncated`` or ``image-unreadable``.
    """
    kept = [b"\xff\xd8"]
    size: tuple[int, int] | None = None
    orientation = 1
    for marker, body, whole in _jpeg_segments(data):
        if marker == _APP0 and body.startswith(b"JFIF\0"):
            kept.append(_segment(_APP0, _JFIF))
        elif marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            kept.append(_segment(_APP14, b"Adobe\0\x64\0\0\0\0" + body[11:12]))
        elif marker == _APP1 and body.startswith(_EXIF_HEADER):
            orientation = _orientation(body[len(_EXIF_HEADER) :])
        elif marker == _COM or _APP0 <= marker <= _APP15:
            continue
        else:
            if marker in _FRAME_HEADERS:
                if len(body) < 5:
                    raise unreadable("a JPEG frame header is too short")
                height, width = struct.unpack_from(">HH", body, 1)
                size = (width, height)
            kept.append(whole)
    if size is None:
        raise unreadable("JPEG without a frame")
    return StrippedImage(b"".join(kept), size[0], size[1], orientation)


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield marker, payload, and all bytes to copy (for SOS with its entropy-coded data)."""
    position, scans = 2, 0
    while True:
        marker, position = _next_marker(data, position)
        if marker == _EOI:
            yield marker, b"", b"\xff\xd9"
            return
        if position + 2 > len(data):
            raise truncated("JPEG ends without an end marker")
        (length,) = struct.unpack_from(">H", data, position)
        end = position + length
        if length < 2:
            raise unreadable("a JPEG segment has no length")
        if end > len(data):
            raise truncated("a JPEG segment is cut off")
        body = data[position + 2 : end]
        if marker == _SOS:
            scans += 1
            if scans > _MAXIMUM_SCANS:
                raise unreadable("too many JPEG scans")
            found = _MARKER_AFTER_SCAN.search(data, end)
            if found is None:
                raise truncated("JPEG ends without an end marker")
            end = found.start()
        yield marker, body, bytes((0xFF, marker)) + data[position:end]
        position = end


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    if position >= len(data):
        raise truncated("JPEG ends without an end marker")
    if data[position] != 0xFF:
        raise unreadable("a JPEG marker is missing")
    while position < len(data) and data[position] == 0xFF:
        position += 1
    if position >= len(data):
        raise truncated("JPEG ends without an end marker")
    marker = data[position]
    if marker in (0x00, 0x01, _SOI) or 0xD0 <= marker <= 0xD7:
        raise unreadable("a JPEG marker is out of place")
    return marker, position + 1


def multi_frame() -> ImageRefused:
    """Return the error for animations and stacks."""
    return ImageRefused(
        "The image has more than one frame.",
        meaning="It is not said which of them is the case.",
        action="Export the frame that was diagnosed as PNG or JPEG.",
        code="image-multi-frame",
    )


def _orientation(exif: bytes) -> int:
    block = Image.Exif()
    try:
        block.load(_EXIF_HEADER + exif)
        value = block.get(_ORIENTATION_TAG, 1)
    except Exception:  # EXIF is foreign input; a broken one says nothing, and is dropped anyway
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
