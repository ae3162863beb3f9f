"""The structured report of a doubtful answer, as a DICOM reader sees it."""

from __future__ import annotations

import io
import logging

import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes

from client.dicom.answer import Answer, Note
from client.dicom.decoding import decode_dicom
from client.dicom.picture import DicomContext
from client.dicom.report import write_report
from tests.client.dicom.files import NAME, NUMBER, dataset, file_bytes, planted
from tests.client.dicom.test_fhir import ANSWER


def items(node: Dataset) -> list[Dataset]:
    inside = [one for child in node.get("ContentSequence", []) for one in items(child)]
    return [node, *inside]


def context_of(**fields: str) -> DicomContext:
    made = planted(dataset(BurnedInAnnotation="NO", PatientName=NAME))
    context = decode_dicom(file_bytes(made), modalities=None).context
    return DicomContext(context.values | fields)


def report(answer: Answer, **fields: str) -> list[Dataset]:
    context = context_of(**fields)
    return items(dcmread(io.BytesIO(write_report(answer, context, site="st-elsewhere"))))


def named(found: list[Dataset], code: str) -> list[Dataset]:
    return [
        item
        for item in found
        if "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeValue == code
    ]


def test_no_person_has_read_it_and_it_says_so() -> None:
    root = report(ANSWER)[0]
    assert (root.VerificationFlag, root.CompletionFlag) == ("UNVERIFIED", "PARTIAL")
    assert root.PreliminaryFlag == "PRELIMINARY"
    assert "VerifyingObserverSequence" not in root


def test_doubts_are_in_the_report_and_each_code_means_one_thing() -> None:
    doubtful = ANSWER.model_copy(
        update={
            "uncertainty": 0.25,
            "refer": True,
            "refer_reasons": ("uncertain", "set-spans-verdict", "not-of-this-kind"),
            "warnings": (Note(code="image-blurred"), Note(code="out-of-distribution")),
            "threshold_source": "site",
        }
    )
    found = report(doubtful)
    measured = named(found, "UNCERTAINTY")[0].MeasuredValueSequence[0]
    assert float(measured.NumericValue) == 0.25
    referred = [i.ConceptCodeSequence[0] for i in named(found, "REFERRAL")]
    assert [code.CodeMeaning for code in referred] == [
        *("Refer: uncertain", "Refer: set-spans-verdict", "Refer: not-of-this-kind")
    ]
    warned = [i.ConceptCodeSequence[0] for i in named(found, "IMAGE-WARNING")]
    values = [code.CodeValue for code in (*referred, *warned)]
    assert len(set(values)) == len(values)
    assert all(len(value) <= 16 for value in values)  # VR SH
    parameters = named(found, codes.DCM.AlgorithmParameters.value)
    assert "of the site" in parameters[0].TextValue


def test_without_doubts_the_report_has_no_word_of_them() -> None:
    found = report(ANSWER)
    for code in ("UNCERTAINTY", "REFERRAL", "IMAGE-WARNING"):
        assert not named(found, code)


OF_THE_SITE = ANSWER.model_copy(
    update={
        "head_digest": "cd" * 32,
        "together_with": (2, 1),
        "calibrated_probabilities": {"benign": 0.4, "malignant": 0.6},
        "profile_digest": "ef" * 32,
    }
)


def test_the_report_says_all_that_answered_and_tells_calibrated_from_raw() -> None:
    found = report(OF_THE_SITE)
    version = named(found, codes.DCM.AlgorithmVersion.value)[0].TextValue
    for word in ("3 sha256:" + "ab" * 32, "head sha256:" + "cd" * 32, "versions 2, 1"):
        assert word in version
    assert found[0].SoftwareVersions == "3 head cdcdcdcdcdcd with 2 1"
    parameters = [p.TextValue for p in named(found, codes.DCM.AlgorithmParameters.value)]
    assert "profile of the site sha256:" + "ef" * 32 in parameters
    assert any("calibrated at the site" in text for text in parameters)
    calibrated = named(found, "C:malignant")[0]
    assert calibrated.ConceptNameCodeSequence[0].CodeMeaning.startswith("Calibrated")
    assert float(calibrated.MeasuredValueSequence[0].NumericValue) == 0.6
    assert not named(found, "P:malignant")
    total = named(found, "P-POSITIVE")[0]
    assert "uncalibrated" in total.ConceptNameCodeSequence[0].CodeMeaning
    assert float(total.MeasuredValueSequence[0].NumericValue) == 0.75


def uids(answer: Answer, context: DicomContext) -> tuple[str, str]:
    root = dcmread(io.BytesIO(write_report(answer, context, site="st-elsewhere")))
    return root.SOPInstanceUID, root.SeriesInstanceUID


def test_equal_answers_are_one_instance_and_any_other_is_another() -> None:
    again = OF_THE_SITE.model_copy(update={"request_id": "r2"})
    context = context_of()
    assert uids(again, context) == uids(OF_THE_SITE, context)
    others: list[dict[str, object]] = [
        *({"head_digest": None}, {"together_with": (2,)}, {"profile_digest": "0" * 64}),
        *({"threshold": 0.5000001}, {"threshold_source": "site"}, {"model_version": 4}),
        *({"model_digest": "0" * 64}, {"refer_reasons": ("uncertain",)}),
        {"warnings": (Note(code="image-blurred"),)},
    ]
    made = [uids(OF_THE_SITE.model_copy(update=change), context) for change in ({}, *others)]
    assert len(set(made)) == len(made)
    assert len({series for _, series in made}) == len(made)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientBirthDate", "19500000"),
        ("PatientBirthDate", "1950"),
        ("PatientBirthDate", "1950-01-02"),
        ("PatientBirthDate", "19700102\\19700103"),
        ("PatientSex", "U"),
        ("PatientSex", "f"),
        ("StudyDate", "20260230"),
        ("StudyTime", "12:30:00"),
        ("StudyTime", "2561"),
        ("PatientName", "Doe^Jane\\Roe^Jane"),
        ("SeriesInstanceUID", "1.2.3\\1.2.4"),
    ],
)
def test_what_cannot_be_written_of_a_patient_or_study_is_empty_and_the_rest_is_there(
    name: str, value: str
) -> None:
    root = report(ANSWER, **{name: value})[0]
    place = root
    if name == "SeriesInstanceUID":
        evidence = root.CurrentRequestedProcedureEvidenceSequence[0]
        place = evidence.ReferencedSeriesSequence[0]
    assert not place[name].value
    told = {"PatientID": NUMBER, "PatientName": NAME, "PatientBirthDate": "19700102"}
    told |= {"PatientSex": "F", "StudyDate": "20200101"}
    told.pop(name, None)
    assert {other: str(root[other].value) for other in told} == told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientName", "PlantedDoe"),  # highdicom wants a caret in a name
        ("StudyTime", "235960"),
        ("IssuerOfPatientID", "planted" * 20),
        ("Modality", "PlantedDoe"),
    ],
)
def test_warnings_of_the_libraries_reach_no_log(
    name: str, value: str, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    for library in ("pydicom", "highdicom"):
        caplog.set_level(logging.WARNING, logger=library)
    context = context_of(**{name: value})
    recwarn.clear()
    caplog.clear()
    write_report(ANSWER, context, site="st-elsewhere")
    assert ([str(one.message) for one in recwarn], caplog.text) == ([], "")
