"""`GET /budget` says what `wardround site budget --json` says."""

from __future__ import annotations

import json

from sqlalchemy import text

from common.database import open_database
from deploy.commands.site_budget import read_budget
from tests.client.serving import ServedSite


def test_it_is_the_document_of_the_command(site: ServedSite) -> None:
    answer = site.call("GET", "/budget")
    assert answer.status_code == 200, answer.text
    folder = site.services.settings.folder
    said = json.loads(read_budget(folder).model_dump_json(exclude={"planned"}))
    assert answer.json() == said
    assert said["chain_whole"] is True


def test_a_changed_ledger_is_said(site: ServedSite) -> None:
    engine = open_database(site.services.settings.database)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO privacy_ledger VALUES (1, 'reserve', 'c', 1, 'n', 1, 0.1, 1, 1, 1e-5,"
                " NULL, '2026-01-01 00:00:00', 'p', 'd')"
            )
        )
    engine.dispose()
    found = site.call("GET", "/budget").json()
    assert found["chain_whole"] is False
    assert found["fault"]
