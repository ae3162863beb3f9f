"""`wardround site user …` and `wardround site key …`: what they make works, and is shown once."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from client.access.keys import Keys
from client.access.people import People
from client.access.roles import Role
from client.audit import open_site_audit
from client.settings import SiteSettings
from client.site_folder import create_site_folder
from common.audit_entries import AccountChanged
from common.database import open_database
from common.errors import InputRefused, NotFound
from common.signing import SigningKey
from deploy.commands import site_access

PASSWORD = "four unrelated words here"


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    plan_keys = [SigningKey.generate().verify_key.pem()]
    return create_site_folder(
        tmp_path / "north", name="north", task="dermoscopy", plan_keys=plan_keys, policy=""
    )


@pytest.fixture
def password(tmp_path: Path) -> str:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    return str(file)


def run(app: Any, site: SiteSettings, *arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--site", str(site.folder)])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_user_is_made_listed_changed_and_removed(
    site: SiteSettings, password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARDROUND_SITE_ACCESS", "accounts")
    assert site_access.nobody(site.folder)
    assert f"--site {site.folder}`" in site_access.hint_of_first_user("north", site.folder)
    roles = ["--role", "clinician", "--role", "auditor"]
    run(site_access.users, site, "add", "anna", *roles, "--password-file", password)
    assert not site_access.nobody(site.folder)
    (found,) = json.loads(run(site_access.users, site, "list", "--json"))["users"]
    assert (found["name"], found["roles"]) == ("anna", ["auditor", "clinician"])
    people = People(open_database(site.database))
    assert people.verify("anna", PASSWORD)
    other = tmp_path / "other"
    other.write_text("another four unrelated words")
    run(site_access.users, site, "password", "anna", "--password-file", str(other))
    assert not people.verify("anna", PASSWORD)
    said = run(site_access.users, site, "remove", "anna")
    assert "There is no user yet." in said
    with pytest.raises(NotFound):
        run(site_access.users, site, "remove", "anna")
    with open_site_audit(site) as log:
        entries = [line.entry() for line in log.lines()]
    changes = [entry.change for entry in entries if isinstance(entry, AccountChanged)]
    assert changes == ["added", "password", "removed"]


def test_a_key_is_shown_once_and_works_until_it_is_removed(site: SiteSettings) -> None:
    made = json.loads(run(site_access.keys, site, "add", "pacs", "--role", "clinician", "--json"))
    keys = Keys(open_database(site.database))
    caller = keys.caller(made["key"])
    assert caller is not None
    assert (caller.name, caller.roles) == ("pacs", {Role.clinician})
    for shown in (
        run(site_access.keys, site, "list"),
        run(site_access.keys, site, "list", "--json"),
    ):
        assert "pacs" in shown
        assert made["key"] not in shown
    run(site_access.keys, site, "remove", "pacs")
    assert keys.caller(made["key"]) is None


def test_a_key_ends_after_the_days_that_it_was_given(site: SiteSettings) -> None:
    run(site_access.keys, site, "add", "pacs", "--role", "clinician")
    run(site_access.keys, site, "add", "pilot", "--role", "clinician", "--days", "7")
    found = json.loads(run(site_access.keys, site, "list", "--json"))["keys"]
    lives = {
        key["name"]: datetime.fromisoformat(key["ends_at"])
        - datetime.fromisoformat(key["created_at"])
        for key in found
    }
    assert lives == {"pacs": timedelta(days=365), "pilot": timedelta(days=7)}
    assert found[1]["ends_at"][:10] in run(site_access.keys, site, "list")


def test_a_password_comes_from_a_file_or_a_terminal_and_is_no_weak_one(
    site: SiteSettings, tmp_path: Path
) -> None:
    with pytest.raises(InputRefused) as refused:
        run(site_access.users, site, "add", "anna", "--role", "it")
    assert refused.value.code == "password-missing"
    for unreadable in (tmp_path / "absent", tmp_path):
        file = ["--password-file", str(unreadable)]
        with pytest.raises(InputRefused) as refused:
            run(site_access.users, site, "add", "anna", "--role", "it", *file)
        assert refused.value.code == "password-file"
    weak = tmp_path / "weak"
    weak.write_text("anna-anna-anna\n")
    with pytest.raises(InputRefused) as refused:
        run(site_access.users, site, "add", "anna", "--role", "it", "--password-file", str(weak))
    assert refused.value.code == "password-weak"
    assert People(open_database(site.database)).all() == ()


def test_an_open_site_needs_nobody(site: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDROUND_SITE_ACCESS", "open")
    assert not site_access.nobody(site.folder)
