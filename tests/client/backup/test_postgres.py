"""A site on PostgreSQL: its rows are in the backup, and a restored site has them to itself."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from client.audit import open_site_audit
from client.backup.contents import DUMP, IMAGE_LIST
from client.backup.making import last_backup, make_backup
from client.backup.restoring import restore_backup
from client.cases.store import CaseStore
from client.cases.tables import CaseRow
from client.pause import resume
from client.privacy.accounting import Budget
from client.privacy.ledger import PrivacyLedger
from client.privacy.ledger_lines import RoundRequest
from client.settings import SiteSettings
from common.audit_chain import verify
from common.audit_entries import TrainingPaused
from common.database import open_database
from common.errors import ConfigurationError, InputRefused, StoreError
from deploy.commands import site_backup
from tests.client.backup.test_restoring import is_signed_in, signed_in, swap_an_image
from tests.client.pictures import picture
from tests.client.rounds import make_site
from tests.databases import PostgresCluster
from tests.deploy.typer_app import single_command

pytestmark = pytest.mark.skipif(
    shutil.which("pg_dump") is None or shutil.which("pg_restore") is None,
    reason="no pg_dump and pg_restore on this machine",
)
ENVIRONMENT = "WARDROUND_SITE_DATABASE_URL"


@pytest.fixture
def site(tmp_path: Path, postgres_database_url: str) -> SiteSettings:
    settings = make_site(
        tmp_path / "site", patients=2, holdout=1, database_url=postgres_database_url
    )
    with PrivacyLedger.open(settings) as ledger:
        request = RoundRequest("first", 1, "a" * 64, 3, 0.3, 2, 1.0)
        ledger.reserve(request, Budget(8.0, 16.0, 1e-5, 0.5))
    with open_site_audit(settings) as log:
        log.append(TrainingPaused(by="anna"))
    return settings


@pytest.fixture
def empty_database(postgres_cluster: PostgresCluster) -> Iterator[str]:
    url = postgres_cluster.create_database()
    yield url
    postgres_cluster.drop_database(url)


def count(settings: SiteSettings) -> int:
    engine = open_database(settings.database)
    with engine.connect() as connection:
        found = connection.scalar(select(func.count()).select_from(CaseRow)) or 0
    engine.dispose()
    return found


def test_a_site_that_went_on_meanwhile_is_restored_with_logs_that_go_on(
    site: SiteSettings,
    tmp_path: Path,
    empty_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, stop = threading.Event(), threading.Event()

    def go_on() -> None:
        generator = np.random.default_rng(7)
        with open_site_audit(site) as log:
            store = CaseStore.open(site)
            while not stop.is_set():
                log.append(TrainingPaused(by="anna"))
                image = picture(0, generator)
                store.add(image, task="toy", patient_id=None, label="dark", source="x")
                begun.set()
            store.close()

    service = threading.Thread(target=go_on)
    service.start()
    try:
        assert begun.wait(60)
        made = make_backup(site, tmp_path / "disk")
    finally:
        stop.set()
        service.join()
    assert (made.database, made.missing) == ("postgresql", 0)
    for path in Path(made.folder).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    monkeypatch.setenv(ENVIRONMENT, empty_database)
    report = restore_backup(Path(made.folder), tmp_path / "again", keys=site.keys)
    monkeypatch.delenv(ENVIRONMENT)
    assert report.ledger_lines == 1
    again = SiteSettings.read(tmp_path / "again")
    assert again.database == empty_database, "not the living site's, which the backup names"
    assert count(again) == made.images == report.images
    assert resume(again, by="anna", after_restore=True)
    with open_site_audit(again) as log:
        log.append(TrainingPaused(by="anna"))
        assert verify(log) == ()


def test_nobody_is_signed_in_at_a_restored_site(
    site: SiteSettings,
    tmp_path: Path,
    empty_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = signed_in(site)
    made = make_backup(site, tmp_path / "disk")
    monkeypatch.setenv(ENVIRONMENT, empty_database)
    restore_backup(Path(made.folder), tmp_path / "again", keys=site.keys)
    assert not is_signed_in(SiteSettings.read(tmp_path / "again"), secret)
    monkeypatch.delenv(ENVIRONMENT)
    assert is_signed_in(site, secret), "but who works at the living one goes on"


@pytest.mark.parametrize("named", ["the living site's", "SQLite"])
def test_rows_go_into_an_empty_database_or_nowhere(
    site: SiteSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    folder = Path(make_backup(site, tmp_path / "disk").folder)
    before, secret = count(site), signed_in(site)
    if named == "SQLite":
        monkeypatch.setenv(ENVIRONMENT, f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(ConfigurationError) as caught:
        restore_backup(folder, tmp_path / "again", keys=site.keys)
    assert caught.value.code == ("database-elsewhere" if named == "SQLite" else "database-filled")
    assert not (tmp_path / "again").exists()
    assert not (tmp_path / "other.db").exists()
    assert (count(site), is_signed_in(site, secret)) == (before, True)


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o700)


def test_a_password_is_on_no_command_line(
    site: SiteSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(site.database).update_query_dict({"sslpassword": "0ther"})
    password = url.password or "s3cret@x"
    text = url.set(password=password).render_as_string(hide_password=False)
    programs, real = tmp_path / "bin", shutil.which("pg_dump")
    told = f'echo "$@" > {programs}/arguments; echo "$PGPASSWORD" > {programs}/password'
    program(programs, "pg_dump", f'{told}; exec {real} "$@"')
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    make_backup(site.model_copy(update={"database_url": text}), tmp_path / "disk")
    assert (programs / "password").read_text() == f"{password}\n"
    arguments = (programs / "arguments").read_text()
    assert "--dbname=" in arguments
    assert password not in arguments
    assert "0ther" not in arguments


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "postgres-program-absent"),
        (
            "echo 'pg_dump: error: aborting because of server version mismatch' >&2; exit 1",
            "postgres-program-failed",
        ),
    ],
)
def test_without_its_rows_there_is_no_backup(
    site: SiteSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    code: str,
) -> None:
    (tmp_path / "bin").mkdir()
    if text is not None:
        half = 'for a in "$@"; do case $a in --file=*) echo half > "${a#--file=}";; esac; done'
        program(tmp_path / "bin", "pg_dump", f"{half}; {text}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(StoreError) as caught:
        make_backup(site, tmp_path / "disk")
    assert caught.value.code == code
    assert "no older than the server" in caught.value.line()
    assert (text is None) or "version mismatch" in caught.value.what
    assert list((tmp_path / "disk").iterdir()) == []
    assert last_backup(site) is None
    call = ["--site", str(site.folder), "--to", str(tmp_path / "disk")]
    assert CliRunner().invoke(single_command(site_backup.backup), call).exit_code != 0


def test_rows_that_cannot_be_loaded_leave_nothing(
    site: SiteSettings,
    tmp_path: Path,
    empty_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(make_backup(site, tmp_path / "disk").folder)
    program(tmp_path / "bin", "pg_restore", "echo 'pg_restore: error: no' >&2; exit 1")
    monkeypatch.setenv(ENVIRONMENT, empty_database)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
        with pytest.raises(StoreError) as caught:
            restore_backup(folder, tmp_path / "again", keys=site.keys)
    assert caught.value.code == "postgres-program-failed"
    assert not (tmp_path / "again").exists()
    restore_backup(folder, tmp_path / "again", keys=site.keys)


@pytest.mark.parametrize("victim", [DUMP, IMAGE_LIST, "image"])
def test_a_changed_backup_is_refused(site: SiteSettings, tmp_path: Path, victim: str) -> None:
    folder = Path(make_backup(site, tmp_path / "disk").folder)
    if victim == "image":
        swap_an_image(folder / "images", "another image")
    else:
        data = (folder / victim).read_bytes()
        (folder / victim).write_bytes(data[:-1] + b"x")
    with pytest.raises(InputRefused) as caught:
        restore_backup(folder, tmp_path / "again", keys=site.keys)
    assert caught.value.code == "backup-damaged"
