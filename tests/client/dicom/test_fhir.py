"""FHIR documents that a parser of the specification accepts, and that name nobody."""

from __future__ import annotations

import json

import pytest
from fhir.resources.R4B.bundle import Bundle
from pydantic import ValidationError

from client.dicom.answer import Answer, Note
from client.dicom.fhir import fhir_bundle

ANSWER = Answer(
    request_id="r1",
    task="mammography",
    model_version=3,
    model_digest="ab" * 32,
    probabilities={"benign": 0.25, "malignant": 0.75},
    positive_classes=("malignant",),
    positive_probability=0.75,
    threshold=0.5,
    verdict="positive",
)


def test_the_bundle_is_valid_and_says_it_all() -> None:
    document = fhir_bundle(ANSWER, site="north")
    read = Bundle.model_validate_json(json.dumps(document))
    device, risk, report = (entry.resource for entry in read.entry)
    assert device.version[0].value == "3"
    assert device.identifier[0].value == "ab" * 32
    assert [float(p.probabilityDecimal) for p in risk.prediction] == [0.25, 0.75]
    assert (risk.status, report.status) == ("preliminary", "preliminary")
    assert "Positive at the threshold 0.5: 0.7500" in report.conclusion
    urls = {entry.fullUrl for entry in read.entry}
    assert {risk.performer.reference, report.performer[0].reference} <= urls


def test_doubts_go_with_the_answer() -> None:
    doubtful = ANSWER.model_copy(
        update={
            "uncertainty": 0.125,
            "refer": True,
            "refer_reasons": ("set-spans-verdict",),
            "warnings": (Note(code="image-blurred"),),
        }
    )
    read = Bundle.model_validate_json(json.dumps(fhir_bundle(doubtful, site="north")))
    _, risk, report = (entry.resource for entry in read.entry)
    assert "0.1250" in risk.note[0].text
    assert "A person should decide: set-spans-verdict." in report.conclusion
    assert "image-blurred" in report.conclusion


def test_the_bundle_says_all_that_answered_and_what_is_calibrated() -> None:
    answer = ANSWER.model_copy(
        update={
            "head_digest": "cd" * 32,
            "together_with": (2,),
            "calibrated_probabilities": {"benign": 0.4, "malignant": 0.6},
            "profile_digest": "ef" * 32,
        }
    )
    read = Bundle.model_validate_json(json.dumps(fhir_bundle(answer, site="north")))
    device, risk, _ = (entry.resource for entry in read.entry)
    assert [one.value for one in device.identifier] == ["ab" * 32, "cd" * 32, "ef" * 32]
    assert [one.value for one in device.version] == ["3", "2"]
    assert [float(p.probabilityDecimal) for p in risk.prediction] == [0.4, 0.6]
    said = " ".join(note.text for note in risk.note)
    assert "with the site's own head and with versions 2" in said
    assert "calibrated at the site" in said


def test_what_the_service_answers_is_what_a_report_reads() -> None:
    told = {**ANSWER.model_dump(), "warnings": [{"code": "image-blank", "message": "…"}]}
    assert Answer.model_validate(told).warnings[0].code == "image-blank"
    assert ANSWER.advice == ""


def test_a_broken_bundle_would_be_noticed() -> None:
    document = fhir_bundle(ANSWER, site="north")
    del document["entry"][2]["resource"]["code"]
    with pytest.raises(ValidationError):
        Bundle.model_validate_json(json.dumps(document))
