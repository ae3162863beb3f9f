"""The model asked about a stored case: by the site's own file, whatever a screen shows of it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from client.cases.accepted_image import accept_image
from client.releases.cache import LocalRelease
from client.review.settings import ReviewSettings
from client.settings import SiteSettings
from common.audit_entries import CaseViewed, PredictionMade
from tests.client.serving import FakeReleases, ServedSite, picture, served_site, wide_picture

ASKED = ("predict", "explain", "similar")


def kept(site: ServedSite, image: bytes, label: str | None = None) -> str:
    """Store a case as the PACS brings it: larger than an upload may be."""
    task = site.services.settings.task
    made = site.services.store.add(image, task=task, patient_id=None, label=label, source="dicom")
    return made.id


def ask(site: ServedSite, case_id: str, what: str, **options: Any) -> httpx.Response:
    return site.call("POST", f"/review/{case_id}/{what}", **options)


def test_the_answer_is_to_all_of_the_pixels_and_stands_with_its_case(site: ServedSite) -> None:
    image = wide_picture()
    case_id = kept(site, image)
    answer = ask(site, case_id, "predict")
    assert answer.status_code == 200, answer.text
    found = site.call("GET", f"/review/{case_id}").json()
    assert [a["request_id"] for a in found["answers"]] == [answer.json()["request_id"]]
    (kept_answer,) = site.services.answers.for_pixels(accept_image(image).pixels_digest)
    assert kept_answer.label(*_classes(site)) == "mel"
    body = {"verdict": "agree", "label": "mel"}
    done = site.call("POST", f"/review/{case_id}/opinion", json=body)
    assert (done.status_code, done.json()["label"]) == (200, "mel"), done.text


def _classes(site: ServedSite) -> tuple[tuple[str, ...], tuple[str, ...]]:
    recipe = site.services.recipe()
    return recipe.classes, recipe.decision.positive_classes


def test_a_stored_case_is_explained_and_compared_as_its_upload_is(site: ServedSite) -> None:
    image = picture(31)
    confirmed = kept(site, picture(32), "nv")
    case_id = kept(site, image)
    given = {"method": "grad-cam", "class": "nv"}
    mine = ask(site, case_id, "explain", json=given).json()
    files = {"image": ("x.png", image)}
    uploaded = site.call("POST", "/explain", files=files, data=given).json()
    assert (mine["class"], mine["overlay_png"]) == ("nv", uploaded["overlay_png"])
    assert ask(site, case_id, "explain").json()["class"] == "mel"  # the verdict's
    site.services.explanations._similar.update()  # else made beside, some time after the label
    near = ask(site, case_id, "similar").json()
    assert [one["case_id"] for one in near["cases"]] == [confirmed]


@pytest.mark.parametrize("body", [{"class": "measles"}, {"method": "guess"}, {"image": "x"}])
def test_what_cannot_be_explained_is_refused(site: ServedSite, body: dict[str, str]) -> None:
    answer = ask(site, kept(site, picture(33)), "explain", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("what", ASKED)
def test_a_case_that_is_not_there_any_more_is_not_asked_about(site: ServedSite, what: str) -> None:
    case_id = kept(site, picture(34))
    site.services.store.withdraw_case(case_id)
    for wanted, code in ((case_id, "case-withdrawn"), ("0" * 32, "case-not-found")):
        answer = ask(site, wanted, what)
        assert (answer.status_code, answer.json()["code"]) == (404, code)


def test_who_asked_is_in_the_audit_log(site: ServedSite) -> None:
    case_id = kept(site, picture(35))
    for what in ASKED:
        assert ask(site, case_id, what).status_code == 200
    entries = [line.entry() for line in site.services.access.audit.lines()]
    views = [entry for entry in entries if isinstance(entry, CaseViewed)]
    assert [(view.case, view.part) for view in views] == [
        *((case_id, "case"), (case_id, "picture"), (case_id, "case")),
    ]
    assert sum(isinstance(entry, PredictionMade) for entry in entries) == 2


def test_a_blind_reader_hears_nothing_of_the_model_before_they_judged(
    settings: SiteSettings, melanoma: LocalRelease
) -> None:
    rules = ReviewSettings(readers=2, blinded=True)
    blind = settings.model_copy(update={"review": rules})
    with served_site(blind, FakeReleases(melanoma)) as site:
        case_id = kept(site, picture(36))
        for what in ASKED:
            answer = ask(site, case_id, what)
            assert (answer.status_code, answer.json()["code"]) == (409, "reads-blind")
        assert site.services.answers.for_pixels(accept_image(picture(36)).pixels_digest) == ()
        body = {"verdict": "correct", "label": "nv"}
        site.call("POST", f"/review/{case_id}/opinion", json=body)
        assert ask(site, case_id, "predict").status_code == 200
