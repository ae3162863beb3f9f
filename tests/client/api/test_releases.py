"""``/releases`` over HTTP, and what the audit log and readiness say of it."""

from __future__ import annotations

import time
from pathlib import Path

from client.audit import open_site_audit
from client.releases import by_hand
from client.releases.cache import LocalRelease
from client.settings import SiteSettings
from common.audit_entries import ReleaseDecided
from tests.client.serving import FakeReleases, ServedSite, picture, release, served_site


def hold(settings: SiteSettings) -> None:
    settings.policy.write_text('[releases]\non_release = "hold"\n')


def wait_for(site: ServedSite, version: int) -> None:
    deadline = time.monotonic() + 20
    while site.predict(picture()).json()["model_version"] != version:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_list_accept_refuse_and_roll_back(
    settings: SiteSettings, melanoma: LocalRelease, tmp_path: Path
) -> None:
    hold(settings)
    with served_site(settings, FakeReleases(melanoma)) as site:
        first = site.call("GET", "/releases").json()
        assert (first["answering"], first["waiting"], first["policy"]["on_release"]) == (
            *(1, None),
            "hold",
        )
        site.publish(release(tmp_path, 2))
        held = site.call("GET", "/releases").json()
        assert (held["answering"], held["waiting"]) == (1, 2)
        assert held["rows"][0]["state"] == "held"
        alarms = site.call("GET", "/health/ready").json()["alarms"]
        assert [alarm["code"] for alarm in alarms] == ["release-held"]
        assert site.call("POST", "/releases/2/accept").status_code == 200
        wait_for(site, 2)
        back = site.call("POST", "/releases/rollback")
        assert (back.status_code, back.json()["answering"], back.json()["pinned"]) == (200, 1, True)
        assert site.predict(picture()).json()["model_version"] == 1
        again = site.call("POST", "/releases/rollback")
        assert (again.status_code, again.json()["code"]) == (409, "no-previous-release")
        assert site.call("POST", "/releases/7/refuse").status_code == 404
        assert site.call("POST", "/releases/0/accept").status_code == 422
        site.publish(release(tmp_path, 3))
        assert site.call("POST", "/releases/3/refuse").json()["waiting"] is None
    with open_site_audit(settings) as audit:
        entries = [line.entry() for line in audit.lines(kinds=["release-decided"])]
    said = [(e.version, e.verdict, e.by) for e in entries if isinstance(e, ReleaseDecided)]
    assert said == [
        (1, "accepted", "policy"),
        (2, "held", "policy"),
        (2, "accepted", "local"),
        (2, "rolled-back", "local"),
        (3, "held", "policy"),
        (3, "refused", "local"),
    ]


def test_a_stale_model_does_not_answer_where_the_policy_says_so(
    settings: SiteSettings, melanoma: LocalRelease
) -> None:
    with served_site(settings, FakeReleases(melanoma)) as site:
        assert site.predict(picture()).status_code == 200
        settings.policy.write_text("[releases]\nstale_after = 1e-6\nrefuse_after = 2e-6\n")
        refused = site.predict(picture())
        assert (refused.status_code, refused.json()["code"]) == (503, "model-stale")
        ready = site.call("GET", "/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "model-stale")
        assert site.store(picture(), label="mel").status_code == 201
        assert site.call("GET", "/releases").json()["refuses"] is True
        metrics = site.call("GET", "/metrics").text
        assert 'wardround_site_release_alarm{code="model-stale"} 1.0' in metrics
        settings.policy.write_text("")
        assert site.predict(picture()).status_code == 200


def test_the_command_line_decides_beside_the_service(
    settings: SiteSettings, melanoma: LocalRelease, tmp_path: Path
) -> None:
    with served_site(settings, FakeReleases(melanoma)) as site:
        site.publish(release(tmp_path, 2))
        document = by_hand.list_releases(settings)
        assert (document.serving, document.previous) == (2, 1)
        assert site.services.watcher.desk.state.fallback is not None
