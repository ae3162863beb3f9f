"""Fetching from a PACS: once each, through the same intake, and none held up by another."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from client.dicom.decoder import DicomDecoder
from client.dicom.pull import Pulled
from client.dicom.station import DicomStation
from client.dicom.web import DicomwebSource, Listed
from client.settings import SiteSettings
from common.errors import Busy, ImageRefused, ProcessError, StoreError
from tests.client.dicom.fetching import LIMIT, Inbox, image, puller, table
from tests.client.dicom.files import NUMBER, PLANTED
from tests.client.dicom.in_process import InProcessDecoder
from tests.client.dicom.pacs import JSON, MULTIPART, FakePacs, Handler, multipart, redirecting, says
from tests.client.serving import site_settings


def test_what_is_new_is_fetched_once_as_it_is_stored(pacs: FakePacs, tmp_path: Path) -> None:
    inbox = Inbox()
    for number in range(3):
        pacs.put(image(number))
    pacs.put(image(9, Modality="CT"))
    assert puller(pacs, tmp_path, inbox).poll() == Pulled(stored=3)
    assert inbox.taken == [pacs.files[f"1.2.3.{n}"][1] for n in (1, 2, 3)]
    # Another process, after a restart.
    pacs.put(image(4))
    assert puller(pacs, tmp_path, inbox).poll() == Pulled(stored=1, known=3)
    assert len(pacs.fetched()) == 4
    sent = [h["accept"] for p, h in zip(pacs.asked, pacs.headers, strict=True) if "/studies/" in p]
    assert all("transfer-syntax=*" in accept for accept in sent)


def test_refusals_are_remembered_and_a_full_disk_is_not(pacs: FakePacs, tmp_path: Path) -> None:
    inbox = Inbox()
    for number in range(3):
        pacs.put(image(number))
    inbox.trouble = {0: ImageRefused("", code="dicom-bits"), 1: StoreError("full")}
    asked = puller(pacs, tmp_path, inbox)
    with pytest.raises(StoreError):
        asked.poll()
    assert len(inbox.taken) == 1
    assert asked.poll() == Pulled(stored=1, known=2)
    inbox.trouble = {2: Busy("")}
    pacs.put(image(5))
    assert asked.poll() == Pulled(failed=1, known=3)
    assert asked.poll() == Pulled(stored=1, known=3)
    kept = json.loads((tmp_path / "pulled.json").read_bytes())["entries"]
    assert sorted(e["code"] for e in kept.values()) == ["dicom-bits", *["stored"] * 3]
    assert (tmp_path / "pulled.json").stat().st_mode & 0o777 == 0o600


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", MULTIPART)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(65536))


def hanging_up(handler: Handler) -> None:
    handler.close_connection = True


@pytest.mark.parametrize(
    ("odd", "code"),
    [
        (endless, "dicomweb-too-large"),
        (says(multipart(bytes(LIMIT + 1)), MULTIPART), "dicomweb-too-large"),
        (says(multipart(), MULTIPART), "dicomweb-malformed"),
        (says(multipart(b"a", b"b"), MULTIPART), "dicomweb-malformed"),
        (says(b"no boundary anywhere", MULTIPART), "dicomweb-malformed"),
        (says(b"\r\n--frontier\r\nno end of header", MULTIPART), "dicomweb-malformed"),
        (says(b"x", "text/plain"), "dicomweb-malformed"),
        (says(b"gone", JSON, 404), "dicomweb-not-given"),
        (says(b"broken", JSON, 500), "dicomweb-not-given"),
        (says(b"never for you", JSON, 403), "dicomweb-not-given"),
        (redirecting, "dicomweb-not-given"),
        (hanging_up, "dicomweb-not-given"),
    ],
)
def test_an_image_that_does_not_come_does_not_hold_up_the_others(
    pacs: FakePacs, tmp_path: Path, odd: Callable[[Handler], None], code: str
) -> None:
    inbox = Inbox()
    for number in range(3):
        pacs.put(image(number))
    pacs.odd["/instances/1.2.3.2"] = odd
    asked = puller(pacs, tmp_path, inbox)
    assert asked.poll() == Pulled(stored=2, failed=1)
    assert asked.poll() == Pulled(failed=1, known=2)
    assert asked.poll() == Pulled(refused=1, known=2)  # three times is enough
    assert asked.poll() == Pulled(known=3)
    kept = json.loads((tmp_path / "pulled.json").read_bytes())["entries"]
    assert sorted(e["code"] for e in kept.values()) == [code, "stored", "stored"]


def test_a_pacs_that_gives_no_image_for_a_while_costs_none(pacs: FakePacs, tmp_path: Path) -> None:
    inbox = Inbox()
    for number in range(7):
        pacs.put(image(number))
    pacs.odd["/instances/"] = says(b"", JSON, 503)
    asked = puller(pacs, tmp_path, inbox)
    for _ in range(4):
        assert asked.poll() == Pulled(failed=5)
    pacs.odd.clear()
    assert asked.poll() == Pulled(stored=7)


def test_images_that_never_come_hold_up_none_behind_them(pacs: FakePacs, tmp_path: Path) -> None:
    inbox = Inbox()
    for number in range(8):
        pacs.put(image(number))
        if number < 6:
            pacs.odd[f"/instances/1.2.3.{number + 1}"] = says(b"", JSON, 500)
    asked = puller(pacs, tmp_path, inbox)
    assert asked.poll() == Pulled(failed=5)
    assert asked.poll() == Pulled(stored=2, failed=5), "what failed is asked for last"
    found = []
    for number in range(70, 74):
        pacs.put(image(number))
        found.append(replace(asked.poll(), known=0))
    assert found == [
        Pulled(stored=1, failed=5),
        Pulled(stored=1, refused=4, failed=1),
        Pulled(stored=1, refused=1, failed=1),
        Pulled(stored=1, refused=1),
    ]


def test_a_connection_that_cannot_be_made_ends_the_poll_and_counts_against_no_image(
    pacs: FakePacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacs.put(image())
    asked = puller(pacs, tmp_path, Inbox())
    real = DicomwebSource.fetch

    def away(self: DicomwebSource, listed: Listed) -> bytes:
        there = self._settings
        self._settings = there.model_copy(update={"url": "http://127.0.0.1:9/x"})
        try:
            return real(self, listed)
        finally:
            self._settings = there

    with monkeypatch.context() as patched:
        patched.setattr(DicomwebSource, "fetch", away)
        for _ in range(4):
            with pytest.raises(ProcessError) as caught:
                asked.poll()
            assert caught.value.code == "dicomweb-away"
    assert asked.poll() == Pulled(stored=1)


def test_a_decoder_that_cannot_start_ends_the_poll_and_refuses_no_image(
    pacs: FakePacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacs.put(image(0))
    assert puller(pacs, tmp_path, Inbox()).poll() == Pulled(stored=1)
    before = json.loads((tmp_path / "pulled.json").read_bytes())["entries"].keys()
    for number in range(1, 4):
        pacs.put(image(number))
    with monkeypatch.context() as patched, closing(DicomDecoder()) as decoder:
        patched.setattr(sys, "executable", "/bin/false")
        asked = puller(pacs, tmp_path, decoder.decode)  # type: ignore[arg-type]
        with pytest.raises(ProcessError) as caught:
            asked.poll()
        assert caught.value.code == "dicom-decoder-unavailable"
    assert len(pacs.fetched()) == 2
    assert json.loads((tmp_path / "pulled.json").read_bytes())["entries"].keys() == before
    decodes = InProcessDecoder().decode
    asked = puller(pacs, tmp_path, decodes)  # type: ignore[arg-type]
    assert asked.poll() == Pulled(stored=3, known=1)


@pytest.fixture
def site(
    pacs: FakePacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[SiteSettings, DicomStation]]:
    monkeypatch.setattr("client.dicom.modalities.DicomDecoder", lambda **_: InProcessDecoder())
    settings = site_settings(tmp_path)
    settings = settings.model_copy(update={"dicomweb": table(pacs, poll_seconds=0.05)})
    station = DicomStation(settings)
    yield settings, station
    station.stop()


def test_fetched_images_become_waiting_cases_without_a_word_of_the_patient(
    pacs: FakePacs,
    site: tuple[SiteSettings, DicomStation],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    settings, station = site
    study = generate_uid()
    for number in range(2):
        pacs.put(image(number, StudyInstanceUID=study))
    pacs.put(image(2, Manufacturer="Wardround", StudyInstanceUID=study))  # our own heat map
    pacs.put(image(3, BurnedInAnnotation="YES"))
    assert station.receiver is None
    assert station.start() is None
    deadline = time.monotonic() + 20
    while station.store.counts(settings.task).waiting < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    station.stop()
    assert station.store.counts(settings.task).waiting == 2
    codes = json.loads((settings.data / "dicom" / "pulled.json").read_bytes())["entries"].values()
    assert {"stored", "dicom-own-picture"} <= {entry["code"] for entry in codes}
    disk = b"".join(p.read_bytes() for p in settings.folder.rglob("*") if p.is_file())
    for word in (*PLANTED, NUMBER, study):
        assert word.encode() not in disk
        assert word not in caplog.text
    assert threading.active_count() < 20


def test_the_same_image_sent_and_fetched_is_one_case(
    pacs: FakePacs, site: tuple[SiteSettings, DicomStation]
) -> None:
    settings, station = site
    made = pacs.put(image())
    station.take(pacs.files[str(made.SOPInstanceUID)][1])
    assert station.puller is not None
    assert station.puller.poll() == Pulled(stored=1)
    assert station.store.counts(settings.task).waiting == 1
