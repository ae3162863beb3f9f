"""The clinician's page in a real browser: from the image to the reasons and the opinion."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from playwright.sync_api import FileChooser, Route, expect

from client.api.prediction_documents import PredictionDocument
from client.review.submission import Submission
from common.errors import ModelError
from tests.chromium import NEEDS_CHROMIUM
from tests.client.pages.visits import Visit
from tests.client.serving import RECIPE, release, wide_picture

pytestmark = NEEDS_CHROMIUM
PATIENCE = 90.0


def test_from_the_image_to_the_opinion(visit: Visit) -> None:
    page, services = visit.page, visit.house.services
    visit.shoot("reading-empty")
    visit.choose(visit.house.fresh_picture(size=(400, 300)))
    expect(page.locator("#reading-status")).to_contain_text("The image was read")
    assert page.evaluate("document.querySelector('#preview').naturalWidth") == 400
    rows = page.locator("#classes tr")
    assert rows.count() == 7
    assert "Melanoma (mel)" in rows.first.inner_text()
    expect(page.locator("#verdict-word")).to_have_text("Positive")
    expect(page.locator("#verdict-reason")).to_contain_text("the release's threshold of 30.0 %")
    digest = services.holder.require().digest
    expect(page.locator("#reading-version")).to_have_text(f"1 ({digest[:12]})")
    assert page.locator("#classes .dot").count() == 3

    expect(page.locator("#why-words")).to_contain_text("Melanoma (mel)")
    alt = page.locator("#overlay").get_attribute("alt")
    assert alt is not None
    assert alt.startswith("Heat map over the image. ")
    drawn = "document.querySelector('#overlay').naturalWidth > 100"
    page.wait_for_function(drawn)
    page.get_by_label("Heat map over the image").fill("0")
    assert page.evaluate("document.querySelector('#overlay').style.opacity") == "0"

    page.get_by_label("Patient number").fill("MRN-4711")
    page.get_by_label("Age (optional)").fill("57")
    page.get_by_label("I agree: Melanoma (mel)").check()
    page.get_by_role("button", name="Store", exact=True).click()
    expect(page.locator("#case-status")).to_have_text("Stored. It waits for a second reader.")
    visit.shoot("reading-stored")
    (waiting,) = services.store.waiting_cases("dermoscopy")
    assert waiting.age_band == "50-59"
    link = page.get_by_role("link", name="Look at this case").get_attribute("href")
    assert link == f"/review-queue?case={waiting.id}"
    services.store.withdraw_case(waiting.id)
    assert visit.complaints == []


FULL: dict[str, Any] = {
    "request_id": "r",
    "task": "dermoscopy",
    "model_version": 3,
    "model_digest": "d" * 64,
    "probabilities": dict.fromkeys(RECIPE.classes, 0.1) | {"nv": 0.4},
    "positive_classes": ["akiec", "bcc", "mel"],
    "positive_probability": 0.31,
    "threshold": 0.25,
    "threshold_source": "site",
    "verdict": "positive",
    "milliseconds": 12.0,
    "calibrated": True,
    "calibrated_probabilities": dict.fromkeys(RECIPE.classes, 0.05) | {"nv": 0.7},
    "together_with": [2],
    "uncertainty": 0.4,
    "prediction_set": ["mel", "nv"],
    "coverage": 0.9,
    "refer": True,
    "refer_reasons": ["uncertain", "set-spans-verdict", "a-reason-of-tomorrow"],
    "warnings": [{"code": "blurred", "message": "The image seems to be out of focus."}],
}


def test_the_fake_answer_is_one_that_the_service_may_give() -> None:
    assert PredictionDocument.model_validate(FULL).refer


def test_everything_that_an_answer_may_say_is_shown(visit: Visit) -> None:
    page = visit.page
    page.route("**/predict", lambda route: route.fulfill(json=FULL))
    visit.choose(visit.house.fresh_picture())
    expect(page.locator("#refer")).to_contain_text("Refer to a human.")
    reasons = page.locator("#refer-reasons li")
    assert "Neither a positive nor a negative" in reasons.nth(1).inner_text()
    assert reasons.nth(2).inner_text() == "a-reason-of-tomorrow"
    expect(page.locator("#warnings")).to_contain_text("out of focus")
    expect(page.locator("#verdict-reason")).to_contain_text("this site's own threshold of 25.0 %")
    expect(page.locator("#sure")).to_contain_text("above what this site allows")
    expect(page.locator("#set")).to_have_text(
        "One of: Melanoma (mel), Melanocytic naevus (nv); the right one is among them in 90 % of "
        "cases."
    )
    expect(page.locator("#reading-status")).to_contain_text("Refer it to a human")
    # The verdict is positive, so agreeing means the likeliest of its side, not of all.
    expect(page.locator("#agree-label")).to_contain_text("(akiec)")
    expect(page.locator("#classes tr").first).to_contain_text("70.0 %")
    expect(page.locator("#reading-version")).to_contain_text("with version 2")
    visit.shoot("reading-refer")


def _absent(route: Route) -> None:
    problem = {"code": "not-found", "what": "There is no such part.", "status": 404}
    body = json.dumps(problem)
    route.fulfill(status=404, body=body, content_type="application/problem+json")


def test_a_part_that_is_missing_leaves_the_rest_standing(visit: Visit) -> None:
    page = visit.page
    for path in ("explain", "similar", "review?**"):
        page.route(f"**/{path}", _absent)
    page.reload()
    visit.choose(visit.house.fresh_picture())
    expect(page.locator("#why-status")).to_contain_text("There is no picture of why here.")
    expect(page.locator("#similar")).to_be_hidden()
    expect(page.locator("#waiting")).to_be_hidden()
    expect(page.locator("#verdict-word")).to_have_text("Positive")


def test_an_image_that_was_chosen_before_the_script_was_there_is_read(visit: Visit) -> None:
    page, held = visit.page, list[Route]()

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/static/page.js", hold)
    page.reload(wait_until="commit")
    picture = {"name": "x.png", "mimeType": "image/png", "buffer": visit.house.fresh_picture()}
    page.locator("#file").set_input_files(picture)  # type: ignore[arg-type]
    expect(page.locator("#reading-status")).to_have_text("Waiting for an image.")
    held[0].continue_()
    expect(page.locator("#reading-status")).to_contain_text("The image was read")
    assert page.evaluate("document.querySelector('#file').files.length") == 0


def test_another_image_starts_from_nothing(visit: Visit) -> None:
    page = visit.page
    visit.choose(visit.house.fresh_picture())
    expect(page.locator("#reading")).to_be_visible()
    page.get_by_label("Patient number").fill("MRN-1")
    page.get_by_label("I am not sure").check()
    page.get_by_role("button", name="Store", exact=True).click()
    expect(page.locator("#case-status")).to_contain_text("Stored as unsure")
    visit.choose(b"no image at all", "notes.png")
    expect(page.locator("#reading-status")).to_have_class("status failed")
    expect(page.locator("#reading")).to_be_hidden()
    expect(page.locator("#overlay")).to_be_hidden()
    expect(page.get_by_label("Patient number")).to_have_value("")
    expect(page.get_by_label("I am not sure")).not_to_be_checked()
    expect(page.locator("#agree-choice")).to_be_hidden()
    expect(page.get_by_role("button", name="Store", exact=True)).to_be_disabled()
    expect(page.locator("#case-link")).to_be_hidden()


def test_an_image_above_the_limit_is_not_sent(visit: Visit) -> None:
    sent: list[str] = []
    visit.page.on("request", lambda request: sent.append(request.url))
    visit.choose(bytes(1_000_001))
    expect(visit.page.locator("#reading-status")).to_contain_text("larger than")
    assert not [url for url in sent if url.endswith("/predict")]


def test_a_dropped_image_is_read(visit: Visit) -> None:
    script = """async () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 50, height: 50 });
      canvas.getContext("2d").fillRect(5, 5, 20, 20);
      const blob = await new Promise((done) => canvas.toBlob(done));
      const files = new DataTransfer();
      files.items.add(new File([blob], "x.png", { type: "image/png" }));
      document.getElementById("drop").dispatchEvent(
        new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
    }"""
    visit.page.evaluate(script)
    expect(visit.page.locator("#reading")).to_be_visible()
    assert visit.complaints == []


def test_a_case_from_the_queue_is_read_and_judged_without_a_second_copy(visit: Visit) -> None:
    page, store = visit.page, visit.house.services.store
    identifier = visit.house.case()
    before = store.counts("dermoscopy")
    page.reload()
    page.locator("#waiting summary").click()
    page.locator("#waiting-list button").last.click()
    expect(page.locator("#reading-status")).to_contain_text("The image was read")
    expect(page.get_by_label("Patient number")).to_be_hidden()
    page.get_by_label("Something else:").check()
    page.get_by_role("button", name="Store", exact=True).click()
    expect(page.locator("#case-status")).to_have_text("Choose the right diagnosis.")
    page.get_by_label("The right diagnosis").select_option("nv")
    page.get_by_role("button", name="Store", exact=True).click()
    expect(page.locator("#case-status")).to_contain_text("second reader")
    after = store.counts("dermoscopy")
    assert (after.waiting, after.confirmed) == (before.waiting, before.confirmed)
    opinions = page.request.get(f"{visit.house.url}/review/{identifier}").json()["opinions"]
    assert [(one["verdict"], one["label"]) for one in opinions] == [("correct", "nv")]


def opened(visit: Visit, identifier: str) -> None:
    """Open a case from those that wait, and have it read."""
    page = visit.page
    page.reload()
    page.locator("#waiting summary").click()
    page.locator(f'#waiting-list li:has(img[src*="{identifier}"]) button').click()
    expect(page.locator("#reading-status")).to_contain_text("The image was read")


def agree(visit: Visit) -> None:
    visit.page.get_by_label("I agree: Melanoma (mel)").check()
    visit.page.get_by_role("button", name="Store", exact=True).click()


def test_a_case_larger_than_the_screen_is_read_whole_and_can_be_agreed_with(visit: Visit) -> None:
    house, review = visit.house, f"{visit.house.url}/review"
    identifier = house.case(image=wide_picture())
    opened(visit, identifier)
    natural = "document.querySelector('#preview').naturalWidth"
    assert visit.page.evaluate(natural) == 2048
    expect(visit.page.locator("#why-words")).to_contain_text("Melanoma (mel)")
    expect(visit.page.locator("#similar-status")).not_to_contain_text("Looking")
    (answer,) = visit.page.request.get(f"{review}/{identifier}").json()["answers"]
    assert answer["request_id"] == visit.page.locator("#reading-request").text_content()
    agree(visit)
    expect(visit.page.locator("#case-status")).to_contain_text("second reader")
    opinions = visit.page.request.get(f"{review}/{identifier}").json()["opinions"]
    assert [(one["verdict"], one["label"]) for one in opinions] == [("agree", "mel")]
    assert visit.complaints == []


def test_who_agrees_with_the_model_is_heard_also_where_another_reader_was_first(
    visit: Visit,
) -> None:
    house = visit.house
    identifier = house.case()
    house.services.review.give(identifier, "ben", Submission("correct", "nv"), RECIPE)
    opened(visit, identifier)
    agree(visit)
    expect(visit.page.locator("#case-status")).to_contain_text("Two readers do not agree")


def test_the_keyboard_alone_reaches_everything(visit: Visit) -> None:
    page = visit.page
    choosers: list[FileChooser] = []

    def opened(found: FileChooser) -> None:  # Playwright takes no method of a list
        choosers.append(found)

    page.on("filechooser", opened)  # early: asked for too late, the real one opens
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    path = visit.house.folder / "chosen.png"
    path.write_bytes(visit.house.fresh_picture())
    page.keyboard.press("Space")
    ends = time.monotonic() + PATIENCE
    while not choosers:
        assert time.monotonic() < ends, "no file chooser opened"
        page.wait_for_timeout(50)
    choosers[0].set_files(path)
    expect(page.locator("#why-controls")).to_be_visible()
    page.locator("#file").focus()
    wanted = ["why-strength", "SUMMARY", "SUMMARY", "SUMMARY", "patient", "age", "sex", "agree"]
    at = "document.activeElement.id || document.activeElement.value || "
    reached: list[str] = []
    while len(reached) < 20 and "agree" not in reached:
        page.keyboard.press("Tab")
        reached.append(page.evaluate(at + "document.activeElement.tagName"))
    assert [name for name in reached if name != "A"] == wanted
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(page.locator("#case-status")).to_contain_text("Stored")


def test_a_new_release_and_an_alarm_show_without_reloading(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, house = visit.page, visit.house
    expect(page.locator("#model")).to_contain_text("Model version 1")
    house.releases.published.append(release(house.folder, 2, favours="nv"))
    house.services.watcher.poll()
    bad = release(house.folder, 3)

    def unloadable(_self: object) -> object:
        raise ModelError("The weights do not fit.", code="model-mismatch")

    with monkeypatch.context() as patch:
        patch.setattr(type(bad), "load", unloadable)
        house.releases.published.append(bad)
        house.services.watcher.poll()
    visit.choose(house.fresh_picture())
    expect(page.locator("#verdict-word")).to_have_text("Negative")
    expect(page.locator("#model")).to_contain_text("Model version 2")
    expect(page.locator("#alarms")).to_contain_text("The weights do not fit.")
    note = page.locator("#new-version")
    expect(note).to_contain_text("Model version 2 answers now, in place of version 1.")
    visit.shoot("reading-negative-alarm")
    note.get_by_role("link", name="What changed").click()
    expect(page.get_by_role("heading", name="What changed in model version 2")).to_be_visible()
    page.go_back()
    expect(page.locator("#new-version")).to_be_hidden()


def test_the_browser_really_enforces_the_policy(visit: Visit) -> None:
    """The absence of complaints above means something only if a breach would give one."""
    script = "document.body.append(Object.assign(document.createElement('img'), {src: 'data:,x'}))"
    visit.page.evaluate(script)
    visit.page.wait_for_timeout(0)
    expect(visit.page.locator("body > img")).to_have_count(1)
    assert any("Content Security Policy" in text for text in visit.complaints)
