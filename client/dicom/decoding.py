"""One DICOM file to one picture. Runs in the decoding process; see `client.dicom.decoder`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection

from client.dicom import header
from client.dicom.picture import DEFAULT_DICOM_LIMITS, DicomLimits, DicomPicture
from client.dicom.refusals import unreadable
from client.dicom.rendering import png, render
from common.errors import ImageRefused


def decode_dicom(
    data: bytes,
    *,
    modalities: Collection[str] | None = None,
    limits: DicomLimits = DEFAULT_DICOM_LIMITS,
    frame: int | None = None,
) -> DicomPicture:
    """Decode a file in this very process.

    Parameters
    ----------
    data : bytes
        Part 10, or a bare data set in implicit or explicit VR.
    modalities : collection of str or None
        Accepted values of (0008,0060); None accepts any that has a picture.
    limits : DicomLimits
        ``seconds`` and ``memory_bytes`` are the caller's to enforce.
    frame : int, optional
        Which frame, from 1. Without it a multi-frame file is refused.

    Raises
    ------
    ImageRefused
        Nothing else, whatever the bytes are.
    """
    # pydicom warns of and logs malformed values, and quotes them.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decode(data, modalities, limits, frame)
        except ImageRefused:
            raise
        except MemoryError as error:
            raise unreadable("it does not fit into memory") from error
        except Exception as error:  # pydicom raises almost anything on hostile bytes
            raise unreadable(f"malformed, {type(error).__name__}") from error


def _decode(
    data: bytes, modalities: Collection[str] | None, limits: DicomLimits, frame: int | None
) -> DicomPicture:
    dataset = header.read_header(data, modalities=modalities, limits=limits, frame=frame)
    picture = png(render(dataset, frame=frame))
    laterality = header.text(dataset, "ImageLaterality") or header.text(dataset, "Laterality")
    return DicomPicture(
        png=picture,
        modality=(header.text(dataset, "Modality") or "").upper(),
        age=header.age(dataset),
        sex=header.text(dataset, "PatientSex"),
        laterality=laterality,
        view=header.text(dataset, "ViewPosition"),
        flags=header.flags(dataset),
        patient_id=header.text(dataset, "PatientID"),
        instance=header.text(dataset, "SOPInstanceUID") or "",
        context=header.context(dataset),
    )
