"""What files a derived object beside its image: patient and study as the image names them."""

from __future__ import annotations

import hashlib

from pydicom import Dataset

from client.dicom.picture import MANUFACTURER, DicomContext

__all__ = ["MANUFACTURER", "PATIENT_AND_STUDY", "SCHEME", "derived_uid", "evidence"]

SCHEME = "99WARDROUND"
PATIENT_AND_STUDY = (
    *("StudyInstanceUID", "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate"),
    *("PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyDescription"),
)
_OF_THE_IMAGE = ("SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality")


def evidence(context: DicomContext) -> Dataset:
    """Return the image as far as what is derived from it must name it."""
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 192"  # values are decoded text by now
    for name in (*PATIENT_AND_STUDY, *_OF_THE_IMAGE):
        setattr(image, name, context.values.get(name) or None)
    image.Rows, image.Columns = (int(context.values[name]) for name in ("Rows", "Columns"))
    return image


def derived_uid(*parts: str) -> str:
    """Return a UID that follows from its parts (PS3.5 B.2: 2.25. and a 128-bit number)."""
    digest = hashlib.sha256("\0".join(("wardround", *parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
