"""A real PACS: storescu sends, the site predicts, Orthanc has the report, dsrdump reads it."""

from __future__ import annotations

import base64
import json
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from client.dicom.pull import Pulled
from client.dicom.station import DicomStation
from client.settings import SiteSettings
from tests.client.dicom.files import NAME, NUMBER, PLANTED, dataset, file_bytes, planted
from tests.client.serving import FakeReleases, listening, make_app, release, site_settings

PROGRAMS = ("Orthanc", "storescu", "echoscu", "dsrdump")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(bool(MISSING) or not PLUGIN.exists(), reason=f"absent: {MISSING or PLUGIN}"),
]


Found = dict[str, dict[str, list[str]]]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def orthanc(folder: Path, port: int) -> Iterator[str]:
    folder.mkdir(exist_ok=True)
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {"site": "secret"},
        "Plugins": [str(PLUGIN)],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(url + "/system", auth=("site", "secret")).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield url + "/dicom-web"
    finally:
        process.terminate()
        process.wait(30)


def found(web: str, study: str, modality: str = "SR") -> list[Found]:
    answer = httpx.get(
        f"{web}/studies/{study}/instances",
        params={"Modality": modality},
        headers={"accept": "application/dicom+json"},
        auth=("site", "secret"),
    )
    return answer.json() if answer.status_code == 200 else []


def send(port: int, file: Path, *, caller: str = "MODALITY") -> subprocess.CompletedProcess[str]:
    command = ["storescu", "-v", "-aet", caller, "-aec", "WARDROUND", "127.0.0.1", str(port)]
    return subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)


def wait_for(condition: object, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():  # type: ignore[operator]
        time.sleep(0.3)


def configured(folder: Path, pacs: int, *, heat_maps: bool = False) -> SiteSettings:
    settings = site_settings(folder)
    with (settings.folder / "site.toml").open("a") as file:
        file.write(
            '[dicom]\nport = 0\ncallers = ["MODALITY"]\n'
            f'stow_url = "http://127.0.0.1:{pacs}/dicom-web"\nstow_user = "site"\n'
            f"heat_maps = {str(heat_maps).lower()}\n"
        )
    (settings.keys / "pacs-password").write_text("secret")
    return SiteSettings.read(settings.folder)


def put(web: str, made: Dataset) -> None:
    """Put an image into the PACS, as a modality of the hospital's would."""
    url = web.removesuffix("/dicom-web") + "/instances"
    answer = httpx.post(url, content=file_bytes(made), auth=("site", "secret"))
    assert answer.is_success, answer.text


def everything_on_disk(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())


def test_round_trip(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for chatty in ("httpx", "httpcore"):  # the test's own calls
        logging.getLogger(chatty).setLevel(logging.WARNING)
    pacs_port = free_port()
    settings = configured(tmp_path, pacs_port)
    app = make_app(settings, releases=FakeReleases(release(tmp_path, 1, favours="mel")))
    study = generate_uid()
    pixels = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    image = planted(dataset(pixels, StudyInstanceUID=study))
    file = tmp_path / "image.dcm"
    file.write_bytes(file_bytes(image))
    with listening(settings, app) as service:
        dicom = settings.dicom.model_copy(update={"service_url": service})
        settings = settings.model_copy(update={"dicom": dicom})
        # The PACS is away when the image arrives, and the site restarts before it is back.
        station = DicomStation(settings)
        port = station.start()
        assert send(port, file, caller="STRANGER").returncode != 0
        sent = send(port, file)
        assert "0x0000" in sent.stderr + sent.stdout or sent.returncode == 0, sent
        assert send(port, file).returncode == 0  # the modality asks again
        assert station.store.counts(settings.task).waiting == 1
        wait_for(lambda: "dicom-pacs-away" in caplog.text)
        station.stop()
        leaked = everything_on_disk(settings.folder)
        assert not [word for word in PLANTED if word.encode() in leaked]
        with orthanc(tmp_path / "orthanc", pacs_port) as web:
            assert found(web, study) == []
            station = DicomStation(settings)
            station.start()
            wait_for(lambda: found(web, study))
            reports = found(web, study)
            wait_for(lambda: not station.outbox.pending())
            metrics = httpx.get(service + "/metrics").text
            station.stop()
            dump = report_text(web, study, reports[0], tmp_path)
    assert len(reports) == 1
    assert station.outbox.pending() == []
    assert not list((settings.data / "dicom").iterdir())
    for text in ("UNVERIFIED", NAME.split("^", maxsplit=1)[0], NUMBER, "Probability of mel"):
        assert text in dump
    assert "Positive at the threshold" in dump
    left = everything_on_disk(settings.folder)
    for word in PLANTED:
        assert word.encode() not in left
        assert word not in caplog.text + metrics
    assert base64.b64encode(NUMBER.encode()) not in left


def test_images_are_fetched_from_the_pacs_and_heat_maps_follow_the_reports(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    pacs_port = free_port()
    settings = configured(tmp_path, pacs_port, heat_maps=True)
    with (settings.folder / "site.toml").open("a") as file:
        file.write(f'[dicomweb]\nurl = "http://127.0.0.1:{pacs_port}/dicom-web"\nuser = "site"\n')
    (settings.keys / "dicomweb-password").write_text("secret")
    settings = SiteSettings.read(settings.folder)
    app = make_app(settings, releases=FakeReleases(release(tmp_path, 1, favours="mel")))
    study, day = generate_uid(), f"{datetime.now(UTC):%Y%m%d}"
    with listening(settings, app) as service, orthanc(tmp_path / "orthanc", pacs_port) as web:
        dicom = settings.dicom.model_copy(update={"service_url": service})
        settings = settings.model_copy(update={"dicom": dicom})
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
            put(web, planted(dataset(pixels, StudyInstanceUID=study, StudyDate=day)))
        put(web, planted(dataset(StudyInstanceUID=study, StudyDate=day, Modality="CT")))
        old = planted(dataset(StudyDate="20000101"))
        put(web, old)
        # As `wardround site dicom pull` does it; then the station, which delivers.
        puller = DicomStation(settings, deliver=False)
        assert puller.puller is not None
        assert puller.puller.poll() == Pulled(stored=3)
        puller.stop()
        station = DicomStation(settings)
        station.start()
        wait_for(lambda: len(found(web, study, "OT")) == 3 and not station.outbox.pending())
        assert station.puller is not None
        again = station.puller.poll()  # our own heat maps are of an accepted modality
        station.stop()
        reports, pictures = found(web, study, "SR"), found(web, study, "OT")
        capture = instance(web, study, pictures[0], tmp_path / "capture.dcm")
        assert station.store.counts(settings.task).waiting == 3
    assert (len(reports), len(pictures)) == (3, 3)
    assert again.stored == again.failed == 0
    assert again.known >= 3
    made = dcmread(capture)
    assert (made.PatientName, made.Manufacturer) == (NAME, "Wardround")
    assert made.pixel_array.shape[2] == 3
    command = ["dcmdump", "+L", "+P", "DerivationDescription", str(capture)]
    if shutil.which("dcmdump"):
        dumped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "not verified by a person" in dumped
    left = everything_on_disk(settings.folder)
    for word in PLANTED:
        assert word.encode() not in left
        assert word not in caplog.text


def instance(web: str, study: str, found: Found, target: Path) -> Path:
    series, instance = found["0020000E"]["Value"][0], found["00080018"]["Value"][0]
    url = f"{web}/studies/{study}/series/{series}/instances/{instance}"
    headers = {"accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    answer = httpx.get(url, auth=("site", "secret"), headers=headers)
    body = answer.content
    start = body.index(b"DICM") - 128
    target.write_bytes(body[start : body.rindex(b"\r\n--")])
    return target


def report_text(web: str, study: str, found: Found, folder: Path) -> str:
    command = ["dsrdump", str(instance(web, study, found, folder / "report.dcm"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout
