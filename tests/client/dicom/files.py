"""DICOM files for tests: phantoms with a planted patient in every field that may name one."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

NAME, NUMBER = "PlantedDoe^Jane", "MRN-90125-planted"
PLANTED = ("PlantedDoe", "planted", "19700102")


def dataset(pixels: np.ndarray | None = None, **fields: object) -> Dataset:
    """Return a data set of grey (2-D) or RGB (3-D) pixels; ``fields`` go on top."""
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
    made = Dataset()
    made.SOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID, made.StudyInstanceUID = generate_uid(), generate_uid()
    made.SeriesInstanceUID = generate_uid()
    made.Modality = "XC"
    made.PatientName, made.PatientID = NAME, NUMBER
    made.PatientBirthDate, made.PatientSex, made.StudyDate = "19700102", "F", "20200101"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = pixels.dtype.itemsize * 8
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    raw = pixels.tobytes()
    made.PixelData = raw + b"\0" * (len(raw) % 2)
    for name, value in fields.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def planted(made: Dataset) -> Dataset:
    """Write a name into elements that PS3.15 annex E cleans, nested and private ones too."""
    for name in (
        *(
            "ReferringPhysicianName",
            "PerformingPhysicianName",
            "OperatorsName",
            "OtherPatientNames",
        ),
        *("PatientMotherBirthName", "RequestingPhysician", "PhysiciansOfRecord"),
    ):
        setattr(made, name, NAME)
    for name in (
        *("InstitutionName", "StationName", "StudyDescription", "SeriesDescription", "StudyID"),
        *("AccessionNumber", "ProtocolName", "IssuerOfPatientID", "RequestedProcedureID"),
    ):
        setattr(made, name, "planted")
    for name in ("PatientComments", "PatientAddress", "ImageComments", "AdditionalPatientHistory"):
        setattr(made, name, "PlantedDoe lives at planted street")
    made.OtherPatientIDsSequence = [Dataset()]
    made.OtherPatientIDsSequence[0].PatientID = NUMBER
    made.private_block(0x0011, "planted", create=True).add_new(1, "LO", "PlantedDoe")
    return made


def file_bytes(made: Dataset, *, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Write a data set as a Part 10 file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = made.SOPClassUID
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    target = io.BytesIO()
    whole = FileDataset(target, made, file_meta=meta, preamble=b"\0" * 128)
    dcmwrite(target, whole, enforce_file_format=True)
    return target.getvalue()


def deflated_bomb(megabytes: int) -> bytes:
    """Return a small deflated file whose data set is so many megabytes of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = b"".join(packer.compress(bytes(2**20)) for _ in range(megabytes)) + packer.flush()
    syntax = b"1.2.840.10008.1.2.1.99"
    head = b"\x02\x00\x10\x00UI" + len(syntax).to_bytes(2, "little") + syntax
    return bytes(128) + b"DICM" + head + body


def real_files() -> list[Path]:
    """Return the DICOM files of the test data; skip where there are none."""
    folder = Path(os.environ.get("WARDROUND_TEST_DATA", "")) / "dicom"
    found = sorted(folder.glob("*.dcm"))
    if "WARDROUND_TEST_DATA" not in os.environ or not found:
        pytest.skip("WARDROUND_TEST_DATA names no folder with dicom/*.dcm")
    return found
