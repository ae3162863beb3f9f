"""Must show: refused, approved, canary, everywhere, rolled back, in Chromium on real services."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from safetensors.numpy import save_file

from client.settings import SiteSettings
from common.model import build_model, state_tensors
from common.recipe import load_recipe
from common.release import GateCheck
from common.update import tensors_digest
from deploy import components
from deploy.enrolment import assign_ports
from deploy.processes import Supervisor
from deploy.provision import provision
from server.registry.records import CampaignSettings, Candidate, TrainablePhase
from server.registry.registry import Registry
from server.settings import CoordinatorSettings
from tests.chromium import NEEDS_CHROMIUM, SCREENSHOTS, launched
from tests.releases import draft, metrics
from tests.server.signed_in import PASSWORD

SITES = ("north", "south")
ROLLBACK_LIMIT_SECONDS = 10.0
RECIPE = load_recipe("mammography").with_changes(model="test_resnet", image_size=32)

pytestmark = [
    pytest.mark.journey,
    *NEEDS_CHROMIUM,
]


@dataclass
class Federation:
    coordinator: CoordinatorSettings
    sites: dict[str, SiteSettings]
    registry: Registry

    def served(self) -> dict[str, tuple[int, str] | None]:
        """Ask every hospital's own service which model answers there."""
        return {name: _model(settings) for name, settings in self.sites.items()}

    def candidate(self, seed: int, *, passed: bool, auroc: float) -> Candidate:
        weights = state_tensors(build_model(RECIPE, seed=seed))
        digest = tensors_digest(weights)
        phase = TrainablePhase(first_round=1, scope="head", names=("fc.weight",))
        plan = CampaignSettings(rounds=3, epsilon=8.0, quorum=1, phases=(phase,))
        champion = self.registry.champion(RECIPE.name)
        base = None if champion is None else champion.version
        campaign = self.registry.add_campaign(
            RECIPE, plan, initial_digest="0" * 64, base_release=base
        )
        made = draft(seed)
        lineage = made.lineage.model_copy(
            update={"campaign": campaign.id, "candidate": campaign.id}
        )
        checks = (
            GateCheck(name="majority-auroc", passed=True, figure=auroc - 0.04, limit=0.5),
            GateCheck(
                name="champion-non-inferiority",
                passed=passed,
                figure=auroc,
                limit=0.8,
                explanation="Macro AUROC on the sites that scored both.",
            ),
        )
        scored = made.metrics.model_copy(update={"candidate": metrics(auroc)})
        changes = {
            **{"recipe": RECIPE, "model_digest": digest, "lineage": lineage},
            **{"gate": checks, "metrics": scored},
        }
        save_file(weights, self.coordinator.models / f"{digest}.safetensors")
        judged = made.model_copy(update=changes)
        return self.registry.add_candidate(campaign.id, judged, evaluation=None, approve=False)


def _model(settings: SiteSettings) -> tuple[int, str] | None:
    try:
        answer = httpx.get(f"{components.site_url(settings)}/model", timeout=5, trust_env=False)
    except httpx.HTTPError:
        return None
    if answer.status_code != 200:
        return None
    body = answer.json()
    return body["version"], body["digest"]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("page")
    provision(
        folder,
        sites=SITES,
        task="mammography",
        site_settings=lambda _: {"threads": 1, "access": "open"},
    )
    kits = [SiteSettings.read(folder / "sites" / name) for name in SITES]
    assign_ports(CoordinatorSettings.read(folder / "coordinator"), kits)
    coordinator = CoordinatorSettings.read(folder / "coordinator")
    sites = {name: SiteSettings.read(folder / "sites" / name) for name in SITES}
    registry = Registry.open(coordinator)
    for number, name in enumerate(SITES):
        registry.register_site(name, node_id=number + 1, public_key="key")
    registry.accounts.add("anna", "approver", password=PASSWORD, by="console-test")
    with Supervisor() as supervisor:
        supervisor.start(components.coordinator_service(coordinator, folder / "logs"))
        for settings in sites.values():
            supervisor.start(components.site_service(settings, folder / "logs"))
        supervisor.wait_ready(timeout=180)
        yield Federation(coordinator, sites, registry)
    registry.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as opened:
        yield opened


def shoot(page: Page, name: str) -> None:
    """Take pictures at a desk and on a phone; nothing may stick out to the side."""
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 860})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / f"{name}-{width}.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 860})


def wait_for(what: Callable[[], bool], seconds: float) -> float:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, "it did not come"
        time.sleep(0.1)
    return time.monotonic() - began


def test_refused_approved_canary_everywhere_rolled_back(
    federation: Federation, browser: Browser, record_property: Callable[[str, object], None]
) -> None:
    url = f"https://127.0.0.1:{federation.coordinator.port}"
    expect.set_options(timeout=30_000)
    context = browser.new_context(ignore_https_errors=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda sent: note_foreign(complaints, sent.url, url))

    page.goto(url)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    shoot(page, "sign-in")
    page.get_by_label("Name").fill("anna")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Sites")).to_be_visible()

    first = federation.candidate(1, passed=True, auroc=0.82)
    approve(page, url, first, None)
    wait_for(lambda: versions(federation) == {"north": 1, "south": 1}, 60)

    worse = federation.candidate(2, passed=False, auroc=0.71)
    page.goto(f"{url}/page/candidates/{worse.id}")
    expect(page.get_by_text("Refused by the gate: champion-non-inferiority")).to_be_visible()
    expect(page.get_by_role("button", name="Approve and publish")).to_have_count(0)
    shoot(page, "refused")

    better = federation.candidate(3, passed=True, auroc=0.87)
    page.goto(f"{url}/page/candidates/{better.id}")
    shoot(page, "candidate")
    approve(page, url, better, "north")
    took = wait_for(lambda: versions(federation)["north"] == 2, 60)
    print(f"canary after {took:.1f} s")  # noqa: T201
    time.sleep(4.0)  # longer than a look at the timestamp takes
    assert versions(federation) == {"north": 2, "south": 1}
    page.goto(f"{url}/page/sites")
    expect(page.get_by_text("● alive")).to_have_count(2, timeout=15_000)
    shoot(page, "sites-canary")
    page.goto(f"{url}/page/releases/2")
    shoot(page, "release-canary")
    page.get_by_role("button", name="Roll out to every site").click()
    took = wait_for(lambda: versions(federation) == {"north": 2, "south": 2}, 60)
    print(f"everywhere after {took:.1f} s")  # noqa: T201

    page.goto(f"{url}/page/releases")
    page.get_by_text("Roll back to v1…").click()
    page.get_by_label("Why").fill("sensitivity fell at north")
    page.get_by_label("Type v1 to confirm").fill("v1")
    shoot(page, "rollback")
    began = time.monotonic()
    page.get_by_role("button", name="Roll every site back to v1").click()
    old = first.model_digest
    wanted = dict.fromkeys(SITES, (3, old))
    wait_for(lambda: federation.served() == wanted, 60)
    seconds = time.monotonic() - began
    record_property("rollback_seconds", round(seconds, 1))
    print(f"rolled back in {seconds:.1f} s, click to the last site's answer")  # noqa: T201
    expect(page.get_by_text("Rolled back:")).to_be_visible()
    expect(page.locator("#releases").get_by_text("north, south")).to_be_visible(timeout=15_000)
    shoot(page, "releases")
    for name in ("audit", "campaigns", "sites"):
        page.goto(f"{url}/page/{name}")
        shoot(page, name)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert complaints == []
    assert seconds < ROLLBACK_LIMIT_SECONDS


def note_foreign(complaints: list[str], sent: str, url: str) -> None:
    if not sent.startswith(url):
        complaints.append(sent)


def versions(federation: Federation) -> dict[str, int]:
    return {name: 0 if found is None else found[0] for name, found in federation.served().items()}


def approve(page: Page, url: str, candidate: Candidate, first: str | None) -> None:
    page.goto(f"{url}/page/candidates/{candidate.id}")
    if first is None:
        page.get_by_label("Every site").check()
    else:
        page.get_by_label("These sites first").check()
        page.get_by_label(first).check()
    page.get_by_role("button", name="Approve and publish").click()
    expect(page.get_by_text("Approved, and published.")).to_be_visible()
