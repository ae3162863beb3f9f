"""Every way an image file can be odd, and what `decode`, `anonymise` and `prepare` make of it."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin

from common.errors import ImageRefused
from common.imaging import (
    ImageLimits,
    anonymise,
    decode,
    encode_png,
    normalise,
    prepare,
    to_tensor,
)
from common.recipe import ImageSpec
from common.tissue_region import tissue_region

SECRET = b"DOE^JANE-19541107"


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


def png_with_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + idat + chunk(b"IEND", b"")


def jpeg_with_size(width: int, height: int) -> bytes:
    data = jpeg()
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(ImageRefused) as caught:
        call()
    return caught.value.code


# Formats


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    assert (decode(save(Image.fromarray(picture()), kind)) == picture()).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_jpeg_is_what_pillow_makes_of_it(options: dict[str, bool]) -> None:
    data = jpeg(**options)
    assert (decode(data) == np.array(Image.open(io.BytesIO(data)))).all()


def test_jpeg_with_restart_markers() -> None:
    data = jpeg(restart_marker_blocks=1)
    assert b"\xff\xd0" in data
    assert (decode(data) == np.array(Image.open(io.BytesIO(data)))).all()


def test_grey_becomes_three_equal_channels() -> None:
    grey = picture()[..., 0]
    for data in (png(grey), jpeg(grey)):
        rgb = decode(data)
        assert rgb.shape == (24, 32, 3)
        assert (rgb == rgb[..., :1]).all()
    assert (decode(png(grey))[..., 0] == grey).all()


def test_palette_and_bilevel() -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[:8] = (200, 10, 30)
    palette = Image.fromarray(rgb).quantize(4)
    assert palette.mode == "P"
    assert (decode(save(palette, "PNG")) == rgb).all()
    assert (decode(save(palette, "GIF")) == rgb).all()
    assert set(np.unique(decode(save(Image.new("1", (9, 9), 1), "PNG")))) == {255}


def test_alpha_is_composed_on_black() -> None:
    rgba = np.dstack([picture(), np.zeros((24, 32), np.uint8)])
    rgba[:12, :, 3] = 255
    rgb = decode(png(rgba))
    assert (rgb[:12] == picture()[:12]).all()
    assert not rgb[12:].any()


def test_transparent_palette_entry_is_black() -> None:
    palette = Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).quantize(2)
    assert not decode(save(palette, "PNG", transparency=palette.getpixel((0, 0)))).any()


def test_cmyk_jpeg() -> None:
    image = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    assert decode(save(image, "JPEG")).min() > 250


@pytest.mark.parametrize(
    ("largest", "middle"),
    [(255, 128), (1023, 512), (4095, 2048), (16383, 8192), (65535, 32768)],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_scale_by_the_smallest_depth_that_holds_them(
    kind: str, largest: int, middle: int
) -> None:
    grey = np.full((16, 16), middle, np.uint16)
    grey[0, 0], grey[0, 1] = largest, 0
    rgb = decode(save(Image.fromarray(grey), kind))
    assert rgb[0, 0, 0] == 255
    assert rgb[0, 1, 0] == 0
    assert rgb[5, 5, 0] == 128


def test_sixteen_bits_are_monotone() -> None:
    grey = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    assert (np.diff(decode(png(grey))[..., 0].ravel().astype(int)) >= 0).all()


def test_samples_beyond_sixteen_bits_and_floats_are_refused() -> None:
    wide = Image.fromarray(np.full((16, 16), 70_000, np.int32))
    below = Image.fromarray(np.full((16, 16), -5, np.int32))
    real = Image.fromarray(np.full((16, 16), 0.5, np.float32))
    for image in (wide, below, real):
        data = save(image, "TIFF")
        assert code_of(lambda data=data: decode(data)) == "image-unsupported"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    from PIL import ImageOps

    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    for data in (jpeg(pixels, exif=exif, quality=95), png(pixels, exif=exif)):
        turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert (decode(data) == np.array(turned)).all()
        assert (anonymise(data).pixels == np.array(turned)).all()


# What is refused


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


# Metadata


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


# Preparing


def test_prepare_fits_the_square_and_keeps_the_shape_of_things() -> None:
    wide = np.full((100, 200, 3), 77, np.uint8)
    square = prepare(wide, ImageSpec(size=32))
    assert square.shape == (32, 32, 3)
    assert (square[8:24] == 77).all()
    assert not square[:8].any()
    assert not square[24:].any()


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (8, 8), (3000, 2000), (32, 32)])
def test_prepare_takes_any_shape(shape: tuple[int, int]) -> None:
    for region in ("full", "tissue"):
        spec = ImageSpec(size=32, region=region)
        assert prepare(picture(*shape), spec).shape == (32, 32, 3)


def test_prepare_leaves_an_image_of_the_right_size_alone() -> None:
    pixels = picture(32, 32)
    prepared = prepare(pixels, ImageSpec(size=32))
    assert (prepared == pixels).all()
    assert not np.shares_memory(prepared, pixels)


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    inner = prepare(stripes, ImageSpec(size=32))[2:-2, 2:-2]
    assert abs(int(inner.min()) - 127) <= 3
    assert abs(int(inner.max()) - 127) <= 3


def test_normalise_is_the_recipes_affine_map() -> None:
    spec = ImageSpec(size=16, mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    batch = picture(16, 16)[None].repeat(2, axis=0)
    result = normalise(batch, spec)
    assert result.shape == (2, 3, 16, 16)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    expected = (batch / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(result, expected.transpose(0, 3, 1, 2), rtol=0, atol=1e-6)
    assert (to_tensor(batch, spec).numpy() == result).all()


def test_encode_png_writes_grey_as_grey() -> None:
    grey = np.repeat(picture()[..., :1], 3, axis=2)
    assert Image.open(io.BytesIO(encode_png(grey))).mode == "L"
    assert (decode(encode_png(grey)) == grey).all()
    assert (decode(encode_png(picture())) == picture()).all()


# Tissue


def _ultrasound() -> NDArray[np.uint8]:
    """A bright sector with black margins, text in a corner, and a black shadow at the bottom."""
    grey = np.zeros((200, 300), np.uint8)
    grey[20:180, 50:250] = np.random.default_rng(3).integers(60, 180, (160, 200))
    grey[150:180, 50:250] = 5
    grey[4:9, 5:45:3] = 255
    return np.repeat(grey[..., None], 3, axis=2)


def test_margins_text_and_shadow_are_cropped() -> None:
    top, bottom, left, right = tissue_region(_ultrasound())
    assert max(abs(top - 20), abs(left - 50), abs(right - 250)) <= 4
    assert abs(bottom - 150) <= 6


def test_a_muscle_band_is_cropped() -> None:
    pixels = _ultrasound()
    pixels[135:150, 50:250] = 250
    assert tissue_region(pixels)[1] <= 140


@pytest.mark.parametrize("value", [0, 5])
def test_an_implausible_region_is_the_whole_frame(value: int) -> None:
    assert tissue_region(np.full((90, 120, 3), value, np.uint8)) == (0, 90, 0, 120)
    stamp = np.zeros((200, 200, 3), np.uint8)
    stamp[90:110, 90:110] = 200
    assert tissue_region(stamp) == (0, 200, 0, 200)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1), st.booleans())
def test_the_region_lies_in_the_frame(height: int, width: int, seed: int, dark: bool) -> None:
    pixels = picture(height, width, seed) // (20 if dark else 1)
    top, bottom, left, right = tissue_region(pixels.astype(np.uint8))
    assert 0 <= top < bottom <= height
    assert 0 <= left < right <= width
