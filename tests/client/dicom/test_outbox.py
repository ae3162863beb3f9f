"""Reports that wait, while others come and go."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from client.cases.pseudonyms import Pseudonyms
from client.dicom.outbox import Pending, ReportOutbox
from client.dicom.picture import DicomContext
from client.dicom.station import DicomStation
from tests.client.dicom.files import dataset, file_bytes
from tests.client.dicom.in_process import InProcessDecoder
from tests.client.serving import site_settings

FIRST, SECOND = "a" * 32, "b" * 32


def delivered_since_the_folder_was_read(folder: Path, identifier: str) -> None:
    """Leave a name that is listed and, when it is looked at, not there."""
    (folder / f"{identifier}.report").symlink_to(folder / "not-there")


def test_a_report_that_is_delivered_meanwhile_hides_no_other(tmp_path: Path) -> None:
    keys, folder = site_settings(tmp_path).keys, tmp_path / "dicom"
    outbox = ReportOutbox(folder, Pseudonyms.read(keys / "pseudonyms"))
    outbox.keep(Pending(FIRST, "case", time.time(), DicomContext({})))
    delivered_since_the_folder_was_read(folder, SECOND)
    assert outbox.pending() == [FIRST]
    assert (outbox.holds(FIRST), outbox.holds(SECOND)) == (True, False)
    outbox.remove(FIRST)
    assert not outbox.holds(FIRST)


def test_an_image_keeps_its_report_while_another_is_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.dicom.modalities.DicomDecoder", lambda **_: InProcessDecoder())
    settings = site_settings(tmp_path)
    fields = {"callers": ("PACS",), "stow_url": "http://127.0.0.1:9"}
    dicom = settings.dicom.model_copy(update=fields)
    station = DicomStation(settings.model_copy(update={"dicom": dicom}), deliver=False)
    delivered_since_the_folder_was_read(settings.data / "dicom", SECOND)
    made = dataset(BurnedInAnnotation="NO")
    station.take(file_bytes(made))
    assert station.outbox.holds(station.outbox.id_of(str(made.SOPInstanceUID)))
    station.stop()
