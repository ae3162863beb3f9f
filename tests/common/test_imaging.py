"""Every kind of image file that is taken, and what `decode` and `prepare` make of it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from common.imaging import anonymise, decode, encode_png, normalise, prepare, to_tensor
from common.recipe import ImageSpec
from tests.common.image_files import jpeg, picture, png, save

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
