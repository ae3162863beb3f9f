"""A withdrawal that was killed under the version that wrote nothing down is finished, too."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from client.cases.store import MIGRATIONS, CaseStore
from client.cases.transactions import CASES_LOCK, Transactions
from client.cases.unfinished import unfinished
from client.settings import SiteSettings
from client.withdrawal import withdraw_patient
from common.database import migrate, open_database
from tests.client.rounds import make_site
from tests.client.test_unfinished_withdrawals import (
    TRACES,
    add,
    finish,
    leave_traces,
    told,
    traces,
)


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> SiteSettings:
    made = make_site(tmp_path / "site", patients=3, holdout=2, database_url=database_url)
    leave_traces(made)
    return made


def go_back(site: SiteSettings) -> None:
    """Make the database one of the version before, of which a process died after its commit."""
    engine = open_database(site.database)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.downgrade(config, "0006")
    engine.dispose()


def left_to_do(site: SiteSettings) -> list[tuple[str, str | None]]:
    engine = open_database(site.database)
    migrate(engine, MIGRATIONS)
    with Transactions(engine, CASES_LOCK).reading() as session:
        found = [(row.step, row.task) for row in unfinished(session)]
    engine.dispose()
    return found


def test_what_it_left_is_forgotten_once(site: SiteSettings) -> None:
    with closing(CaseStore.open(site)) as store:
        store.withdraw_patient("train-0")
        store.withdraw_patient("train-1")
    go_back(site)
    assert left_to_do(site) == [("forget", "toy")]
    assert finish(site) == ()
    assert traces(site) == []
    assert told(site) == []
    leave_traces(site)
    assert left_to_do(site) == []
    assert withdraw_patient(site, "train-1").cases == 0
    assert traces(site) == list(TRACES), "what was made since is forgotten no second time"


def test_the_same_withdrawal_again_finishes_it(site: SiteSettings) -> None:
    with closing(CaseStore.open(site)) as store:
        store.withdraw_patient("train-1")
    go_back(site)
    assert withdraw_patient(site, "train-1").cases == 0
    assert traces(site) == []


@pytest.mark.parametrize("withdrawn", ["nobody", "who was never confirmed"])
def test_where_nothing_was_learnt_from_nothing_is_forgotten(
    site: SiteSettings, withdrawn: str
) -> None:
    if withdrawn != "nobody":
        case = add(site, label=None)
        with closing(CaseStore.open(site)) as store:
            store.withdraw_case(case)
    go_back(site)
    assert left_to_do(site) == []
    assert finish(site) == ()
    assert traces(site) == list(TRACES)
