"""`wardround site views`: who looked at what, and what the log could not say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from client.audit import open_site_audit
from client.settings import SiteSettings
from common.audit_entries import CaseViewed, TrainingPaused, Unaudited
from deploy.cli import app
from tests.client.serving import site_settings

ONE, OTHER = "1" * 32, "2" * 32


def call(settings: SiteSettings, *arguments: str) -> tuple[int, str]:
    command = ["site", "views", "--site", str(settings.folder), *arguments]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    return result.exit_code, result.stdout


@pytest.fixture
def looked_at(tmp_path: Path) -> SiteSettings:
    settings = site_settings(tmp_path / "site")
    with open_site_audit(settings) as log:
        log.append(
            CaseViewed(case=ONE, part="picture", by="anna"),
            TrainingPaused(by="console-root"),
            CaseViewed(case=OTHER, part="case", by="anna"),
            Unaudited(predictions=4, views=2),
            CaseViewed(case=ONE, part="history", by="bert"),
        )
    return settings


def test_every_look_is_listed(looked_at: SiteSettings) -> None:
    code, output = call(looked_at, "--json")
    document = json.loads(output)
    assert (code, document["unaudited"], document["faults"]) == (0, 2, [])
    assert [(e["sequence"], e["case"], e["part"], e["by"]) for e in document["entries"]] == [
        *((1, ONE, "picture", "anna"), (3, OTHER, "case", "anna"), (5, ONE, "history", "bert"))
    ]
    code, output = call(looked_at)
    assert (code, output.count(ONE)) == (0, 2)
    assert "3 views." in output
    assert "2 views could not be written down" in output


def test_a_case_and_an_account_can_be_asked_for(looked_at: SiteSettings) -> None:
    for flags, found in (
        (("--case", ONE), [1, 5]),
        (("--by", "anna"), [1, 3]),
        (("--case", ONE, "--by", "bert"), [5]),
        (("--by", "nobody"), []),
    ):
        _, output = call(looked_at, *flags, "--json")
        assert [entry["sequence"] for entry in json.loads(output)["entries"]] == found


def test_a_log_that_was_changed_is_refused(looked_at: SiteSettings) -> None:
    with open_site_audit(looked_at) as log:
        table = log._table
        with log._engine.begin() as connection:
            changed = CaseViewed(case=ONE, part="picture", by="carl").model_dump_json()
            statement = update(table).where(table.c.sequence == 1).values(body=changed)
            connection.execute(statement)
    code, output = call(looked_at)
    assert code == 3
    assert "whole" not in output
