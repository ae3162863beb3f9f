"""What files a derived object beside its image: patient and study as the image names them."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from highdicom import PatientSexValues
from pydicom import Dataset
from pydicom.uid import UID
from pydicom.valuerep import DA, TM

from client.dicom.picture import MANUFACTURER, DicomContext

__all__ = [
    "MANUFACTURER",
    "PATIENT_AND_STUDY",
    "SCHEME",
    "can_be_filed",
    "derived_uid",
    "evidence",
    "in_silence",
]

SCHEME = "99WARDROUND"
PATIENT_AND_STUDY = (
    *("StudyInstanceUID", "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate"),
    *("PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyDescription"),
)
_READ_BY: dict[str, Callable[[str], object]] = {
    "PatientBirthDate": DA,
    "StudyDate": DA,
    "StudyTime": TM,
    "PatientSex": PatientSexValues,
}
_OF_THE_IMAGE = ("SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality")


@contextmanager
def in_silence() -> Iterator[None]:
    """Keep highdicom and pydicom quiet: their warnings quote values, a patient's name among them.

    Around whatever writes such values; as a decorator, too.
    """
    for name in ("highdicom", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def evidence(context: DicomContext) -> Dataset:
    """Return the image as far as what is derived from it must name it.

    A birth date such as 19500000, a sex beyond M, F and O, a malformed date or time of the study
    and several names at once stay empty, as they may (type 2: PS3.3, C.7.1.1 and C.7.2.1), and so
    does a malformed UID of the image's series: highdicom writes none of them, and what files an
    object is the study's UID and the PatientID.
    """
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 192"  # values are decoded text by now
    for name in (*PATIENT_AND_STUDY, *_OF_THE_IMAGE):
        value = context.values.get(name, "")
        setattr(image, name, value if value and _can_be_written(name, value) else None)
    image.Rows, image.Columns = (int(context.values[name]) for name in ("Rows", "Columns"))
    return image


@in_silence()
def can_be_filed(context: DicomContext) -> bool:
    """Tell whether `evidence` can be made: False where it never can be, of these values."""
    try:
        evidence(context)
    except (KeyError, ValueError, TypeError):
        return False
    return True


def _can_be_written(name: str, value: str) -> bool:
    if name == "PatientName":
        return "\\" not in value
    if name == "SeriesInstanceUID":
        return bool(UID(value).is_valid)
    reads = _READ_BY.get(name)
    try:
        if reads is not None:
            reads(value)
    except (ValueError, TypeError):
        return False
    return True


def derived_uid(*parts: str) -> str:
    """Return a UID that follows from its parts (PS3.5 B.2: 2.25. and a 128-bit number)."""
    digest = hashlib.sha256("\0".join(("wardround", *parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
