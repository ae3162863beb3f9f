"""Backups: what is in them, what never is, and that a site made of one is the same and paused."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from client.access.people import People
from client.access.roles import Role
from client.audit import open_site_audit
from client.backup.contents import MANIFEST, read_manifest
from client.backup.making import backups_in, last_backup, make_backup
from client.backup.restoring import restore_backup
from client.backup.seal import SEAL
from client.cases.store import CaseStore
from client.cases.tables import CaseRow
from client.pause import current_pause, pause, resume
from client.policy import SitePolicy
from client.privacy.accounting import Budget
from client.privacy.ledger import PrivacyLedger
from client.privacy.ledger_lines import RoundRequest
from client.settings import SiteSettings
from client.withdrawal import withdraw_patient
from common.audit_chain import verify
from common.audit_entries import TrainingPaused
from common.database import open_database
from common.errors import ConfigurationError, InputRefused, StoreError
from deploy.commands import site_backup, site_pause
from tests.client.pictures import picture
from tests.client.rounds import make_site
from tests.deploy.typer_app import single_command


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    settings = make_site(tmp_path / "site", patients=3, holdout=1)
    with PrivacyLedger.open(settings) as ledger:
        request = RoundRequest("first", 1, "a" * 64, 3, 0.3, 2, 1.0)
        ledger.reserve(request, Budget(8.0, 16.0, 1e-5, 0.5))
    with open_site_audit(settings) as log:
        log.append(TrainingPaused(by="anna"))
    return settings


def stored(settings: SiteSettings) -> set[tuple[str, str, str | None]]:
    """Every live case with its image read and checked."""
    engine = open_database(settings.database)
    with closing(CaseStore.open(settings)) as store, engine.connect() as connection:
        ids = connection.scalars(select(CaseRow.id).where(CaseRow.status != "withdrawn"))
        cases = [store.get(identifier) for identifier in ids]
        for case in cases:
            store.image_bytes(case)
    engine.dispose()
    return {(case.id, case.patient, case.label) for case in cases}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_site_made_of_a_backup_is_the_same_and_paused(site: SiteSettings, tmp_path: Path) -> None:
    made = make_backup(site, tmp_path / "disk")
    assert (made.images, made.missing, made.database) == (4, 0, "sqlite")
    restored = restore_backup(Path(made.folder), tmp_path / "again", keys=site.keys)
    assert restored.ledger_lines == 1
    again = SiteSettings.read(tmp_path / "again")
    assert stored(again) == stored(site)
    with open_site_audit(again) as log:
        assert verify(log) == ()
    paused = current_pause(again)
    assert paused is not None
    assert "Restored from the backup" in paused.reason
    assert SitePolicy.read(again.policy).paused
    for path in (again.folder, *again.folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_no_secret_is_in_a_backup_and_nobody_else_may_read_it(
    site: SiteSettings, tmp_path: Path
) -> None:
    made = make_backup(site, tmp_path / "disk")
    secrets = [p.read_bytes() for p in site.keys.iterdir() if p.suffix not in (".crt", ".pub")]
    assert len(secrets) >= 2
    found = contents(Path(made.folder))
    for secret in secrets:
        assert not [name for name, data in found.items() if secret.strip() in data]
    for path in Path(made.folder).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_withdrawn_images_are_left_out_and_old_backups_go(
    site: SiteSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_backup(site, tmp_path / "disk")
    withdraw_patient(site, "train-1")
    Path(first.folder).rename(tmp_path / "disk" / "north-20200101T000000Z")
    second = make_backup(site, tmp_path / "disk", keep=1)
    assert second.images == 3
    assert second.removed == ("north-20200101T000000Z",)
    assert [path.name for path in backups_in(tmp_path / "disk", "north")] == [
        Path(second.folder).name
    ]
    assert last_backup(site) == second.model_copy(update={"removed": second.removed})


def test_unchanged_images_are_linked_unless_they_went_bad(
    site: SiteSettings, tmp_path: Path
) -> None:
    first = make_backup(site, tmp_path / "disk")
    old = Path(first.folder).rename(tmp_path / "disk" / "north-20200101T000000Z")
    images = sorted(path for path in (old / "images").rglob("*") if path.is_file())
    images[0].write_bytes(b"the disk forgot")
    second = make_backup(site, tmp_path / "disk")
    links = {
        p.name: p.stat().st_nlink
        for p in (Path(second.folder) / "images").rglob("*")
        if p.is_file()
    }
    assert [links[path.name] for path in images] == [1, 2, 2, 2]
    assert second.missing == 0


def test_an_image_that_cannot_be_read_is_told(site: SiteSettings, tmp_path: Path) -> None:
    victim = next(path for path in site.images.rglob("*") if path.is_file())
    victim.write_bytes(b"bits rotted")
    call = ["--site", str(site.folder), "--to", str(tmp_path / "disk"), "--json"]
    result = CliRunner().invoke(single_command(site_backup.backup), call, catch_exceptions=False)
    assert result.exit_code == 1
    assert (json.loads(result.stdout)["images"], json.loads(result.stdout)["missing"]) == (3, 1)


@pytest.mark.parametrize("victim", ["cases.db", "policy.toml", "data/ledger-head.json", "image"])
def test_a_changed_backup_is_refused_and_nothing_is_made(
    site: SiteSettings, tmp_path: Path, victim: str
) -> None:
    folder = Path(make_backup(site, tmp_path / "disk").folder)
    path = folder / victim
    if victim == "image":
        path = next(p for p in (folder / "images").rglob("*") if p.is_file())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputRefused, match="not whole"):
        restore_backup(folder, tmp_path / "again", keys=site.keys)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("path", ["../../escaped", "/etc/passwd", "a/../../b", ""])
def test_a_manifest_that_leads_out_of_the_folder_is_refused(
    site: SiteSettings, tmp_path: Path, path: str
) -> None:
    folder = Path(make_backup(site, tmp_path / "disk").folder)
    document = json.loads((folder / MANIFEST).read_text())
    document["files"][0]["path"] = path
    (folder / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(InputRefused, match="no backup"):
        read_manifest(folder)


def test_other_keys_are_refused(site: SiteSettings, tmp_path: Path) -> None:
    folder = Path(make_backup(site, tmp_path / "disk").folder)
    other = make_site(tmp_path / "other", patients=0, holdout=0)
    with pytest.raises(ConfigurationError) as caught:
        restore_backup(folder, tmp_path / "again", keys=other.keys)
    assert caught.value.code == "backup-seal"
    with pytest.raises(ConfigurationError) as caught:
        restore_backup(folder, tmp_path / "again", keys=tmp_path)
    assert caught.value.code == "keys-missing"
    assert not (tmp_path / "again").exists()


def resealed(folder: Path, name: str, data: bytes) -> None:
    """Change a file as somebody would who may write where the backups lie: its digest, too."""
    (folder / name).write_bytes(data)
    document = json.loads((folder / MANIFEST).read_text())
    digest = hashlib.sha256(data).hexdigest()
    document["files"] = [file for file in document["files"] if file["path"] != name]
    document["files"].append({"path": name, "sha256": digest})
    (folder / MANIFEST).write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("site.toml", b'access = "open"'),
        ("trust/plan-keys/forger.pem", b"a key of somebody else's"),
        ("policy.toml", b"epsilon_life = 1000.0"),
    ],
)
def test_what_somebody_wrote_into_a_backup_is_not_restored(
    site: SiteSettings, tmp_path: Path, name: str, data: bytes
) -> None:
    folder = Path(make_backup(site, tmp_path / "disk").folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    resealed(folder, name, data)
    for _ in range(2):
        with pytest.raises(ConfigurationError) as caught:
            restore_backup(folder, tmp_path / "again", keys=site.keys)
        assert caught.value.code == "backup-seal"
        (folder / SEAL).unlink(missing_ok=True)
    assert not (tmp_path / "again").exists()


def test_a_restored_site_is_resumed_by_whoever_says_what_that_means(
    site: SiteSettings, tmp_path: Path
) -> None:
    folder = Path(make_backup(site, tmp_path / "disk").folder)
    restore_backup(folder, tmp_path / "again", keys=site.keys)
    again = SiteSettings.read(tmp_path / "again")
    with pytest.raises(InputRefused) as caught:
        resume(again, by="anna")
    assert caught.value.code == "restored-site"
    assert pause(again, by="anna").by == "console-restore", "which pausing again does not hide"
    call = ["--site", str(again.folder)]
    command = single_command(site_pause.resume)
    assert CliRunner().invoke(command, call).exit_code != 0
    assert SitePolicy.read(again.policy).paused
    assert CliRunner().invoke(command, [*call, "--after-restore"]).exit_code == 0
    assert not SitePolicy.read(again.policy).paused


def test_nobody_is_signed_in_at_a_restored_site(site: SiteSettings, tmp_path: Path) -> None:
    engine = open_database(site.database)
    people = People(engine)
    anna = people.add("anna", [Role.it], password="correct horse battery")
    secret = people.open_session(anna, life=timedelta(hours=12))
    engine.dispose()
    folder = Path(make_backup(site, tmp_path / "disk").folder)
    restore_backup(folder, tmp_path / "again", keys=site.keys)
    engine = open_database(SiteSettings.read(tmp_path / "again").database)
    assert People(engine).caller(secret, idle=timedelta(hours=12)) is None
    assert [person.name for person in People(engine).all()] == ["anna"]
    engine.dispose()


def test_what_a_killed_backup_left_goes_with_a_later_one(
    site: SiteSettings, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    drafts = {
        name: disk / f".north-{name}"
        for name in ("20200101T000000Z.abcd_123", "20200102T000000Z.abcd_123", "notes.abcd_123")
    }
    for draft in drafts.values():
        (draft / "images").mkdir(parents=True)
        os.utime(draft, (0, 0))
    os.utime(drafts["20200102T000000Z.abcd_123"])  # it may be at work
    make_backup(site, disk)
    left = {name for name, draft in drafts.items() if draft.exists()}
    assert left == {"20200102T000000Z.abcd_123", "notes.abcd_123"}


def test_a_backup_during_writes_holds_every_row_that_it_speaks_of(
    site: SiteSettings, tmp_path: Path
) -> None:
    stop = threading.Event()
    with closing(CaseStore.open(site)) as store:

        def write() -> None:
            generator = np.random.default_rng(7)
            while not stop.is_set():
                image = picture(0, generator)
                store.add(image, task="toy", patient_id=None, label="dark", source="x")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            made = make_backup(site, tmp_path / "disk")
        finally:
            stop.set()
            writer.join()
    assert made.missing == 0
    restore_backup(Path(made.folder), tmp_path / "again", keys=site.keys)
    assert len(stored(SiteSettings.read(tmp_path / "again"))) == made.images


def test_a_failed_backup_leaves_nothing_and_changes_no_record(
    site: SiteSettings, tmp_path: Path
) -> None:
    Path(site.data / "cases.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(StoreError) as caught:
        make_backup(site, tmp_path / "disk")
    assert caught.value.code == "backup-failed"
    assert list((tmp_path / "disk").iterdir()) == []
    assert last_backup(site) is None


def test_who_restores_is_told_what_the_backup_does_not_know(
    site: SiteSettings, tmp_path: Path
) -> None:
    made = make_backup(site, tmp_path / "disk")
    call = ["--from", made.folder, "--keys", str(site.keys), "--site", str(tmp_path / "again")]
    result = CliRunner().invoke(single_command(site_backup.restore), call, catch_exceptions=False)
    assert result.exit_code == 0
    for words in ("Training is paused", "Withdraw again", "lower epsilon_life", "users and keys"):
        assert words in result.stdout
