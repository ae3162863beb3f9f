"""``GET /status`` and the pause switch over HTTP, also while parts of the site are broken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.access.caller import Role
from client.audit import open_site_audit
from client.backup.making import RECORD, BackupMade, make_backup
from client.policy import SitePolicy
from client.privacy.accounting import Budget
from client.privacy.ledger import PrivacyLedger
from client.privacy.ledger_lines import RoundRequest
from client.releases.cache import CacheStatus
from client.releases.watcher import Alarm
from client.settings import SiteSettings
from client.status import machine
from common.audit_entries import Left, TrainingPaused, TrainingResumed
from tests.client.pages.doors import as_caller
from tests.client.rounds import change_policy
from tests.client.serving import ServedSite, picture

NOW = datetime.now(UTC)


def status(site: ServedSite) -> dict[str, object]:
    site.services.status._kept = None
    answer = site.call("GET", "/status")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert isinstance(found, dict)
    return found


def test_a_healthy_site_says_so(site: ServedSite) -> None:
    found = status(site)
    assert found["troubles"] == []
    assert found["model"]["version"] == 1  # type: ignore[index]
    assert found["training"]["paused"] is False  # type: ignore[index]
    assert found["privacy"]["spent"] == 0.0  # type: ignore[index]
    assert found["backup"]["level"] == "warn"  # type: ignore[index]
    assert {v["name"] for v in found["versions"]} >= {"python", "torch"}  # type: ignore[attr-defined]


def test_what_left_and_what_it_cost(site: ServedSite, settings: SiteSettings) -> None:
    with PrivacyLedger.open(settings) as ledger:
        request = RoundRequest("first", 1, "a" * 64, 3, 0.3, 2, 1.0)
        ledger.reserve(request, Budget(8.0, 16.0, 1e-5, 0.5))
    left = Left(
        contents=("update", "receipt"),
        destination="127.0.0.1:8443",
        bytes=1000,
        sha256="b" * 64,
        campaign="first",
        round=1,
        epsilon_campaign=1.5,
    )
    with open_site_audit(settings) as log:
        log.append(*[left] * 12)
    found = status(site)
    totals = found["left"]
    assert isinstance(totals, dict)
    assert (totals["replies"], totals["updates"], totals["bytes"]) == (12, 12, 12_000)
    assert [line["sequence"] for line in totals["newest"]] == list(
        range(totals["newest"][0]["sequence"], totals["newest"][0]["sequence"] - 10, -1)
    )
    assert 0 < found["privacy"]["spent"] < 8  # type: ignore[index,operator]
    assert found["privacy"]["rounds"] == 1  # type: ignore[index]


def test_the_switch_is_set_and_taken_back_by_hospital_it_alone(site: ServedSite) -> None:
    settings = site.services.settings
    for role in (Role.clinician, Role.auditor):
        with as_caller(site.app, role):
            assert site.call("POST", "/training/pause", json={}).status_code == 403
            assert site.call("POST", "/training/resume", json={}).status_code == 403
    assert not SitePolicy.read(settings.policy).paused
    with as_caller(site.app, Role.it, name="ina"):
        paused = site.call("POST", "/training/pause", json={"reason": "new scanner"}).json()
        assert (paused["training"]["by"], paused["training"]["reason"]) == ("ina", "new scanner")
        assert SitePolicy.read(settings.policy).paused
        page = site.call("GET", "/it").text
        assert "Paused by ina" in page
        assert 'data-action="/training/resume"' in page
        resumed = site.call("POST", "/training/resume", json={}).json()
        assert resumed["training"]["paused"] is False
    with open_site_audit(settings) as log:
        kinds = ("training-paused", "training-resumed")
        entries = [line.entry() for line in log.lines(kinds=kinds)]
    assert entries == [TrainingPaused(by="ina"), TrainingResumed(by="ina")]


def test_an_auditor_looks_and_has_no_button(site: ServedSite) -> None:
    with as_caller(site.app, Role.auditor):
        page = site.call("GET", "/it").text
        assert site.call("GET", "/status").status_code == 200
    assert "data-action" not in page
    with as_caller(site.app, Role.clinician):
        assert site.call("GET", "/status").status_code == 403


def test_without_its_database_the_site_still_says_what_is_wrong(site: ServedSite) -> None:
    database = site.services.settings.data / "cases.db"
    site.services.status.engine.dispose()
    for path in database.parent.glob("cases.db*"):
        path.unlink()
    database.mkdir()
    found = status(site)
    broken = {trouble["part"] for trouble in found["troubles"]}  # type: ignore[attr-defined]
    assert {"left", "privacy", "plans"} <= broken
    assert found["disk"] is not None
    page = site.call("GET", "/it")
    assert page.status_code == 200
    assert "The audit log cannot be read" in page.text
    assert site.predict(picture(1)).status_code == 200


def test_a_database_that_is_known_to_be_away_is_not_waited_for(
    site: ServedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    reader = site.services.status
    for part in ("_left", "_privacy", "_queues", "_last_plan"):
        monkeypatch.setattr(reader, part, lambda part=part: asked.append(part))
    found = reader.read((Alarm("database-away", "It is away.", NOW),), fresh=True)
    assert asked == []
    assert {t.part for t in found.troubles} == {"left", "privacy", "scoring", "queues", "plans"}
    assert found.training is not None


def test_a_site_that_can_score_no_candidate_says_so(site: ServedSite) -> None:
    change_policy(site.services.settings, release_evaluation=False)
    found = status(site)["scoring"]
    assert found["able"] is False  # type: ignore[index]
    assert found["code"] == "scores-unreleased"  # type: ignore[index]
    page = site.call("GET", "/it").text
    assert "cannot score" in page
    assert "release_evaluation = false" in page


@pytest.mark.parametrize("fault", ["missing", "malformed"])
def test_without_its_policy_too(site: ServedSite, fault: str) -> None:
    policy = site.services.settings.policy
    if fault == "missing":
        policy.unlink()
    else:
        policy.write_text("paused = 3")
    found = status(site)
    parts = {t["part"] for t in found["troubles"]}  # type: ignore[attr-defined]
    assert parts == {"training", "privacy", "scoring"}
    assert site.call("GET", "/it").status_code == 200


def test_a_coordinator_that_is_away_is_an_alarm_with_advice(site: ServedSite) -> None:
    since = NOW - timedelta(hours=3)
    message = "The coordinator cannot be reached."
    site.releases.status = CacheStatus(1, NOW, since, "coordinator-unreachable", message)
    found = status(site)
    assert found["connection"]["level"] == "bad"  # type: ignore[index]
    alarms = {alarm["code"]: alarm for alarm in found["alarms"]}  # type: ignore[attr-defined]
    assert "Answers go on" in alarms["coordinator-unreachable"]["action"]
    assert "Answers go on" in site.call("GET", "/it").text


@pytest.mark.parametrize(
    ("free", "level"), [(10**9 * 100, "good"), (10**9, "warn"), (10**6, "bad"), (0, "bad")]
)
def test_a_disk_that_fills(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, level: str
) -> None:
    usage = type("Usage", (), {"free": free, "total": 10**12})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    assert machine.disk_of(tmp_path).level == level


def test_the_age_of_the_backup(site: ServedSite, tmp_path: Path) -> None:
    settings = site.services.settings
    made = make_backup(settings, tmp_path / "disk")
    assert status(site)["backup"]["level"] == "good"  # type: ignore[index]
    old = made.model_copy(update={"made_at": NOW - timedelta(days=9)})
    (settings.data / RECORD).write_text(BackupMade.model_dump_json(old))
    backup = status(site)["backup"]
    assert isinstance(backup, dict)
    assert (backup["level"], round(backup["age_days"])) == ("warn", 9)
    (settings.data / RECORD).write_text("{")
    assert status(site)["backup"]["made_at"] is None  # type: ignore[index]


def test_nothing_secret_and_nothing_of_a_patient_is_told(site: ServedSite) -> None:
    site.store(picture(1), patient_id="MRN-4711", label="mel")
    text = site.call("GET", "/status").text + site.call("GET", "/it").text
    secret = (site.services.settings.keys / "pseudonyms").read_text().strip()
    assert "4711" not in text
    assert secret not in text
