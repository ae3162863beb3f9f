import pytest

from tests.client.serving import ServedSite, picture


def test_store_then_confirm(site: ServedSite) -> None:
    stored = site.store(picture(), patient_id="MRN-1", age="57", sex="female")
    assert stored.status_code == 201
    body = stored.json()
    assert (body["status"], body["label"], body["task"]) == ("waiting", None, "dermoscopy")
    confirmed = site.call("POST", f"/cases/{body['case_id']}/confirm", json={"label": "mel"})
    assert confirmed.status_code == 200
    assert (confirmed.json()["status"], confirmed.json()["label"]) == ("confirmed", "mel")
    case = site.services.store.get(body["case_id"])
    assert (case.status, case.label, case.age_band, case.sex) == (
        "confirmed",
        "mel",
        "50-59",
        "female",
    )
    assert site.services.store.image_bytes(case)


def test_a_label_given_at_once_confirms(site: ServedSite) -> None:
    body = site.store(picture(), label="nv").json()
    assert (body["status"], body["label"]) == ("confirmed", "nv")


def test_cases_are_stored_before_there_is_a_model(site_without_model: ServedSite) -> None:
    stored = site_without_model.store(picture())
    assert stored.status_code == 201
    path = f"/cases/{stored.json()['case_id']}/confirm"
    assert site_without_model.call("POST", path, json={"label": "bkl"}).status_code == 200


def test_the_same_image_again_is_the_same_case(site: ServedSite) -> None:
    first = site.store(picture(), patient_id="MRN-1")
    again = site.store(picture(), patient_id="MRN-1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["case_id"] == again.json()["case_id"]


def test_contradictions_are_conflicts(site: ServedSite) -> None:
    case_id = site.store(picture(), patient_id="MRN-1").json()["case_id"]
    other_patient = site.store(picture(), patient_id="MRN-2")
    assert (other_patient.status_code, other_patient.json()["code"]) == (409, "case-conflict")
    path = f"/cases/{case_id}/confirm"
    assert site.call("POST", path, json={"label": "mel"}).status_code == 200
    assert site.call("POST", path, json={"label": "mel"}).status_code == 200
    changed = site.call("POST", path, json={"label": "nv"})
    assert (changed.status_code, changed.json()["code"]) == (409, "case-already-confirmed")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"label": "measles"}, "label-unknown"),
        ({"age": "old"}, "request-invalid"),
        ({"age": "nan"}, "request-invalid"),
        ({"age": "131"}, "request-invalid"),
        ({"patient_id": "x" * 129}, "request-invalid"),
        ({"colour": "red"}, "request-invalid"),
    ],
)
def test_fields_that_do_not_fit(site: ServedSite, fields: dict[str, str], code: str) -> None:
    answer = site.store(picture(), **fields)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert site.services.store.counts("dermoscopy").waiting == 0


@pytest.mark.parametrize("fields", [{"patient_id": " "}, {"age": "", "sex": "", "label": ""}])
def test_empty_fields_count_as_absent(site: ServedSite, fields: dict[str, str]) -> None:
    assert site.store(picture(), **fields).status_code == 201


def test_confirming_what_is_not_there_or_not_a_class(site: ServedSite) -> None:
    missing = site.call("POST", f"/cases/{'0' * 32}/confirm", json={"label": "nv"})
    assert (missing.status_code, missing.json()["code"]) == (404, "case-not-found")
    case_id = site.store(picture()).json()["case_id"]
    path = f"/cases/{case_id}/confirm"
    unknown = site.call("POST", path, json={"label": "measles"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "label-unknown")
    for body in (b"", b"{", b"[]", b'{"label": 3}', b'{"label": "nv", "more": 1}'):
        headers = {"content-type": "application/json"}
        answer = site.call("POST", path, content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "request-invalid")
    assert site.services.store.get(case_id).status == "waiting"


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=a"])
def test_a_confirmation_is_small(site: ServedSite, kind: str) -> None:
    case_id = site.store(picture()).json()["case_id"]
    body = b'{"label": "nv", "x": "' + b"x" * 20_000 + b'"}'
    headers = {"content-type": kind}
    answer = site.call("POST", f"/cases/{case_id}/confirm", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "upload-too-large")


def test_counts_name_nobody(site: ServedSite) -> None:
    site.store(picture(1), patient_id="MRN-1", label="nv")
    site.store(picture(2), patient_id="MRN-2")
    answer = site.call("GET", "/cases")
    counts = answer.json()["counts"]
    assert (counts["confirmed"], counts["waiting"]) == (1, 1)
    assert "MRN" not in answer.text
