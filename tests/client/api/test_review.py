"""The review over HTTP: who may, what is answered, what is refused."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
from PIL import Image

from client.access.roles import Role
from client.composition.basis import WORKERS
from client.releases.cache import LocalRelease
from client.settings import SiteSettings
from tests.client.serving import FakeReleases, ServedSite, picture, served_site

Keyed: TypeAlias = tuple[ServedSite, dict[str, dict[str, str]]]
NOWHERE = "0" * 32


@pytest.fixture(scope="module")
def keyed(
    kit: Path, melanoma: LocalRelease, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Keyed]:
    """A site with accounts: two readers who signed in, and keys of three roles."""
    folder = tmp_path_factory.mktemp("keyed") / "site"
    shutil.copytree(kit, folder)
    table = folder / "site.toml"
    table.write_text(table.read_text() + "\n[review]\nreaders = 2\n")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WARDROUND_SITE_ACCESS", "accounts")
        settings = SiteSettings.read(folder)
    with served_site(settings, FakeReleases(melanoma)) as site:
        access = site.services.access
        keys = {
            "program": access.keys.add("program", [Role.clinician]),
            "auditor": access.keys.add("auditor", [Role.auditor]),
            "it": access.keys.add("it", [Role.it]),
        }
        callers = {who: {"authorization": f"Bearer {key}"} for who, key in keys.items()}
        for reader in ("ada", "ben"):
            person = access.people.add(reader, [Role.clinician], password="correct horse battery")
            secret = access.people.open_session(person, life=timedelta(hours=1))
            callers[reader] = {
                "cookie": f"wardround-session={secret}",
                "origin": "http://127.0.0.1",
            }
        yield site, callers


def asked(keyed: Keyed, who: str, method: str, path: str, **options: Any) -> httpx.Response:
    site, callers = keyed
    return site.call(method, path, headers=callers[who], **options)


def stored(keyed: Keyed, seed: int, **fields: str) -> str:
    files = {"image": ("x.png", picture(seed))}
    answer = asked(keyed, "ada", "POST", "/cases", files=files, data=fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["case_id"])


def test_two_readers_by_their_accounts(keyed: Keyed) -> None:
    case_id = stored(keyed, 1, label="mel")
    found = asked(keyed, "ben", "GET", f"/review/{case_id}").json()
    assert (found["status"], found["state"], found["readers"]) == ("waiting", "waiting", 2)
    assert [(o["reader"], o["origin"]) for o in found["opinions"]] == [("ada", "upload")]
    again = asked(keyed, "ada", "POST", f"/cases/{case_id}/confirm", json={"label": "mel"})
    assert (again.status_code, again.json()["status"]) == (200, "waiting")
    body = {"verdict": "agree", "seen": found["seen"]}
    done = asked(keyed, "ben", "POST", f"/review/{case_id}/opinion", json=body)
    assert (done.status_code, done.json()["status"], done.json()["label"]) == (
        *(200, "confirmed", "mel"),
    )
    stale = asked(keyed, "ada", "POST", f"/review/{case_id}/opinion", json=body)
    assert (stale.status_code, stale.json()["code"]) == (409, "review-changed")


def test_a_key_is_no_reader_where_two_people_must_agree(
    keyed: Keyed,
) -> None:
    case_id = stored(keyed, 2, label="mel")  # and the program is ada's, too
    tries = (
        (f"/review/{case_id}/opinion", {"json": {"verdict": "correct", "label": "mel"}}),
        (f"/cases/{case_id}/confirm", {"json": {"label": "mel"}}),
        (f"/review/{case_id}/flags/burned-in-text/dismiss", {}),
        ("/cases", {"files": {"image": ("x.png", picture(2))}, "data": {"label": "mel"}}),
    )
    for path, options in tries:
        answer = asked(keyed, "program", "POST", path, **options)
        assert (answer.status_code, answer.json()["code"]) == (403, "reader-is-a-key"), path
    assert asked(keyed, "ben", "GET", f"/review/{case_id}").json()["status"] == "waiting"
    unlabelled = {"image": ("x.png", picture(3))}
    assert asked(keyed, "program", "POST", "/cases", files=unlabelled).status_code == 201


def test_the_queue_pages(keyed: Keyed) -> None:
    mine = [stored(keyed, seed) for seed in (10, 11, 12)]
    first = asked(keyed, "ben", "GET", "/review", params={"limit": 2}).json()
    assert (len(first["cases"]), first["readers"]) == (2, 2)
    seen = [c["case_id"] for c in first["cases"]]
    while first["next_after"] is not None:
        params = {"after": first["next_after"], "limit": 2}
        first = asked(keyed, "ben", "GET", "/review", params=params).json()
        seen += [c["case_id"] for c in first["cases"]]
    assert [case for case in seen if case in mine] == mine
    assert len(seen) == len(set(seen)) == sum(first["counts"].values())


def test_the_picture_is_never_kept_by_a_browser(keyed: Keyed) -> None:
    case_id = stored(keyed, 20)
    shown = asked(keyed, "ada", "GET", f"/review/{case_id}/image", params={"side": 32})
    assert (shown.headers["content-type"], shown.headers["cache-control"]) == (
        *("image/png", "no-store"),
    )
    assert max(Image.open(io.BytesIO(shown.content)).size) == 32


ROUTES = (
    ("GET", "/review", {"ada"}),
    ("GET", f"/review/{NOWHERE}", {"ada"}),
    ("GET", f"/review/{NOWHERE}/image", {"ada"}),
    ("POST", f"/review/{NOWHERE}/opinion", {"ada"}),
    ("POST", f"/review/{NOWHERE}/flags/blurred/dismiss", {"ada"}),
    ("POST", f"/review/{NOWHERE}/withdraw", {"ada"}),
    ("GET", f"/review/{NOWHERE}/history", {"ada", "auditor"}),
    ("GET", "/review/outcomes", {"ada", "auditor"}),
)


@pytest.mark.parametrize(("method", "path", "allowed"), ROUTES)
def test_who_may(keyed: Keyed, method: str, path: str, allowed: set[str]) -> None:
    body = {"verdict": "unsure"} if path.endswith("opinion") else None
    for who in ("ada", "auditor", "it"):
        answer = asked(keyed, who, method, path, json=body)
        if who in allowed:
            assert answer.status_code == (404 if NOWHERE in path else 200), answer.text
        else:
            assert answer.status_code == 403
    assert keyed[0].call(method, path, json=body).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/review?limit=0", None),
        ("GET", "/review?limit=201", None),
        ("GET", "/review?state=confirmed", None),
        ("GET", "/review?after=%00", None),
        ("GET", "/review/%20", None),
        ("GET", f"/review/{NOWHERE}/image?side=31", None),
        ("GET", f"/review/{NOWHERE}/image?side=99999", None),
        ("GET", "/review/outcomes?version=99999999999", None),
        ("GET", "/review/outcomes?since=2026-01-01T00:00:00", None),
        ("GET", "/review/outcomes?kind=right", None),
        ("POST", f"/review/{NOWHERE}/opinion", {"verdict": "maybe"}),
        ("POST", f"/review/{NOWHERE}/opinion", {"verdict": "correct", "label": "measles"}),
        ("POST", f"/review/{NOWHERE}/opinion", {"verdict": "correct"}),
        ("POST", f"/review/{NOWHERE}/opinion", {"verdict": "unsure", "seen": "x"}),
        ("POST", f"/review/{NOWHERE}/opinion", {"verdict": "unsure", "reader": "ben"}),
        ("POST", f"/review/{NOWHERE}/flags/BLURRED/dismiss", None),
    ],
)
def test_what_does_not_fit_is_refused(keyed: Keyed, method: str, path: str, body: object) -> None:
    answer = asked(keyed, "ada", method, path, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_prediction_is_found_with_its_case_and_in_the_outcomes(site: ServedSite) -> None:
    image = picture(5)
    asked_for = site.predict(image).json()
    case_id = site.store(image).json()["case_id"]
    found = site.call("GET", f"/review/{case_id}").json()
    assert [a["request_id"] for a in found["answers"]] == [asked_for["request_id"]]
    assert found["answers"][0]["verdict"] == "positive"
    assert found["proposed"] == {"label": "mel", "by": "model"}
    body = {"verdict": "correct", "label": "nv", "seen": found["seen"]}
    done = site.call("POST", f"/review/{case_id}/opinion", json=body)
    assert done.json()["opinions"][0]["answer_version"] == 1
    outcomes = site.call("GET", "/review/outcomes", params={"kind": "false-alarm"}).json()
    assert [row["case_id"] for row in outcomes["rows"]] == [case_id]
    assert (outcomes["total"]["false_alarms"], outcomes["rows_in_all"]) == (1, 1)
    events = site.call("GET", f"/review/{case_id}/history").json()["events"]
    kinds = [event["kind"] for event in events if event["kind"] != "flagged"]
    assert kinds == ["answered", "stored", "opinion", "confirmed"]


def test_answers_reach_the_disk_by_themselves(site: ServedSite) -> None:
    site.predict(picture(6))
    log, deadline = site.services.answers, time.monotonic() + 10
    while log._waiting:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert log.lost == 0


def test_withdrawing_takes_the_picture_and_can_be_asked_for_again(site: ServedSite) -> None:
    case_id = site.store(picture(7), label="nv").json()["case_id"]
    first = site.call("POST", f"/review/{case_id}/withdraw")
    again = site.call("POST", f"/review/{case_id}/withdraw")
    assert [(a.status_code, a.json()["cases"]) for a in (first, again)] == [(200, 1), (200, 0)]
    image = site.call("GET", f"/review/{case_id}/image")
    assert (image.status_code, image.json()["code"]) == (404, "case-withdrawn")
    body = {"verdict": "correct", "label": "mel"}
    refused = site.call("POST", f"/review/{case_id}/opinion", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "case-withdrawn")


def test_a_withdrawal_does_not_wait_for_images(site: ServedSite) -> None:
    """Nor do images wait for it: it works apart from their pool."""
    case_id = site.store(picture(7), label="nv").json()["case_id"]
    let_go = threading.Event()
    late = threading.Timer(60, let_go.set)
    late.start()
    waiting = [site.services.predictor._workers.submit(let_go.wait) for _ in range(WORKERS)]
    answer = site.call("POST", f"/review/{case_id}/withdraw")
    assert (answer.status_code, answer.json()["unfinished"]) == (200, [])
    assert not let_go.is_set()
    late.cancel()
    let_go.set()
    assert all(one.result() for one in waiting)
