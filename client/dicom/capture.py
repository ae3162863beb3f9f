"""A heat map as a DICOM image: Secondary Capture, derived, of the image that it explains."""

from __future__ import annotations

import io

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset, dcmwrite
from pydicom.sr.codedict import codes

from client.dicom.answer import ExplainedAnswer
from client.dicom.filing import MANUFACTURER, PATIENT_AND_STUDY, derived_uid, evidence, in_silence
from client.dicom.picture import DicomContext
from common.imaging import decode

_SERIES_NUMBER = 9002
_TEXT_SIZE = 14
_MARGIN = 6
_METHODS = {"grad-cam": "Grad-CAM"}


@in_silence()
def write_capture(answer: ExplainedAnswer, context: DicomContext, *, site: str) -> bytes:
    """Write a heat map on one image, as a Part 10 file with a preamble.

    It is filed in the image's study, in a series of its own, under the patient as the image names
    them, and names the image as its source. That it is derived, by which model, and that no
    person verified it stands in the header and, because viewers hide headers, as text below the
    picture. As with the report, its SOP Instance UID follows from the image and what answered.

    Parameters
    ----------
    answer : ExplainedAnswer
    context : DicomContext
        The image's.
    site : str
        The site's name.
    """
    image = evidence(context)
    source = (image.SOPInstanceUID, *answer.source)
    method = _METHODS.get(answer.method, answer.method)
    said = (
        f"{method}: what speaks for {answer.class_name}. Model result, not verified by a person. "
        f"Wardround {answer.task} version {answer.model_version}"
        f"{f', {answer.company}' if answer.company else ''}."
    )
    capture = SCImage(
        pixel_array=_captioned(decode(answer.overlay_png), said),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # asked for here, and taken out below: it is not known
        study_instance_uid=image.StudyInstanceUID,
        series_instance_uid=derived_uid("capture-series", *source),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=derived_uid("capture", *source),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=f"Wardround {answer.task}"[:64],
        software_versions=answer.software[:64],
        device_serial_number=answer.model_digest[:64],
        institution_name=site[:64],
        content_qualification="RESEARCH",
        series_description="Model heat map, not verified",
        specific_character_set="ISO_IR 192",
    )
    _file(capture, image, context)
    capture.DerivationDescription = said
    capture.ImageComments = f"{answer.regions} Uncalibrated probability {answer.probability:.4f}."
    target = io.BytesIO()
    capture.preamble = bytes(128)
    dcmwrite(target, capture, enforce_file_format=True)
    return target.getvalue()


def _file(capture: Dataset, image: Dataset, context: DicomContext) -> None:
    """Name patient and study as the image does, and the image as the source."""
    for name in PATIENT_AND_STUDY:
        if image.get(name) is not None or name in capture:
            setattr(capture, name, image.get(name))
    capture.PatientOrientation = None
    if context.values.get("BurnedInAnnotation", "").strip().upper() == "NO":
        capture.BurnedInAnnotation = "NO"  # our own text names nobody
    source = Dataset()
    source.ReferencedSOPClassUID = image.SOPClassUID
    source.ReferencedSOPInstanceUID = image.SOPInstanceUID
    source.SpatialLocationsPreserved = "NO"
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = purpose.value, purpose.scheme_designator
    item.CodeMeaning = purpose.meaning
    source.PurposeOfReferenceCodeSequence = [item]
    capture.SourceImageSequence = [source]


def _captioned(picture: NDArray[np.uint8], said: str) -> NDArray[np.uint8]:
    """Put a sentence below a picture, (h, w, 3), white on black."""
    font = ImageFont.load_default(_TEXT_SIZE)
    width = picture.shape[1]
    lines = [""]
    for word in said.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width - 2 * _MARGIN or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    height = _TEXT_SIZE + 4
    band = Image.new("RGB", (width, len(lines) * height + 2 * _MARGIN))
    pen = ImageDraw.Draw(band)
    for number, line in enumerate(lines):
        pen.text((_MARGIN, _MARGIN + number * height), line, font=font, fill=(255, 255, 255))
    return np.concatenate([picture, np.asarray(band)], axis=0)
