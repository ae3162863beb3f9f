"""DICOM among the files that a site takes in: any other passes through as it is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from client.dicom.decoder import DicomDecoder
from client.dicom.picture import DicomPicture, looks_like_dicom
from client.dicom.refusals import refused


@dataclass(frozen=True)
class TakenIn:
    """A file for `common.imaging`, and what its header said if it was DICOM."""

    image: bytes
    header: DicomPicture | None = None

    @property
    def patient_id(self) -> str | None:
        """(0010,0020); None where there is none, or no header."""
        return None if self.header is None else self.header.patient_id

    @property
    def age(self) -> str | None:
        """As DICOM writes ages; None where it is not known."""
        return None if self.header is None else self.header.age

    @property
    def sex(self) -> str | None:
        """(0010,0040); None where it is not known."""
        return None if self.header is None else self.header.sex


class DicomIntake:
    """Turns DICOM files into pictures by the site's rules.

    Parameters
    ----------
    decoder : DicomDecoder
    modalities : collection of str or None
        See `client.dicom.modalities`.
    burned_in : {"flag", "refuse"}
        What becomes of images whose header does not rule out burned-in text.
    """

    def __init__(
        self, decoder: DicomDecoder, modalities: Collection[str] | None, burned_in: str = "flag"
    ) -> None:
        self._decoder, self._modalities, self._burned_in = decoder, modalities, burned_in

    def take(self, data: bytes) -> TakenIn:
        """Decode a DICOM file; hand any other on.

        Raises
        ------
        ImageRefused, Busy, ProcessError
            As `DicomDecoder.decode`, or ``dicom-burned-in-unknown``.
        """
        if not looks_like_dicom(data):
            return TakenIn(data)
        picture = self._decoder.decode(data, modalities=self._modalities)
        if picture.flags and self._burned_in == "refuse":
            raise refused(
                "burned-in-unknown",
                "The header does not rule out burned-in text.",
                meaning="This site keeps only images of which it does.",
                action="Set (0028,0301) to NO where that is so, and send it again.",
            )
        return TakenIn(picture.png, picture)

    def close(self) -> None:
        """End the decoding processes."""
        self._decoder.close()
