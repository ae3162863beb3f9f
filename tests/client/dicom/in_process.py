"""A decoder without processes, for tests of what stands around it."""

from __future__ import annotations

from collections.abc import Collection

from client.dicom.decoder import DicomDecoder
from client.dicom.decoding import decode_dicom
from client.dicom.picture import DicomPicture


class InProcessDecoder(DicomDecoder):
    """Decodes in the calling thread."""

    def __init__(self) -> None:
        super().__init__()

    def decode(
        self, data: bytes, *, modalities: Collection[str] | None = None, frame: int | None = None
    ) -> DicomPicture:
        return decode_dicom(data, modalities=modalities, frame=frame)
