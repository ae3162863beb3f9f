"""Decisions by form: by whoever may take them, knowingly, and by no foreign hand; they hold."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from server.publishing.service import publish_approved
from server.registry.registry import Registry
from tests.releases import TASK, Coordinator, approve
from tests.server.signed_in import post, seen_of, sign_in, token_of
from tests.server.test_api_coordinator import running_campaign


def test_a_form_without_its_token_does_nothing(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    waiting = approve(coordinator, registry, 1, approved=False)
    sign_in(client, "anna")
    address = f"/page/candidates/{waiting.id}/approve"
    for token in ("", "0" * 64, "é"):
        answer = client.post(address, data={"token": token, "ring": "all"})
        assert answer.status_code in (400, 403)
    fields = {"name": "anna", "password": "x", "token": "0" * 64}
    assert client.post("/sign-in", data=fields).status_code == 403
    assert registry.candidate(waiting.id).state == "waiting"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
    ],
)
def test_another_web_site_cannot_decide(
    client: TestClient, registry: Registry, coordinator: Coordinator, headers: dict[str, str]
) -> None:
    waiting = approve(coordinator, registry, 1, approved=False)
    sign_in(client, "anna")
    page = client.get(f"/page/candidates/{waiting.id}")
    address = f"/page/candidates/{waiting.id}/approve"
    form = {"token": token_of(page), "seen": seen_of(page), "ring": "all"}
    answer = client.post(address, data=form, headers=headers)
    assert answer.status_code == 403
    assert registry.candidate(waiting.id).state == "waiting"
    assert client.post(address, data=form).status_code == 303


def test_a_candidate_against_another_champion_is_approved_knowingly_or_not_at_all(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    waiting = [approve(coordinator, registry, seed, approved=False) for seed in (1, 2)]
    sign_in(client, "anna")
    first, page = (f"/page/candidates/{one.id}" for one in waiting)
    assert "champion_changed" not in client.get(first).text
    assert post(client, first, f"{first}/approve", ring="all") == 303
    shown = client.get(page).text
    assert "compared it with none; the current release is release 1" in shown
    assert 'name="champion_changed"' in shown
    assert post(client, page, f"{page}/approve", ring="all") == 409
    assert registry.candidate(waiting[1].id).state == "waiting"
    assert post(client, page, f"{page}/approve", ring="all", champion_changed="true") == 303
    assert "although the champion had changed" in client.get(page).text


def test_a_candidate_that_was_set_back_to_waiting_says_why(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    """Approved before a rollback to the weights that it was compared with: no champion changed."""
    approve(coordinator, registry, 1)
    publish_approved(coordinator.publisher, registry, coordinator.settings.models)
    canary = approve(coordinator, registry, 2, approved=False)
    registry.rollouts.approve(canary.id, by="anna", sites=["north"])
    publish_approved(coordinator.publisher, registry, coordinator.settings.models)
    made = approve(coordinator, registry, 3)
    page, reason = f"/page/candidates/{made.id}", "another one than when it was approved"
    sign_in(client, "anna")
    assert reason not in client.get(page).text
    registry.rollouts.roll_back(1, by="anna", reason="worse at north")
    assert not registry.still_approved(made.id)
    shown = client.get(page).text
    assert "champion_changed" not in shown
    assert shown.count(reason) == 1


@pytest.mark.parametrize("name", ["vera", "otto"])
def test_only_an_approver_decides(
    client: TestClient, registry: Registry, coordinator: Coordinator, name: str
) -> None:
    waiting = approve(coordinator, registry, 1, approved=False)
    sign_in(client, name)
    for address, fields in (
        (f"/page/candidates/{waiting.id}/approve", {"ring": "all"}),
        (f"/page/candidates/{waiting.id}/refuse", {"reason": "no"}),
        ("/page/releases/1/hold", {}),
        ("/page/releases/1/rollout", {"ring": "all"}),
        ("/page/releases/1/roll-back", {"reason": "x", "confirmation": "v1"}),
    ):
        assert post(client, "/page/releases", address, **fields) == 403
    assert "Approve" not in client.get(f"/page/candidates/{waiting.id}").text
    assert registry.candidate(waiting.id).state == "waiting"


def test_a_viewer_moves_no_campaign_and_an_operator_does(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    campaign = running_campaign(coordinator, registry)
    page = f"/page/campaigns/{campaign}"
    sign_in(client, "vera")
    assert post(client, page, f"{page}/pause") == 403
    sign_in(client, "otto")
    assert post(client, page, f"{page}/cancel", confirmation="yes") == 400
    assert post(client, page, f"{page}/pause") == 303
    assert registry.campaign(campaign).state == "pausing"
    assert post(client, page, f"{page}/cancel", confirmation="cancel") == 303
    assert registry.campaign(campaign).state == "cancelled"
    assert post(client, page, f"{page}/resume") == 409


def test_from_the_candidate_to_the_rollback_by_forms(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    sign_in(client, "anna")
    for seed in (1, 2):
        waiting = approve(coordinator, registry, seed, approved=False)
        page = f"/page/candidates/{waiting.id}"
        ring = {"ring": "all"} if seed == 1 else {"ring": "chosen", "site": ["north"]}
        assert post(client, page, f"{page}/approve", **ring) == 303
    assert coordinator.publisher.rollout(TASK).offered("north") == 2
    assert coordinator.publisher.rollout(TASK).offered("south") == 1
    page = "/page/releases/2"
    assert "north" in client.get(page).text
    assert post(client, page, f"{page}/rollout", ring="all") == 303
    assert coordinator.publisher.rollout(TASK).version == 2
    back = "/page/releases/1/roll-back"
    assert post(client, page, back, reason="worse", confirmation="v2") == 400
    assert post(client, page, back, reason="worse", confirmation="v1") == 303
    assert coordinator.publisher.manifest(3).lineage.restores == 1
    shown = client.get("/page/releases", params={"done": "rolled-back"}).text
    assert "those of v1" in shown
    assert "Rolled back" in shown
    assert "withdrawn" in shown
    assert "rolled-back" in client.get("/page/audit").text
    assert client.get("/page/releases/3").status_code == 200
    assert post(client, page, f"{page}/hold") == 409


def test_a_canary_against_another_champion_is_rolled_out_knowingly_or_not_at_all(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    sign_in(client, "anna")
    approve(coordinator, registry, 1)
    publish_approved(coordinator.publisher, registry, coordinator.settings.models)
    for seed in (2, 3):
        waiting = approve(coordinator, registry, seed, approved=False)
        page = f"/page/candidates/{waiting.id}"
        assert post(client, page, f"{page}/approve", ring="chosen", site=["north"]) == 303
    assert "champion_changed" not in client.get("/page/releases/3").text
    assert post(client, "/page/releases/2", "/page/releases/2/rollout", ring="all") == 303
    assert "champion_changed" not in client.get("/page/releases/2").text
    page = "/page/releases/3"
    shown = client.get(page).text
    assert "compared it with release 1; the current release is release 2" in shown
    assert shown.count('name="champion_changed"') == 2, "to more sites, and to all"
    assert post(client, page, f"{page}/rollout", ring="all") == 409
    assert registry.release(3).state == "canary"
    assert post(client, page, f"{page}/rollout", ring="all", champion_changed="true") == 303
    assert coordinator.publisher.rollout(TASK).version == 3
    assert "champion_changed" not in client.get(page).text


@pytest.mark.parametrize("version", [0, 2**31, 2**63, 10**30])
def test_a_release_of_a_number_that_no_database_holds_is_unknown(
    client: TestClient, version: int
) -> None:
    sign_in(client, "anna")
    token = token_of(client.get("/page/releases"))
    for what in ("hold", "rollout", "roll-back"):
        form = {"token": token, "ring": "all", "reason": "worse", "confirmation": f"v{version}"}
        answer = client.post(f"/page/releases/{version}/{what}", data=form)
        assert answer.status_code == 404, what
    assert client.get(f"/page/releases/{version}").status_code == 404


def test_a_rollback_to_weights_that_are_lost_withdraws_nothing(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    sign_in(client, "anna")
    for seed in (1, 2):
        approve(coordinator, registry, seed)
        publish_approved(coordinator.publisher, registry, coordinator.settings.models)
    first = registry.release(1).model_digest
    for folder in (coordinator.settings.models, coordinator.targets):
        next(folder.glob(f"*{first}*")).unlink()
    address = "/page/releases/1/roll-back"
    asked = post(client, "/page/releases", address, reason="worse", confirmation="v1")
    assert asked >= 400
    assert [release.state for release in registry.releases()] == 2 * ["everywhere"]


def test_a_worse_candidate_shows_what_failed_and_offers_no_approval(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    worse = approve(coordinator, registry, 1, passed=False, approved=False)
    sign_in(client, "anna")
    page = f"/page/candidates/{worse.id}"
    shown = client.get(page).text
    assert "Refused by the gate: above-majority" in shown
    assert "Approve and publish" not in shown
    assert post(client, page, f"{page}/approve", ring="all") == 409
    assert coordinator.publisher.releases() == ()


def test_a_decision_that_cannot_be_published_now_is_recorded(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    waiting = approve(coordinator, registry, 1, approved=False)
    (coordinator.metadata / "timestamp.json").rename(coordinator.metadata / "away")
    sign_in(client, "anna")
    page = f"/page/candidates/{waiting.id}"
    shown = client.get(page)
    form = {"token": token_of(shown), "seen": seen_of(shown), "ring": "all"}
    answer = client.post(f"{page}/approve", data=form)
    assert answer.headers["location"] == "/page/releases?done=recorded"
    assert registry.candidate(waiting.id).state == "approved"


def test_what_people_typed_is_text_on_the_page(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    waiting = approve(coordinator, registry, 1, approved=False)
    sign_in(client, "anna")
    page = f"/page/candidates/{waiting.id}"
    script = "<script>alert(1)</script>"
    assert post(client, page, f"{page}/refuse", reason=script) == 303
    for address in (page, "/page/releases"):
        assert script not in client.get(address).text
        assert "&lt;script&gt;" in client.get(address).text
    strange = client.get("/page/campaigns/%3Cscript%3E")
    assert strange.status_code == 404
    assert "<script>" not in strange.text
