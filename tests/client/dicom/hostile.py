"""A decoder that does what broken C++ does; loaded into the decoding process by its test hook."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any

from client.dicom.picture import DicomPicture


def decode_dicom(data: bytes, **options: Any) -> DicomPicture:
    from client.dicom.decoding import decode_dicom as real

    if b"SEGFAULT" in data:
        ctypes.string_at(0)
    if b"HANG" in data:
        time.sleep(3600)
    if b"EAT" in data:
        hoard = bytearray(2**34)
        assert hoard
    if b"PRINT" in data:
        sys.stdout.write("PlantedDoe")
        os.write(1, b"PlantedDoe")
        os.write(2, b"PlantedDoe")
    return real(data, **options)
