"""The audit log says who asked for an answer or withdrew a case; nothing of it leaves the site."""

from __future__ import annotations

import base64

import pytest

from client.access.roles import Role
from client.review.tables import CaseFlagRow
from common.audit_chain import verify
from common.audit_entries import ENTRY, CaseViewed, PatientWithdrawn, PredictionMade
from common.audit_lines import AuditLine
from common.moments import utc_now
from tests.client.access.conftest import GuardedSite
from tests.client.serving import RECIPE, picture

MODEL = f"/v2/models/{RECIPE.name}"


def lines(guarded: GuardedSite) -> list[AuditLine]:
    return list(guarded.site.services.access.audit.lines())


def ask(guarded: GuardedSite, path: str, key: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    if path.startswith("/v2"):
        data = [base64.b64encode(picture()).decode()]
        given = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data}
        answer = guarded.site.call("POST", path, json={"inputs": [given]}, headers=headers)
    else:
        files = {"image": ("x.png", picture())}
        answer = guarded.site.call("POST", path, files=files, headers=headers)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "path",
    [
        *("/predict", "/predict/fhir", "/predict/batch", "/explain"),
        *(f"{MODEL}/infer", f"{MODEL}/versions/1/infer"),
    ],
)
def test_each_answer_names_who_asked_also_one_that_was_kept(
    guarded: GuardedSite, path: str
) -> None:
    access = guarded.site.services.access
    for name in ("anna", "bert"):  # the same pixels: the second answer is the first one's
        ask(guarded, path, access.keys.add(name, [Role.clinician]))
    entries = [line.entry() for line in lines(guarded)]
    made = [entry for entry in entries if isinstance(entry, PredictionMade)]
    assert [entry.by for entry in made] == ["anna", "bert"]
    assert len({entry.request_id for entry in made}) == 2
    assert verify(access.audit) == ()


def test_a_withdrawal_names_who_asked(guarded: GuardedSite) -> None:
    files = {"image": ("x.png", picture())}
    stored = guarded.call("POST", "/cases", Role.clinician, files=files).json()["case_id"]
    guarded.call("POST", f"/review/{stored}/withdraw", Role.clinician)
    entries = [line.entry() for line in lines(guarded)]
    assert PatientWithdrawn(cases=1, by="clinician-key") in entries


def test_each_look_at_a_case_names_who_looked(guarded: GuardedSite) -> None:
    files = {"image": ("x.png", picture())}
    stored = guarded.call("POST", "/cases", Role.clinician, files=files).json()["case_id"]
    for path in ("", "/image", "/history"):
        answer = guarded.call("GET", f"/review/{stored}{path}", Role.clinician)
        assert answer.status_code == 200, answer.text
    guarded.call("GET", f"/review/{stored}/history", Role.auditor)
    seen = [entry for line in lines(guarded) if isinstance(entry := line.entry(), CaseViewed)]
    assert {entry.case for entry in seen} == {stored}
    assert [(entry.part, entry.by) for entry in seen] == [
        *(("case", "clinician-key"), ("picture", "clinician-key"), ("history", "clinician-key")),
        ("history", "auditor-key"),
    ]
    assert verify(guarded.site.services.access.audit) == ()


def test_nobody_reads_a_case_again_through_what_changes_nothing(guarded: GuardedSite) -> None:
    files = {"image": ("x.png", picture())}
    stored = guarded.call("POST", "/cases", Role.clinician, files=files).json()["case_id"]
    with guarded.site.services.store.transactions.writing() as session:
        session.add(CaseFlagRow(case_id=stored, code="blurred", raised_at=utc_now()))
    body = {"verdict": "correct", "label": "mel"}
    for _ in range(2):
        for path in ("opinion", "flags/blurred/dismiss"):
            answer = guarded.call("POST", f"/review/{stored}/{path}", Role.clinician, json=body)
            assert answer.status_code == 200, answer.text
            assert answer.json()["opinions"], "the whole case is in the answer"
    guarded.call("POST", f"/review/{stored}/flags/no-such/dismiss", Role.clinician)
    seen = [entry for line in lines(guarded) if isinstance(entry := line.entry(), CaseViewed)]
    assert seen == [CaseViewed(case=stored, part="case", by="clinician-key")] * 4


def test_what_was_not_shown_is_not_in_the_log(guarded: GuardedSite) -> None:
    files = {"image": ("x.png", picture())}
    stored = guarded.call("POST", "/cases", Role.clinician, files=files).json()["case_id"]
    assert guarded.call("GET", f"/review/{stored}/image", Role.it).status_code == 403
    for path in ("", "/image", "/history"):
        answer = guarded.call("GET", f"/review/{'0' * 32}{path}", Role.clinician)
        assert answer.status_code == 404
    assert not any(line.kind == "case-viewed" for line in lines(guarded))


def test_lines_from_before_callers_were_named_read_and_write_as_they_were() -> None:
    digest = "a" * 64
    for body in (
        f'{{"kind":"prediction","request_id":"r1","version":1,"model_digest":"{digest}"}}',
        '{"kind":"patient-withdrawn","cases":1}',
        '{"kind":"unaudited","predictions":3}',
    ):
        assert ENTRY.validate_json(body).model_dump_json() == body
