"""A report that the PACS has is delivered, whatever the status says of it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
from pydicom import dcmread

from client.dicom.delivery import StowArchive
from client.dicom.settings import DicomSettings
from common.errors import ProcessError
from tests.client.dicom.files import dataset, file_bytes
from tests.client.dicom.pacs import FakePacs

UID = "1.2.3.1"
REPORT = file_bytes(dataset(SOPInstanceUID=UID))
OTHER = "1.2.3.2"


def sequence(tag: str, uid: str | None = UID, reason: int | None = None) -> bytes:
    item: dict[str, object] = {}
    if uid is not None:
        item["00081155"] = {"vr": "UI", "Value": [uid]}
    if reason is not None:
        item["00081197"] = {"vr": "US", "Value": [reason]}
    return json.dumps({tag: {"vr": "SQ", "Value": [item]}}).encode()


def referenced(uid: str = UID) -> bytes:
    return sequence("00081199", uid)


def failed(reason: int, uid: str | None = UID) -> bytes:
    return sequence("00081198", uid, reason)


@pytest.fixture
def archive(pacs: FakePacs) -> Iterator[StowArchive]:
    made = StowArchive(DicomSettings(stow_url=pacs.url), None)
    yield made
    made._client.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"<xml/>"),
        (200, b"[]"),
        (200, b'{"00081198": {"vr": "SQ"}, "00081199": {"vr": "SQ", "Value": []}}'),
        (200, referenced()),
        (202, referenced()),
        (200, failed(0x0111)),
        (409, failed(0x0111)),
        (409, failed(0x0111, None)),
    ],
)
def test_what_the_pacs_has_is_delivered(
    pacs: FakePacs, archive: StowArchive, status: int, body: bytes
) -> None:
    pacs.answers = [(status, body)]
    archive(REPORT)
    assert len(pacs.sent) == 1
    start = pacs.sent[0].index(b"\r\n\r\n") + 4
    assert dcmread(io.BytesIO(pacs.sent[0][start:])).SOPInstanceUID == UID


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, failed(0x0110)),
        (202, b""),
        (202, referenced(OTHER)),
        (202, b'{"00081199": []}'),
        (202, b'{"00081199": {"Value": [7]}}'),
        (409, b"instance exists"),
        (409, failed(0xA700)),
        (409, failed(0x0111, OTHER)),
        pytest.param(409, b"[" * 100_000, id="deep"),
        (503, b""),
    ],
)
def test_what_it_may_not_have_is_sent_again(
    pacs: FakePacs, archive: StowArchive, status: int, body: bytes
) -> None:
    pacs.answers = [(status, body)]
    with pytest.raises(ProcessError) as caught:
        archive(REPORT)
    assert caught.value.code == "dicom-pacs-away"
