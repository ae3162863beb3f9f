"""Forms of pages that were drawn before somebody else decided: they decide nothing unseen."""

from __future__ import annotations

from fastapi.testclient import TestClient

from server.publishing.service import publish_approved
from server.registry.registry import Registry
from tests.releases import TASK, Coordinator, approve
from tests.server.signed_in import post, seen_of, sign_in, token_of


def test_a_form_from_before_a_hold_does_not_undo_it(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    sign_in(client, "anna")
    for seed in (1, 2):
        made = approve(coordinator, registry, seed, approved=False)
        registry.rollouts.approve(made.id, by="anna", sites=None if seed == 1 else ["north"])
        publish_approved(coordinator.publisher, registry, coordinator.settings.models)
    page = client.get("/page/releases/2")
    form = {"token": token_of(page), "ring": "all"}
    registry.rollouts.hold(2, by="bob")
    for old in ({"seen": seen_of(page)}, {}):
        answer = client.post("/page/releases/2/rollout", data={**form, **old})
        assert answer.status_code == 409
        assert "release-changed" in answer.text
    (held,) = registry.rollouts.wanted(TASK).limited
    assert (held.version, held.held) == (2, True)
    assert registry.release(2).changed_by == "bob"
    # What is again as it was has been decided on since, too.
    registry.rollouts.roll_out(2, by="bob", sites=["north"])
    form["seen"] = seen_of(page)
    assert client.post("/page/releases/2/rollout", data=form).status_code == 409
    assert post(client, "/page/releases/2", "/page/releases/2/rollout", ring="all") == 303
    assert registry.rollouts.wanted(TASK).version == 2


def test_a_box_that_was_ticked_for_one_champion_does_not_speak_of_the_next(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    sign_in(client, "anna")
    late = approve(coordinator, registry, 9, approved=False)
    page = f"/page/candidates/{late.id}"
    pages = []
    for seed in (1, 2):
        approve(coordinator, registry, seed)
        publish_approved(coordinator.publisher, registry, coordinator.settings.models)
        pages.append(client.get(page))
        assert f"the current release is release {seed}" in pages[-1].text
    form = {"token": token_of(pages[0]), "seen": seen_of(pages[0]), "ring": "all"}
    answer = client.post(f"{page}/approve", data={**form, "champion_changed": "true"})
    assert answer.status_code == 409
    assert "candidate-changed" in answer.text
    assert registry.candidate(late.id).state == "waiting"
    assert post(client, page, f"{page}/approve", ring="all", champion_changed="true") == 303


def test_a_rollback_withdraws_no_release_that_its_page_did_not_show(
    client: TestClient, registry: Registry, coordinator: Coordinator
) -> None:
    sign_in(client, "anna")
    back = "/page/releases/1/roll-back"
    pages = []
    for seed in (1, 2, 3):
        approve(coordinator, registry, seed)
        publish_approved(coordinator.publisher, registry, coordinator.settings.models)
        pages.append(client.get("/page/releases"))
    assert 'name="newest" value="2"' in pages[1].text
    form = {"token": token_of(pages[1]), "reason": "worse", "confirmation": "v1"}
    for old in ({"newest": "2"}, {}):
        answer = client.post(back, data={**form, **old})
        assert answer.status_code == 409
        assert "release-changed" in answer.text
    assert [release.state for release in registry.releases()] == 3 * ["everywhere"]
    assert post(client, "/page/releases/1", back, reason="worse", confirmation="v1") == 303
