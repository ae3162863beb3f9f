"""What fetches from the tests' PACS, and takes what it fetched."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
from pydicom import Dataset

from client.dicom.cursor import PullCursor
from client.dicom.pull import Puller
from client.dicom.settings import DicomwebSettings
from client.dicom.web import DicomwebSource
from tests.client.dicom.files import dataset, planted
from tests.client.dicom.pacs import FakePacs

TODAY = date(2026, 11, 21)
LIMIT = 200_000


def table(pacs: FakePacs, **fields: object) -> DicomwebSettings:
    return DicomwebSettings.model_validate({"url": pacs.url, "seconds": 2.0, **fields})


def source(pacs: FakePacs, keys: Path, **fields: object) -> DicomwebSource:
    return DicomwebSource(table(pacs, **fields), keys, maximum_bytes=LIMIT)


def image(number: int = 0, **fields: object) -> Dataset:
    pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
    return planted(dataset(pixels, SOPInstanceUID=f"1.2.3.{number + 1}", **fields))


class Inbox:
    """Takes files, or does not."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.trouble: dict[int, Exception] = {}

    def __call__(self, data: bytes) -> None:
        trouble = self.trouble.pop(len(self.taken), None)
        if trouble is not None:
            raise trouble
        self.taken.append(data)


def puller(pacs: FakePacs, folder: Path, take: Callable[[bytes], None]) -> Puller:
    return Puller(
        source(pacs, folder),
        PullCursor(folder / "pulled.json", keep_days=7),
        take=take,
        id_of=lambda uid: f"id-{hash(uid):x}",
        modalities={"XC"},
        poll_seconds=3600,
    )
