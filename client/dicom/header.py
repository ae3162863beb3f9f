"""From bytes to a parsed data set that is known to be one picture of an accepted kind.

Runs in the decoding process (`client.dicom.worker`), never in the service.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection
from datetime import date, datetime

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from client.dicom.picture import MANUFACTURER, DicomContext, DicomLimits, looks_like_dicom
from client.dicom.refusals import refused, too_large, unreadable

_META_TAG = b"\x02\x00"
_LONG_VALUES = frozenset({b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"OD", b"OL", b"UC", b"UR"})
# Not pictures of tissue, though some have pixels (PS3.4 annex B.5 names the classes).
_NO_PICTURES = {
    "RTDOSE": "a radiotherapy dose grid",
    "RTPLAN": "a radiotherapy plan",
    "RTSTRUCT": "a radiotherapy structure set",
    "SEG": "a segmentation",
    "SR": "a structured report",
    "PR": "a presentation state",
    "KO": "a key object selection",
    "ECG": "a waveform",
    "HD": "a waveform",
    "AU": "a waveform",
    "DOC": "a document",
    "REG": "a registration",
}
_CONTEXT = (
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"),
    *("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
    *("StudyDescription", "Modality", "Rows", "Columns", "BurnedInAnnotation"),
)


def read_header(
    data: bytes, *, modalities: Collection[str] | None, limits: DicomLimits, frame: int | None
) -> Dataset:
    """Parse a file, and refuse all that is no single picture of an accepted modality.

    Parameters
    ----------
    data : bytes
    modalities : collection of str or None
        Accepted values of (0008,0060); None accepts any that has a picture.
    limits : DicomLimits
    frame : int or None
        The wanted frame, from 1, of a multi-frame file.

    Raises
    ------
    ImageRefused
        With a code that begins with ``dicom-``.
    """
    if len(data) > limits.bytes:
        raise too_large(f"{len(data)} bytes")
    if not looks_like_dicom(data):
        raise unreadable("neither Part 10 nor a bare data set")
    dataset = dcmread(io.BytesIO(_inflated(data, limits.bytes)), force=True)
    _check_kind(dataset, modalities)
    _check_shape(dataset, limits, frame)
    _assume_native(dataset)
    for tag, what in (
        ("BurnedInAnnotation", "text burned into its pixels"),
        ("RecognizableVisualFeatures", "a recognisable face"),
    ):
        if str(dataset.get(tag, "")).strip().upper() == "YES":
            raise refused(
                "identifying-pixels",
                f"The header says that the picture has {what}.",
                meaning="Pixels are kept as they are, so they would name the patient.",
                action="Export it without the annotation.",
            )
    return dataset


def flags(dataset: Dataset) -> tuple[str, ...]:
    """Return what a reviewer should look at."""
    said = str(dataset.get("BurnedInAnnotation", "")).strip().upper()
    return () if said == "NO" else ("burned-in-unknown",)


def age(dataset: Dataset) -> str | None:
    """Return (0010,1010), or whole years between birth and study, as DICOM writes ages."""
    said = text(dataset, "PatientAge")
    if said:
        return said
    born, studied = _day(dataset, "PatientBirthDate"), _day(dataset, "StudyDate")
    if born is None or studied is None or studied < born:
        return None
    had_birthday = (studied.month, studied.day) >= (born.month, born.day)
    return f"{studied.year - born.year - (not had_birthday):03d}Y"


def context(dataset: Dataset) -> DicomContext:
    """Return what a report needs to be filed beside the image."""
    return DicomContext({name: text(dataset, name) or "" for name in _CONTEXT})


def text(dataset: Dataset, keyword: str) -> str | None:
    """Return an element as stripped text, None if it is absent, empty or malformed."""
    try:
        value = dataset.get(keyword)
        if isinstance(value, list) or type(value).__name__ == "MultiValue":
            value = "\\".join(str(part) for part in value)
    except Exception:  # pydicom converts values when asked, and raises almost anything
        return None
    said = "" if value is None else str(value).strip(" \0")
    return said[:1024] or None


def _inflated(data: bytes, maximum: int) -> bytes:
    """Return a deflated file inflated, within the limit; any other as it is.

    pydicom would inflate without a bound: 100 kB may be 100 MB (PS3.5 A.5).
    """
    found = _meta(data)
    if found is None or UID(found[0]) != DeflatedExplicitVRLittleEndian:
        return data
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = stream.decompress(data[found[1] :], maximum + 1)
    except zlib.error as error:
        raise unreadable("the deflated data set is damaged") from error
    if len(body) > maximum:
        raise too_large("once inflated")
    syntax = ExplicitVRLittleEndian.encode() + b"\0"
    meta = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(syntax)) + syntax
    return bytes(128) + b"DICM" + meta + body


def _meta(data: bytes) -> tuple[str, int] | None:
    """Return transfer syntax and length of preamble and file meta group (PS3.10, 7.1)."""
    position = 132 if data[128:132] == b"DICM" else 0
    syntax = None
    while data[position : position + 2] == _META_TAG and position + 12 <= len(data):
        kind = data[position + 4 : position + 6]
        if kind in _LONG_VALUES:
            (length,) = struct.unpack_from("<I", data, position + 8)
            start = position + 12
        else:
            (length,) = struct.unpack_from("<H", data, position + 6)
            start = position + 8
        if data[position + 2 : position + 4] == b"\x10\x00":
            syntax = data[start : start + length].rstrip(b"\0 ").decode("ascii", "replace")
        position = start + length
    return None if syntax is None else (syntax, position)


def _assume_native(dataset: Dataset) -> None:
    """Give a bare data set the native transfer syntax that it was parsed by (PS3.10, 7.5)."""
    meta = getattr(dataset, "file_meta", None)
    if meta is not None and meta.get("TransferSyntaxUID"):
        if not UID(meta.TransferSyntaxUID).is_transfer_syntax:
            raise unreadable("its transfer syntax is not one that is known")
        return
    implicit, little = dataset.original_encoding
    dataset.file_meta = meta = meta or FileMetaDataset()
    if not little:
        meta.TransferSyntaxUID = ExplicitVRBigEndian
    else:
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def _check_kind(dataset: Dataset, modalities: Collection[str] | None) -> None:
    modality = (text(dataset, "Modality") or "").upper()
    name = UID(text(dataset, "SOPClassUID") or "").name
    known = _NO_PICTURES.get(modality)
    if known is None and any(word in name for word in ("Waveform", "SR Storage", "Segmentation")):
        known = "a waveform, report or segmentation"
    if known is not None:
        raise refused("no-picture", f"The DICOM file is {known}, not a picture.")
    if text(dataset, "Manufacturer") == MANUFACTURER:
        raise refused(
            "own-picture",
            "The DICOM file is a heat map or report that a Wardround site made.",
            meaning="The model would learn from its own drawings.",
        )
    if "PixelData" not in dataset:
        how = "no pixels, or none in whole numbers"
        raise refused("no-pixels", f"The DICOM file has {how}.", action="Send an image.")
    if modalities is not None and modality not in modalities:
        coded = modality if modality.isalnum() and len(modality) <= 16 else "unknown"
        raise refused(
            "modality",
            f"The DICOM file's modality is {coded}.",
            meaning="The model has never seen such pictures.",
            action=f"This task takes {', '.join(sorted(modalities))}.",
        )
    intent = (text(dataset, "PresentationIntentType") or "").upper()
    if intent == "FOR PROCESSING" or "For Processing" in name:  # PS3.3, C.8.11.1.1.2
        raise refused(
            "for-processing",
            "The DICOM file is a detector's raw image (FOR PROCESSING), not one to look at.",
            meaning="The model has seen images for presentation alone and would answer nonsense.",
            action="Send the image FOR PRESENTATION of the same exposure.",
        )


def _check_shape(dataset: Dataset, limits: DicomLimits, frame: int | None) -> None:
    rows, columns = _number(dataset, "Rows"), _number(dataset, "Columns")
    samples, bits = _number(dataset, "SamplesPerPixel", 1), _number(dataset, "BitsAllocated")
    if rows < 1 or columns < 1:
        raise unreadable("no rows or columns")
    if rows * columns > limits.pixels:
        raise too_large(f"{columns} x {rows} pixels")
    if samples not in (1, 3):
        raise refused("samples", f"The DICOM file has {samples} samples a pixel.")
    stored = _number(dataset, "BitsStored", bits)
    if bits not in (8, 16) or not 1 <= stored <= bits:
        raise refused(
            "bits",
            f"The DICOM file has {stored} of {bits} bits a sample.",
            action="Export it with 8 to 16 bits.",
        )
    frames = _number(dataset, "NumberOfFrames", 1)
    if frame is None and frames > 1:
        raise refused(
            "multi-frame",
            f"The DICOM file has {frames} frames.",
            meaning="Which of them is meant is not known.",
            action="Send one frame.",
        )
    if frames > limits.frames or (frame is not None and not 1 <= frame <= max(1, frames)):
        raise refused(
            "frame", f"The DICOM file has {frames} frames.", action="Ask for one of them."
        )


def _number(dataset: Dataset, keyword: str, default: int = 0) -> int:
    try:
        value = dataset.get(keyword)
        return default if value is None or value == "" else int(value)
    except Exception as error:  # pydicom raises almost anything on malformed values
        raise unreadable(f"{keyword} is malformed") from error


def _day(dataset: Dataset, keyword: str) -> date | None:
    try:
        return datetime.strptime((text(dataset, keyword) or "")[:8], "%Y%m%d").date()
    except ValueError:
        return None
