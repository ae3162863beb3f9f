"""Must show: a case's whole way over the site's pages, in Chromium, on real processes.

Predicted, explained, corrected, read by a second person, trained on, and looked at again under
the next model version.
"""

from __future__ import annotations

import io
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
import tomli_w
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from client.access.people import People
from client.access.roles import Role
from client.cases.store import CaseStore
from client.policy import SitePolicy
from client.releases.policy import ReleasePolicy
from client.settings import SiteSettings
from common.database import open_database
from common.recipe import DecisionSpec, LocalTraining, Recipe, ReleaseGateSpec
from deploy.local import LocalFederation
from tests.chromium import NEEDS_CHROMIUM, SCREENSHOTS, launched
from tests.client.rounds import TOY, fill

SITES = ("north", "south")
PASSWORD = "correct horse battery"
RECIPE_TRAINING = LocalTraining(
    optimizer="adamw", learning_rate=3e-3, local_steps=40, sampling_rate=0.5
)
ROUND_SECONDS = 120.0

pytestmark = [
    pytest.mark.journey,
    pytest.mark.timeout(600),
    *NEEDS_CHROMIUM,
]


def recipe() -> Recipe:
    """Return a task that is learnt in two rounds, with words for its classes.

    What the gate thinks of two models that are both all but perfect is not this test's subject.
    """
    return TOY.model_copy(
        update={
            "title": "Bright squares in drawn images",
            "training": RECIPE_TRAINING,
            "decision": DecisionSpec(positive_classes=("bright",), threshold=0.5),
            "release": ReleaseGateSpec(non_inferiority_margin=0.3),
            "display": (("bright", "Bright square"), ("dark", "Nothing bright")),
        }
    )


def drawn() -> bytes:
    """Return a bright square as a scanner would send it, large enough to look at."""
    pixels = np.random.default_rng(99).integers(0, 90, (360, 480, 3), np.uint8)
    pixels[90:260, 130:340] += 120
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def prepare(settings: SiteSettings) -> None:
    """Give a site its first cases, then accounts and the rule of two readers."""
    fill(settings, 24, "train")
    fill(settings, 12, "holdout")
    engine = open_database(settings.database)
    people = People(engine)
    people.add("anna", [Role.clinician], password=PASSWORD)
    people.add("ben", [Role.clinician, Role.auditor], password=PASSWORD)
    people.add("ina", [Role.it], password=PASSWORD)
    engine.dispose()
    path = settings.folder / "site.toml"
    fields = tomllib.loads(path.read_text()) | {"access": "accounts", "review": {"readers": 2}}
    path.write_text(tomli_w.dumps(fields))


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFederation]:
    policy = SitePolicy(
        allowed_recipes=("toy",),
        allow_without_privacy=True,
        release_evaluation=True,
        minimum_cell=1,
        declared_patients=25,
        releases=ReleasePolicy(on_release="accept"),
    )
    folder = tmp_path_factory.mktemp("pages") / "here"
    federation = LocalFederation(
        folder,
        sites=SITES,
        task="toy",
        recipe=recipe(),
        policy=policy,
        site_settings={"holdout_fraction": 0.0, "inference": {"runtime": "torch"}},
    )
    prepare(federation.site("north"))
    fill(federation.site("south"), 24, "train")
    fill(federation.site("south"), 12, "holdout")
    with federation:
        federation.start()
        federation.wait_ready()
        yield federation


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=60_000)
    with launched() as opened:
        yield opened


def train(federation: LocalFederation, version: int) -> str:
    """Run a campaign of two rounds; wait until the site serves what came of it."""
    campaign = federation.start_campaign(recipe(), rounds=2, private=False)
    federation.wait_campaign(campaign, timeout=ROUND_SECONDS)
    wait_for(lambda: served(federation) == version, 60)
    return campaign


def served(federation: LocalFederation) -> int | None:
    url = f"{federation.site_url('north')}/health/ready"
    version = httpx.get(url, timeout=10, trust_env=False).json()["model_version"]
    return None if version is None else int(version)


def wait_for(what: Callable[[], bool], seconds: float) -> None:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, "it did not come"
        time.sleep(0.2)


def shoot(page: Page, name: str) -> None:
    """Take pictures at a desk and on a phone; nothing may stick out to the side."""
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 860})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        if SCREENSHOTS:
            time.sleep(0.2)
            page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{width}.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 860})


class Person:
    """Somebody in a browser of their own, signed in."""

    def __init__(self, browser: Browser, url: str, name: str) -> None:
        self.page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda m: self._note(m.text) if m.type == "error" else None)
        self.page.goto(url)
        expect(self.page.get_by_role("heading", name="Sign in")).to_be_visible()
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("button", name="Sign out")).to_be_visible()

    def _note(self, text: str) -> None:
        self.complaints.append(text)


def test_a_case_goes_from_the_reading_into_the_next_model(
    federation: LocalFederation, browser: Browser
) -> None:
    train(federation, 1)
    url = federation.site_url("north")

    anna = Person(browser, url, "anna")
    page = anna.page
    files = {"name": "x.png", "mimeType": "image/png", "buffer": drawn()}
    page.locator("#file").set_input_files(files)  # type: ignore[arg-type]
    expect(page.locator("#reading-status")).to_contain_text("The image was read")
    expect(page.locator("#overlay")).to_be_visible()
    expect(page.locator("#why-words")).to_contain_text("picture")
    # Two rounds learn the sites' squares; what they make of this larger picture, no one knows.
    answered = page.locator("#agree-label").inner_text()
    name, label = "Nothing bright", "dark"
    if name in answered:
        name, label = "Bright square", "bright"
    page.get_by_label("Patient number").fill("MRN-4711")
    page.get_by_label("Something else:").check()
    page.get_by_label("The right diagnosis").select_option(label)
    page.get_by_role("button", name="Store", exact=True).click()
    expect(page.locator("#case-status")).to_contain_text("It waits for a second reader.")
    shoot(page, "journey-1-reading")
    address = page.get_by_role("link", name="Look at this case").get_attribute("href")
    assert address is not None
    identifier = address.partition("=")[2]

    ben = Person(browser, url, "ben")
    ben.page.goto(url + address)
    expect(ben.page.locator("#opinions")).to_contain_text("anna")
    ben.page.get_by_label(f"Agree: {name}").check()
    ben.page.get_by_role("button", name="Give this opinion").click()
    expect(ben.page.locator("#case-state")).to_contain_text("confirmed")
    shoot(ben.page, "journey-2-review")

    campaign = train(federation, 2)
    with closing(CaseStore.open(federation.site("north"))) as store:
        case = store.get(identifier)
        assert (case.status, case.label, case.split) == ("confirmed", label, "train")

    expect(page.locator("#new-version")).to_contain_text("Model version 2 answers now")
    page.get_by_role("link", name="What changed").first.click()
    expect(page.get_by_role("heading", name="What changed in model version 2")).to_be_visible()
    shoot(page, "journey-3-what-changed")

    ben.page.goto(f"{url}/outcomes")
    card = ben.page.locator("#cases li").filter(has_text="Version 1")
    expect(card).to_have_count(1)
    card.get_by_role("button", name="History").click()
    history = ben.page.locator("#history-body")
    for said in (
        "Model version 1 answered",
        f"anna said {name}",
        f"ben agreed on {name}",
        f"Confirmed as {name}",
        f"In the pool of campaign {campaign}, rounds 1 to 2.",
        "Releases kept here that came of it: v2.",
    ):
        expect(history).to_contain_text(said)
    shoot(ben.page, "journey-4-outcomes")

    ina = Person(browser, url, "ina")
    expect(ina.page.get_by_role("heading", name="What left the building")).to_be_visible()
    expect(ina.page.locator("#left-heading + p")).to_contain_text("4 updates")
    shoot(ina.page, "journey-5-hospital-it")
    assert ina.page.request.get(f"{url}/review/{identifier}").status == 403
    assert [person.complaints for person in (anna, ben, ina)] == [[], [], []]
