"""What a file becomes: rendering rules, refusals, and nothing but refusals for hostile bytes."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from client.dicom.decoding import decode_dicom
from client.dicom.picture import DicomLimits, looks_like_dicom
from common.errors import ImageRefused
from common.imaging import decode
from tests.client.dicom.files import PLANTED, dataset, deflated_bomb, file_bytes, planted

RAMP = np.tile(np.arange(0, 4096, 16, np.uint16), (16, 1))


def shown(made: Dataset) -> np.ndarray:
    return decode(decode_dicom(file_bytes(made)).png)[..., 0]


def code(data: bytes, **options: object) -> str:
    with pytest.raises(ImageRefused) as caught:
        decode_dicom(data, **options)  # type: ignore[arg-type]
    assert not [word for word in PLANTED if word in caught.value.line()]
    return caught.value.code


def test_grey_of_12_bits_keeps_its_range_and_monochrome1_is_inverted() -> None:
    bright = shown(dataset(RAMP, BitsStored=12, HighBit=11))
    assert (bright[0, 0], bright[0, -1]) == (0, 254)
    inverted = shown(
        dataset(RAMP, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1")
    )
    assert (inverted[0, 0], inverted[0, -1]) == (255, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"PresentationIntentType": "FOR PROCESSING"},
        {"PresentationIntentType": "for processing "},
        {"SOPClassUID": DigitalMammographyXRayImageStorageForProcessing},
    ],
)
def test_a_detectors_raw_image_is_not_taken(fields: dict[str, object]) -> None:
    raw = file_bytes(dataset(RAMP, Modality="MG", BitsStored=12, HighBit=11, **fields))
    assert code(raw, modalities={"MG"}) == "dicom-for-processing"
    assert code(raw) == "dicom-for-processing"
    shown(dataset(RAMP, Modality="MG", PresentationIntentType="FOR PRESENTATION"))


@pytest.mark.parametrize(
    ("function", "edge", "at_edge"),
    [("LINEAR", 1024 - 0.5, 128), ("LINEAR_EXACT", 1024, 128), ("SIGMOID", 1024, 128)],
)
def test_windows_after_ps3_3(function: str, edge: float, at_edge: int) -> None:
    made = dataset(RAMP, BitsStored=12, HighBit=11, VOILUTFunction=function)
    made.WindowCenter, made.WindowWidth = [1024, 40], [512, 400]
    row = shown(made)[0].astype(int)
    assert abs(row[64] - at_edge) <= 1
    assert (np.diff(row) >= 0).all()
    assert row[0] <= 1
    assert row[-1] == 255


def test_rescale_comes_before_the_window_and_signed_values_are_stretched() -> None:
    hounsfield = RAMP.astype(np.int16) - 2048
    windowed = dataset(hounsfield, RescaleSlope=2, RescaleIntercept=100)
    windowed.WindowCenter, windowed.WindowWidth = 100, 1000
    row = shown(windowed)[0]
    assert abs(int(row[128]) - 128) <= 2
    assert row[96] == 0
    assert row[160] == 255
    stretched = shown(dataset(hounsfield))[0]
    assert (stretched[0], stretched[-1]) == (0, 255)


def test_padding_is_black_even_where_the_picture_is_inverted() -> None:
    pixels = RAMP.copy()
    pixels[:, :4] = 0
    made = dataset(pixels, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    made.BitsStored, made.HighBit = 12, 11
    row = shown(made)[0]
    assert (row[0], row[5]) == (0, 250)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_syntaxes_agree(syntax: str) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (20, 12, 3), np.uint8)
    made = dataset(colours)
    if syntax == ExplicitVRBigEndian:  # words of two samples; pydicom leaves swapping to us
        made.PixelData = np.frombuffer(made.PixelData, np.uint16).byteswap().tobytes()
    assert (decode(decode_dicom(file_bytes(made, syntax=syntax)).png) == colours).all()


def test_a_bare_data_set_is_read() -> None:
    data = file_bytes(dataset(), syntax=ImplicitVRLittleEndian)
    bare = data[data.index(b"\x08\x00\x16\x00") :]
    assert looks_like_dicom(bare)
    assert decode_dicom(bare).png == decode_dicom(data).png


def test_one_frame_of_several_is_decoded_when_it_is_named() -> None:
    pixels = np.arange(2 * 8 * 8, dtype=np.uint8)
    made = dataset(pixels.reshape(16, 8), Rows=8, NumberOfFrames=2)
    data = file_bytes(made)
    assert code(data) == "dicom-multi-frame"
    assert code(data, frame=3) == code(data, frame=0) == "dicom-frame"
    assert decode(decode_dicom(data, frame=2).png)[0, 0, 0] == 64


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"BurnedInAnnotation": "YES"}, "dicom-identifying-pixels"),
        ({"RecognizableVisualFeatures": "YES"}, "dicom-identifying-pixels"),
        ({"Modality": "SR"}, "dicom-no-picture"),
        ({"Modality": "CT"}, "dicom-modality"),
        ({"PixelData": None}, "dicom-no-pixels"),
        ({"Rows": 60000, "Columns": 60000}, "dicom-too-large"),
        ({"Rows": 25}, "dicom-truncated"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "dicom-bits"),
        ({"SamplesPerPixel": 4}, "dicom-samples"),
        ({"PhotometricInterpretation": "HSV"}, "dicom-colours"),
        ({"NumberOfFrames": 9}, "dicom-multi-frame"),
    ],
)
def test_refusals(fields: dict[str, object], expected: str) -> None:
    assert code(file_bytes(planted(dataset(**fields))), modalities=("XC",)) == expected


def test_burned_in_text_that_is_not_ruled_out_is_flagged() -> None:
    assert decode_dicom(file_bytes(dataset())).flags == ("burned-in-unknown",)
    assert decode_dicom(file_bytes(dataset(BurnedInAnnotation="NO"))).flags == ()


def test_age_is_in_years_and_the_picture_shows_nobody() -> None:
    picture = decode_dicom(file_bytes(planted(dataset())))
    assert picture.age == "049Y"
    assert not [word for word in PLANTED if word in repr(picture) or word.encode() in picture.png]


def test_a_deflated_bomb_is_not_inflated() -> None:
    bomb = deflated_bomb(300)
    started = time.monotonic()
    assert len(bomb) < 2**20
    assert code(bomb, limits=DicomLimits(bytes=2**20)) == "dicom-too-large"
    assert time.monotonic() - started < 5


def refusal_of(data: bytes) -> str:
    try:
        decode_dicom(data)
    except ImageRefused as refusal:
        return refusal.line()
    return ""


WHOLE = file_bytes(planted(dataset()))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_hostile_bytes_are_refused_and_nothing_else(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(128, 1400))
        damaged[place : place + 2] = data.draw(st.binary(min_size=0, max_size=6))
    cut = data.draw(st.integers(0, len(damaged)))
    for hostile in (bytes(damaged), bytes(damaged[:cut])):
        refusal = refusal_of(hostile)
        assert not [word for word in PLANTED if word in refusal]
