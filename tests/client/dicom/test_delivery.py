"""Report first, heat map after it; each sent until it is there, and never twice as two."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom import dcmread

from client.access.caller import Role
from client.access.keys import Keys
from client.cases.store import CaseStore
from client.dicom.capture import write_capture
from client.dicom.decoding import decode_dicom
from client.dicom.delivery import StowArchive
from client.dicom.outbox import Pending
from client.dicom.picture import DicomContext
from client.dicom.service import Service, ServiceExplainer, ServicePredictor, site_service
from client.dicom.settings import DicomSettings
from common.database import open_database
from common.errors import ImageRefused, ProcessError
from tests.client.dicom.delivering import ANSWER, EXPLAINED, PICTURE, Asked, Pacs, Site, kinds
from tests.client.dicom.files import NAME, NUMBER, PLANTED
from tests.client.dicom.pacs import FakePacs
from tests.client.serving import picture, site_settings


def test_the_heat_map_follows_the_report(site: Site) -> None:
    pacs, explain = Pacs(), Asked([EXPLAINED])
    assert site.delivery(explain, pacs).work() == 1
    assert kinds(pacs) == ["SR", "OT"]
    assert site.outbox.pending() == []
    assert pacs.kept[0].StudyInstanceUID == pacs.kept[1].StudyInstanceUID
    assert pacs.kept[0].SeriesInstanceUID != pacs.kept[1].SeriesInstanceUID


@pytest.mark.parametrize(("status", "tag"), [(409, "00081198"), (202, "00081199")])
def test_the_heat_map_follows_a_report_that_the_pacs_has_already(
    site: Site, pacs: FakePacs, status: int, tag: str
) -> None:
    sent: list[str] = []

    def archive(report: bytes) -> None:
        made = dcmread(io.BytesIO(report))
        says = {"00081155": {"Value": [made.SOPInstanceUID]}, "00081197": {"Value": [0x0111]}}
        pacs.answers = [] if sent else [(status, json.dumps({tag: {"Value": [says]}}).encode())]
        sent.append(made.Modality)
        stow(report)

    stow = StowArchive(DicomSettings(stow_url=pacs.url), None)
    assert site.delivery(Asked([EXPLAINED]), archive).work() == 1
    assert (sent, len(pacs.sent), site.outbox.pending()) == (["SR", "OT"], 2, [])
    stow._client.close()


def test_without_being_asked_for_there_is_none(site: Site) -> None:
    pacs = Pacs()
    site.delivery(None, pacs).work()
    assert kinds(pacs) == ["SR"]
    assert site.outbox.pending() == []


def test_a_report_does_not_wait_for_its_heat_map(site: Site) -> None:
    away = ProcessError("", code="dicom-service-away")
    pacs, explain, predict = Pacs(away={3}), Asked([away, away, EXPLAINED]), Asked([ANSWER])
    delivery = site.delivery(explain, pacs, predict)
    delivery.work()
    assert kinds(pacs) == ["SR"]
    delivery.work()
    assert kinds(pacs) == ["SR"]  # not again
    # The process is killed, and comes back: what was done stays done.
    delivery = site.delivery(explain, pacs, predict)
    pacs.away = {2}
    delivery.work()
    assert (kinds(pacs), site.outbox.pending()) == (["SR"], ["a" * 32])
    delivery.work()
    assert (kinds(pacs), site.outbox.pending()) == (["SR", "OT"], [])
    assert (predict.calls, explain.calls) == (1, 3)


def test_a_report_that_cannot_be_written_holds_up_no_other(
    site: Site, context: DicomContext, caplog: pytest.LogCaptureFixture
) -> None:
    site.outbox.keep(Pending("b" * 32, site.case_id, time.time(), context))
    pacs, predict = Pacs(), Asked([ValueError("PlantedDoe"), ANSWER])
    delivery = site.delivery(None, pacs, predict)
    delivery._waits = {}
    assert delivery.work() == 1
    assert (kinds(pacs), site.outbox.pending()) == (["SR"], ["a" * 32])
    assert (delivery.work(), predict.calls) == (0, 2)  # the model is not asked again at once
    assert "code=ValueError" in caplog.text
    assert not [word for word in PLANTED if word in caplog.text]


@pytest.mark.parametrize("rows", ["PlantedDoe", "24\\24", None])
def test_a_report_that_can_never_be_written_is_given_up_at_once(
    site: Site, context: DicomContext, caplog: pytest.LogCaptureFixture, rows: str | None
) -> None:
    others = {name: value for name, value in context.values.items() if name != "Rows"}
    broken = DicomContext(others if rows is None else others | {"Rows": rows})
    site.outbox.keep(Pending("a" * 32, site.case_id, time.time(), broken))
    pacs, predict = Pacs(), Asked([ANSWER])
    assert site.delivery(None, pacs, predict).work() == 0
    assert (predict.calls, site.outbox.pending()) == (0, [])
    assert "dicom-report-given-up" in caplog.text
    assert not [word for word in PLANTED if word in caplog.text]


def test_a_file_that_cannot_be_read_is_said_once_and_goes_when_its_days_are_over(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    (site.outbox._folder / f"{'c' * 32}.report").write_bytes(b"damaged")
    delivery = site.delivery(None, Pacs(), Asked([ANSWER]))
    for _ in range(3):
        delivery.work()
    assert caplog.text.count("dicom-report-unreadable") == 1
    assert site.outbox.pending() == ["c" * 32]
    delivery._keep_seconds = -1.0
    delivery.work()
    assert site.outbox.pending() == []


def test_where_there_is_no_heat_map_the_report_stands_alone(site: Site) -> None:
    pacs = Pacs()
    site.delivery(Asked([None]), pacs).work()
    assert (kinds(pacs), site.outbox.pending()) == (["SR"], [])


def test_a_case_that_was_withdrawn_meanwhile_gets_no_heat_map(site: Site) -> None:
    pacs, explain = Pacs(), Asked([ProcessError(""), EXPLAINED])
    delivery = site.delivery(explain, pacs)
    delivery.work()
    site.store.withdraw_case(site.case_id)
    delivery.work()
    assert (kinds(pacs), site.outbox.pending(), explain.calls) == (["SR"], [], 1)


def test_a_file_of_an_earlier_version_is_still_read(site: Site, context: DicomContext) -> None:
    token = site.outbox._fernet.encrypt(
        b'{"case_id": "%s", "created": 1.0, "context": {}, "report": null}' % site.case_id.encode()
    )
    site.outbox._path("b" * 32).write_bytes(token)
    found = site.outbox.read("b" * 32)
    assert found is not None
    assert (found.capture, found.reported) == (None, False)
    assert not [word for word in PLANTED if word in repr(found)]


def test_a_capture_says_what_it_is_and_names_only_its_own_patient(context: DicomContext) -> None:
    data = write_capture(EXPLAINED, context, site="st-elsewhere")
    capture = dcmread(io.BytesIO(data))
    assert list(capture.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert capture.ContentQualification == "RESEARCH"
    for words in (capture.SeriesDescription, capture.DerivationDescription):
        assert "not verified" in words
    assert "version 3" in capture.DerivationDescription
    source = capture.SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == context.values["SOPInstanceUID"]
    assert (capture.PatientName, capture.PatientID) == (NAME, NUMBER)
    assert capture.StudyInstanceUID == context.values["StudyInstanceUID"]
    assert capture.BurnedInAnnotation == "NO"
    pixels = capture.pixel_array
    np.testing.assert_array_equal(pixels[:300], PICTURE)
    assert pixels[300:].max() > 200  # the sentence
    again = dcmread(io.BytesIO(write_capture(EXPLAINED, context, site="st-elsewhere")))
    assert again.SOPInstanceUID == capture.SOPInstanceUID
    own = {"head_digest": "b" * 64, "together_with": (2,)}
    for change in (own, {"model_digest": "b" * 64}, {"class_name": "nv"}, {"together_with": (2,)}):
        other = EXPLAINED.model_copy(update=change)
        made = dcmread(io.BytesIO(write_capture(other, context, site="x")))
        assert made.SOPInstanceUID != capture.SOPInstanceUID
        assert ("own head and with versions 2" in made.DerivationDescription) == (change is own)
    # Of the patient there is what files it, and nothing more.
    text = str(capture)
    for name in ("PatientAddress", "OtherPatientNames", "InstitutionAddress", "OperatorsName"):
        assert name not in capture
    assert "lives at" not in text


def test_where_burned_in_text_is_not_ruled_out_the_capture_does_not_either(
    context: DicomContext,
) -> None:
    values = {name: v for name, v in context.values.items() if name != "BurnedInAnnotation"}
    data = write_capture(EXPLAINED, DicomContext(values), site="x")
    assert "BurnedInAnnotation" not in dcmread(io.BytesIO(data))


def test_a_capture_leaves_empty_what_cannot_be_written(context: DicomContext) -> None:
    values = context.values | {"PatientBirthDate": "19500000", "PatientSex": "U"}
    capture = dcmread(io.BytesIO(write_capture(EXPLAINED, DicomContext(values), site="x")))
    assert (capture.PatientBirthDate, capture.PatientSex) == ("", "")
    assert (capture.PatientName, capture.PatientID) == (NAME, NUMBER)


def test_a_heat_map_never_becomes_a_case(context: DicomContext) -> None:
    data = write_capture(EXPLAINED, context, site="x")
    with pytest.raises(ImageRefused) as caught:
        decode_dicom(data, modalities={"OT"})
    assert caught.value.code == "dicom-own-picture"


def test_the_station_makes_itself_a_key_where_the_service_has_accounts(tmp_path: Path) -> None:
    settings = site_settings(tmp_path)
    CaseStore.open(settings).close()
    assert site_service(settings)._client.headers.get("authorization") is None
    closed = settings.model_copy(update={"access": "accounts"})
    secrets = [
        site_service(closed)._client.headers["authorization"].removeprefix("Bearer ")
        for _ in range(2)
    ]
    engine = open_database(settings.database)
    keys = Keys(engine)
    assert keys.caller(secrets[0]) is None  # of the process before
    caller = keys.caller(secrets[1])
    assert caller is not None
    assert (caller.name, caller.roles) == ("dicom-station", {Role.clinician})
    engine.dispose()
    (settings.keys / "service-key").write_text("wrk_given\n")
    given = site_service(closed)
    assert given._client.headers["authorization"] == "Bearer wrk_given"
    files = b"".join(p.read_bytes() for p in settings.folder.rglob("*") if p.is_file())
    assert secrets[1].encode() not in files


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [(200, b"{}", ProcessError), (500, b"", ProcessError), (429, b"", ProcessError)],
)
def test_a_service_that_cannot_now_is_asked_again(
    status: int, body: bytes, expected: type[Exception]
) -> None:
    service = Service("http://127.0.0.1:9", None)
    transport = httpx.MockTransport(lambda _request: httpx.Response(status, content=body))
    service._client = httpx.Client(transport=transport)
    for asked in (ServicePredictor(service), ServiceExplainer(service)):
        with pytest.raises(expected) as caught:
            asked(picture())
        assert getattr(caught.value, "code", "") == "dicom-service-away"


def test_an_image_that_the_service_refuses_is_refused_for_good() -> None:
    service = Service("http://127.0.0.1:9", None)
    service._client = httpx.Client(
        transport=httpx.MockTransport(lambda _request: httpx.Response(422))
    )
    assert ServicePredictor(service)(picture()) is None
    assert ServiceExplainer(service)(picture()) is None
