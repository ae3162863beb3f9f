"""Who may send what: callers, sizes, refusals as statuses, and no word of a patient in the log."""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE

from client.dicom.decoder import DicomDecoder
from client.dicom.intake import DicomIntake
from client.dicom.receiver import StorageReceiver
from client.dicom.settings import DicomSettings
from common.errors import Busy, ConfigurationError, ImageRefused, ProcessError, StoreError
from tests.client.dicom.files import PLANTED, dataset, planted

SETTINGS = DicomSettings(port=0, callers=("PACS",), maximum_bytes=2**20)


class Inbox:
    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.trouble: Exception | None = None

    def take(self, data: bytes) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.taken.append(data)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def port(inbox: Inbox) -> Iterator[int]:
    receiver = StorageReceiver(SETTINGS, inbox.take)
    yield receiver.start()
    receiver.stop()


def sent(
    port: int,
    made: Dataset,
    *,
    caller: str = "PACS",
    called: str = "WARDROUND",
    tls: tuple[ssl.SSLContext, str] | None = None,
) -> Dataset:
    entity = AE(ae_title=caller)
    entity.add_requested_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title=called, tls_args=tls)
    if not association.is_established:
        return Dataset()
    assert [c.abstract_syntax for c in association.rejected_contexts] == [CTImageStorage]
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    try:
        return association.send_c_store(made)
    finally:
        association.release()


def test_a_listed_caller_is_heard_and_strangers_are_not(port: int, inbox: Inbox) -> None:
    assert sent(port, dataset()).Status == 0
    assert inbox.taken[0][128:132] == b"DICM"
    assert "Status" not in sent(port, dataset(), caller="STRANGER")
    assert "Status" not in sent(port, dataset(), called="OTHER")
    assert len(inbox.taken) == 1


def test_a_data_set_beyond_the_limit_is_cut_off(port: int, inbox: Inbox) -> None:
    huge = dataset(np.zeros((4096, 4096), np.uint8))
    assert "Status" not in sent(port, huge)
    assert sent(port, dataset()).Status == 0
    assert len(inbox.taken) == 1


@pytest.mark.parametrize(
    ("trouble", "status", "comment"),
    [
        (ImageRefused("", code="dicom-bits"), 0xC000, "dicom-bits"),
        (Busy(""), 0xA700, "busy"),
        (StoreError(""), 0xA700, "store"),
        (ProcessError("", code="dicom-decoder-unavailable"), 0xA700, "dicom-decoder-unavailable"),
        (RuntimeError("PlantedDoe"), 0xA700, "internal"),
    ],
)
def test_refusals_become_statuses(
    port: int,
    inbox: Inbox,
    trouble: Exception,
    status: int,
    comment: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    inbox.trouble = trouble
    answer = sent(port, planted(dataset()))
    assert (answer.Status, answer.ErrorComment) == (status, comment)
    assert not [word for word in PLANTED if word in caplog.text]


def test_what_no_decoder_could_look_at_may_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with closing(DicomIntake(DicomDecoder(), None)) as intake:
        receiver = StorageReceiver(SETTINGS, intake.take)  # type: ignore[arg-type]
        answer = sent(receiver.start(), dataset())
        receiver.stop()
    assert (answer.Status, answer.ErrorComment) == (0xA700, "dicom-decoder-unavailable")


@pytest.mark.parametrize(
    "fields", [{"callers": ()}, {"host": "0.0.0.0"}, {"tls_key": "x"}], ids=str
)
def test_unsafe_settings_are_refused(fields: dict[str, object]) -> None:
    unsafe = DicomSettings.model_validate(SETTINGS.model_dump() | fields)
    with pytest.raises(ConfigurationError):
        StorageReceiver(unsafe, Inbox().take)
