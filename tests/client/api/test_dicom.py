"""DICOM files at ``/predict`` and ``/cases``, by a real decoding process."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from fhir.resources.R4B.bundle import Bundle

from tests.client.dicom.files import NUMBER, PLANTED, dataset, file_bytes, planted
from tests.client.serving import ServedSite, picture


def test_dicom_is_predicted_and_kept_without_its_header(
    site: ServedSite, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    pixels = np.random.default_rng(2).integers(0, 256, (32, 32, 3), np.uint8)
    image = planted(dataset(pixels))
    good = file_bytes(image)
    other = planted(dataset(pixels // 2))
    answers = [
        site.predict(good),
        site.store(good),
        site.store(file_bytes(other), label="mel"),
        site.store(file_bytes(planted(dataset(pixels, PatientID=NUMBER + "2")))),
        site.predict(file_bytes(planted(dataset(Modality="CT")))),
        site.store(file_bytes(planted(dataset(BurnedInAnnotation="YES")))),
        site.predict(good[:-100]),
        site.predict(file_bytes(planted(dataset(NumberOfFrames=7)))),
        site.call("GET", "/metrics"),
        site.call("GET", "/cases"),
    ]
    codes = [a.json()["code"] if a.status_code >= 400 else None for a in answers[:-2]]
    assert codes == [
        *(None, None, None, "case-conflict", "dicom-modality", "dicom-identifying-pixels"),
        *("dicom-truncated", "dicom-multi-frame"),
    ]
    stored = answers[1].json()
    assert stored["flags"] == ["burned-in-unknown"]
    kept = site.call("GET", f"/review/{stored['case_id']}").json()["flags"]
    assert "burned-in-unknown" in {flag["code"] for flag in kept}
    case = site.services.store.get(stored["case_id"])
    assert (case.age_band, case.sex, case.status) == ("40-49", "female", "waiting")
    labelled = site.services.store.get(answers[2].json()["case_id"])
    assert labelled.patient == case.patient
    captured = capfd.readouterr()
    folder = site.services.settings.folder
    disk = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
    seen = caplog.text + captured.out + captured.err
    seen += "".join(a.text + str(a.headers) for a in answers)
    for word in (*PLANTED, NUMBER):
        assert word not in seen
        assert word.encode() not in disk


def test_an_answer_as_fhir(site: ServedSite) -> None:
    big = picture(size=(150, 150))  # beyond the limit of small bodies, which uploads are not under
    answer = site.call("POST", "/predict/fhir", files={"image": ("x", big)})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/fhir+json")
    report = Bundle.model_validate_json(answer.content).entry[2].resource
    assert report.conclusion.startswith("Positive")
    assert site.call("POST", "/predict/fhir", json={}).status_code == 415
