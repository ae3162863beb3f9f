"""Files that are no image, too large, cut, damaged or made up: each refused, by a code."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from common.errors import ImageRefused
from common.imaging import ImageLimits, anonymise, decode
from tests.common.image_files import chunk, code_of, jpeg, picture, png, save


def png_with_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + idat + chunk(b"IEND", b"")


def jpeg_with_size(width: int, height: int) -> bytes:
    data = jpeg()
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def test_samples_beyond_sixteen_bits_and_floats_are_refused() -> None:
    wide = Image.fromarray(np.full((16, 16), 70_000, np.int32))
    below = Image.fromarray(np.full((16, 16), -5, np.int32))
    real = Image.fromarray(np.full((16, 16), 0.5, np.float32))
    for image in (wide, below, real):
        data = save(image, "TIFF")
        assert code_of(lambda data=data: decode(data)) == "image-unsupported"


@pytest.mark.parametrize("data", [b"", b"\x89", b"hello, I am text", b"\xff\xd8\xff", b"GIF89a"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    assert code_of(lambda: decode(data)) in {"image-unreadable", "image-truncated"}


def test_a_format_that_we_do_not_take_is_refused() -> None:
    data = save(Image.fromarray(picture()), "PPM")
    assert code_of(lambda: decode(data)) == "image-unreadable"


@pytest.mark.parametrize("data", [png_with_header(50_000, 50_000), jpeg_with_size(50_000, 50_000)])
def test_a_bomb_is_refused_without_allocation(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # not relied on
    tracemalloc.start()
    assert code_of(lambda: decode(data)) == "image-too-large"
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF"])
def test_the_limit_counts_for_every_format(kind: str) -> None:
    data = save(Image.fromarray(picture(100, 100)), kind)
    assert decode(data, limits=ImageLimits(pixels=10_000)).shape == (100, 100, 3)
    assert code_of(lambda: decode(data, limits=ImageLimits(pixels=9_999))) == "image-too-large"
    assert code_of(lambda: decode(data, limits=ImageLimits(bytes=100))) == "image-too-large"
    assert code_of(lambda: decode(data, limits=ImageLimits(side=101))) == "image-too-small"


def test_pillows_own_limit_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert code_of(lambda: decode(png())) == "image-too-large"


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG"])
def test_more_than_one_frame_is_refused(kind: str) -> None:
    frames = [Image.fromarray(picture(seed=s)) for s in range(3)]
    data = save(frames[0], kind, save_all=True, append_images=frames[1:])
    assert code_of(lambda: decode(data)) == "image-multi-frame"


@pytest.mark.parametrize("data", [png(), jpeg(), jpeg(progressive=True)])
def test_truncation_is_noticed_wherever_it_is(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # another library may set it
    for end in range(20, len(data) - 1, 37):
        assert code_of(lambda end=end: decode(data[:end])) == "image-truncated"


def test_missing_pixels_inside_a_whole_file_are_noticed() -> None:
    header = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    few = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + few + chunk(b"IEND", b"")
    assert code_of(lambda: decode(data)) in {"image-truncated", "image-unreadable"}


def test_a_wrong_png_checksum_is_noticed() -> None:
    data = bytearray(png())
    data[data.index(b"IDAT") + 20] ^= 1
    assert code_of(lambda: decode(bytes(data))) == "image-unreadable"


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF89a", b"II*\0", b"MM\0*"]
    ),
)
@example(b"\0" * 40, b"\x89PNG\r\n\x1a\n")
def test_random_bytes_are_refused_and_nothing_else(tail: bytes, signature: bytes) -> None:
    with pytest.raises(ImageRefused):
        decode(signature + tail)


_ORIGINALS = [
    png(),
    png(picture()[..., 0]),
    jpeg(),
    jpeg(progressive=True),
    save(Image.fromarray(picture()), "TIFF"),
    save(Image.fromarray(picture()), "BMP"),
    save(Image.fromarray(picture()).quantize(8), "GIF"),
    png(np.full((16, 16), 999, np.uint16)),
]


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(_ORIGINALS),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0, 1),
    st.booleans(),
)
def test_mutated_files_give_pixels_or_a_refusal(
    original: bytes, changes: list[tuple[float, int]], cut: float, mend: bool
) -> None:
    data = bytearray(original)
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    mutated = bytes(data[: max(1, int(cut * len(data)))] if cut < 0.3 else data)
    if mend:
        mutated = _with_right_checksums(mutated)
    try:
        pixels = decode(mutated, limits=ImageLimits(pixels=1_000_000))
    except ImageRefused:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    stored = anonymise(mutated, limits=ImageLimits(pixels=1_000_000))
    assert (decode(stored.data) == stored.pixels).all()


def _with_right_checksums(data: bytes) -> bytes:
    """Mend a PNG's checksums, so that mutations get past them to the decoder."""
    if not data.startswith(b"\x89PNG"):
        return data
    result, place = [data[:8]], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        name, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        result.append(chunk(name, body))
        place += 12 + length
    return b"".join(result)
