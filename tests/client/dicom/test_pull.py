"""Fetching from a PACS: once each, through the same intake, and bounded whatever it answers."""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from client.dicom.cursor import PullCursor
from client.dicom.pull import Pulled, Puller
from client.dicom.settings import DicomwebSettings
from client.dicom.station import DicomStation
from client.dicom.web import DicomwebSource, Listed
from client.settings import SiteSettings
from common.errors import Busy, ConfigurationError, ImageRefused, ProcessError, StoreError
from deploy.certificates import make_authority, make_server_certificate
from tests.client.dicom.files import NUMBER, PLANTED, dataset, planted
from tests.client.dicom.in_process import InProcessDecoder
from tests.client.dicom.pacs import MULTIPART, FakePacs, Handler, fake_pacs, multipart, reply
from tests.client.serving import site_settings

TODAY = date(2026, 11, 21)
LIMIT = 200_000


@pytest.fixture
def pacs() -> Iterator[FakePacs]:
    with fake_pacs() as made:
        yield made


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


def test_the_search_names_days_and_modality(pacs: FakePacs, tmp_path: Path) -> None:
    made = source(pacs, tmp_path, look_back_days=2)
    assert list(made.listed({"XC", "OT"}, today=TODAY)) == []
    assert len(pacs.asked) == 2
    assert all("StudyDate=20261119-20261122" in path for path in pacs.asked)
    assert ["Modality=OT" in pacs.asked[0], "Modality=XC" in pacs.asked[1]] == [True, True]


@pytest.mark.parametrize(("page", "most"), [(2, None), (200, 2)], ids=["ours", "the-pacs'"])
@pytest.mark.parametrize("knows_offset", [True, False])
def test_pages_are_read_to_their_end(
    pacs: FakePacs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    knows_offset: bool,
    page: int,
    most: int | None,
) -> None:
    monkeypatch.setattr("client.dicom.web.PAGE", page)
    pacs.knows_offset, pacs.most = knows_offset, most
    for number in range(5):
        pacs.put(image(number))
    found = [listed.instance for listed in source(pacs, tmp_path).listed(None, today=TODAY)]
    assert found == [f"1.2.3.{n}" for n in ((1, 2, 3, 4, 5) if knows_offset else (1, 2))]
    assert len(pacs.asked) == (4 if knows_offset else 2)


def test_a_pacs_that_knows_no_page_beyond_its_last_has_answered(
    pacs: FakePacs, tmp_path: Path
) -> None:
    pacs.put(image())
    pacs.odd["/instances"] = lambda handler: (
        reply(handler, b"no such page", "text/plain", 404)
        if "offset=1" in handler.path
        else reply(handler, json.dumps(pacs.rows({"limit": ["9"]})).encode(), JSON)
    )
    found = [listed.instance for listed in source(pacs, tmp_path).listed(None, today=TODAY)]
    assert (found, len(pacs.asked)) == (["1.2.3.1"], 2)


def test_a_search_has_an_end(
    pacs: FakePacs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("client.dicom.web.MOST_IMAGES", 3)
    pacs.most = 2
    for number in range(6):
        pacs.put(image(number))
    assert len(list(source(pacs, tmp_path).listed(None, today=TODAY))) == 4
    assert "dicomweb-search-cut" in caplog.text


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


def test_a_damaged_cursor_costs_a_second_fetch_and_no_more(pacs: FakePacs, tmp_path: Path) -> None:
    inbox = Inbox()
    pacs.put(image())
    puller(pacs, tmp_path, inbox).poll()
    (tmp_path / "pulled.json").write_bytes(b"{half")
    assert puller(pacs, tmp_path, inbox).poll() == Pulled(stored=1)


def test_an_image_that_is_listed_no_more_is_forgotten_later(tmp_path: Path) -> None:
    cursor = PullCursor(tmp_path / "pulled.json", keep_days=1e-7)
    with cursor.open():
        cursor.note("a", "stored")
        time.sleep(0.02)
    with cursor.open():
        assert not cursor.knows("a")


def test_two_processes_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.dicom.cursor._WAIT_SECONDS", 0.1)
    first, second = (PullCursor(tmp_path / "pulled.json", keep_days=1) for _ in range(2))
    with first.open(), pytest.raises(Busy), second.open():
        pass
    with second.open():
        pass


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", MULTIPART)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(65536))


def dripping(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/dicom+json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def dripping_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        handler.wfile.write(b"X-%d: 1\r\n" % number)
        handler.wfile.flush()
        time.sleep(0.1)


def squeezed(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/dicom+json")
    handler.send_header("Content-Encoding", "gzip")
    handler.end_headers()
    handler.wfile.write(b"\x1f\x8b" + bytes(64))


def says(body: bytes, kind: str, status: int = 200) -> Callable[[Handler], None]:
    return lambda handler: reply(handler, body, kind, status)


def redirecting(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "/elsewhere")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def hanging_up(handler: Handler) -> None:
    handler.close_connection = True


JSON = "application/dicom+json"
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("odd", "code"),
    [
        (says(b"<html>", "text/html"), "dicomweb-malformed"),
        (says(b"7", JSON), "dicomweb-malformed"),
        (says(b'[{"00080018": {}}]', JSON), "dicomweb-malformed"),
        (says(DEEP, JSON), "dicomweb-malformed"),
        (
            says(
                b'[{"0020000D": {"Value": ["1.2"]}, "0020000E": {"Value": ["1.2"]},'
                b' "00080018": {"Value": ["../../secret?x="]}}]',
                JSON,
            ),
            "dicomweb-malformed",
        ),
        (says(b"", JSON, 401), "dicomweb-refused"),
        (says(b"", JSON, 500), "dicomweb-away"),
        (redirecting, "dicomweb-away"),
        (squeezed, "dicomweb-malformed"),
        (dripping, "dicomweb-too-slow"),
        (dripping_headers, "dicomweb-too-slow"),
    ],
)
def test_a_search_that_answers_nonsense_ends_soon(
    pacs: FakePacs, tmp_path: Path, odd: Callable[[Handler], None], code: str
) -> None:
    pacs.odd["/instances"] = odd
    started = time.monotonic()
    with pytest.raises(ProcessError) as caught:
        list(source(pacs, tmp_path, seconds=0.5).listed({"XC"}, today=TODAY))
    assert caught.value.code == code
    assert time.monotonic() - started < 3
    assert "127.0.0.1" not in str(caught.value)
    assert not [path for path in pacs.asked if "elsewhere" in path]


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


def test_a_pacs_that_is_away_is_asked_again(pacs: FakePacs, tmp_path: Path) -> None:
    gone = DicomwebSource(
        DicomwebSettings(url="http://127.0.0.1:9/x", seconds=2), tmp_path, maximum_bytes=LIMIT
    )
    with pytest.raises(ProcessError) as caught:
        list(gone.listed(None, today=TODAY))
    assert caught.value.code == "dicomweb-away"


def test_secrets_are_read_from_files_and_sent(pacs: FakePacs, tmp_path: Path) -> None:
    (tmp_path / "dicomweb-password").write_text("hush\n")
    list(source(pacs, tmp_path, user="site").listed(None, today=TODAY))
    assert pacs.headers[-1]["authorization"] == "Basic c2l0ZTpodXNo"
    (tmp_path / "dicomweb-token").write_text("tok")
    list(source(pacs, tmp_path).listed(None, today=TODAY))
    assert pacs.headers[-1]["authorization"] == "Bearer tok"
    (tmp_path / "dicomweb-password").unlink()
    with pytest.raises(ConfigurationError):
        source(pacs, tmp_path, user="site")


def test_over_tls_only_to_a_pacs_that_the_site_knows(tmp_path: Path) -> None:
    authority = make_authority()
    own = make_server_certificate(authority, hosts=["127.0.0.1"])
    for name, data in (("ca", authority.certificate), ("crt", own.certificate), ("key", own.key)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "other-ca").write_bytes(make_authority().certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    with fake_pacs(tls=context) as pacs:
        pacs.put(image())
        (found,) = source(pacs, tmp_path, ca=tmp_path / "ca").listed({"XC"}, today=TODAY)
        assert found.instance == "1.2.3.1"
        for ca in (None, tmp_path / "other-ca"):
            with pytest.raises(ProcessError) as caught:
                list(source(pacs, tmp_path, ca=ca).listed({"XC"}, today=TODAY))
            assert caught.value.code == "dicomweb-away"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"url": "http://pacs.example/x"}, "dicomweb-without-tls"),
        ({"url": "https://pacs.example/x", "ca": "/nowhere.pem"}, "configuration"),
    ],
)
def test_unsafe_settings_are_refused(fields: dict[str, object], code: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DicomwebSource(DicomwebSettings.model_validate(fields), tmp_path, maximum_bytes=1)
    assert caught.value.code == code


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
