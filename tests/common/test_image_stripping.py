"""What a file says besides its pixels is not stored."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from common.imaging import anonymise, decode
from tests.common.image_files import jpeg, picture, png, save

SECRET = b"DOE^JANE-19541107"


def _with_names_everywhere() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    exif[0x9286] = SECRET.decode()
    text = PngImagePlugin.PngInfo()
    text.add_text("PatientName", SECRET.decode())
    text.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    plain = jpeg()
    comment = b"\xff\xfe" + struct.pack(">H", len(SECRET) + 2) + SECRET
    iptc = b"\xff\xed" + struct.pack(">H", len(SECRET) + 2) + SECRET
    late = plain.index(b"\xff\xda")
    image = Image.fromarray(picture())
    return {
        "jpeg exif": jpeg(exif=exif),
        "jpeg comment": plain[:2] + comment + plain[2:],
        "jpeg comment before the scan": plain[:late] + comment + plain[late:],
        "jpeg iptc": plain[:2] + iptc + plain[2:],
        "jpeg profile": jpeg(icc_profile=SECRET * 20),
        "jpeg tail": plain + SECRET,
        "png text": png(pnginfo=text),
        "png exif": png(exif=exif),
        "png profile": png(icc_profile=SECRET * 20),
        "png tail": png() + SECRET,
        "tiff": save(image, "TIFF", description=SECRET.decode()),
        "gif": save(image.quantize(8), "GIF", comment=SECRET),
        "bmp tail": save(image, "BMP") + SECRET,
    }


@pytest.mark.parametrize("kind", _with_names_everywhere())
def test_a_planted_name_is_not_stored(kind: str) -> None:
    data = _with_names_everywhere()[kind]
    stored = anonymise(data)
    assert SECRET not in stored.data
    assert not Image.open(io.BytesIO(stored.data)).getexif()
    assert (decode(stored.data) == stored.pixels).all()
    assert (stored.pixels == decode(data)).all()
    reopened = Image.open(io.BytesIO(stored.data))
    assert set(reopened.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi"}


def test_stripping_keeps_the_coded_pixels_and_is_stable() -> None:
    for data in (png(), jpeg(), jpeg(progressive=True), png(np.full((9, 9), 3000, np.uint16))):
        once = anonymise(data).data
        assert anonymise(once).data == once
        assert len(once) <= len(data)
        assert (decode(once) == decode(data)).all()


def test_two_exports_of_one_picture_are_stored_alike() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("AcquisitionTime", "11:02")
    assert anonymise(png(pnginfo=text)).data == anonymise(png()).data
