"""What a restored site holds to, and what restoring one leaves alone."""

from __future__ import annotations

import hashlib
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from client.access.people import People
from client.access.roles import Role
from client.backup import making
from client.backup.making import make_backup
from client.backup.restoring import restore_backup
from client.backup.rows import CopiedRows
from client.dicom.cursor import PullCursor
from client.inference.engine import InferenceEngine, ModelHolder
from client.releases.decision_file import DecisionFile
from client.releases.desk import ReleaseDesk
from client.releases.policy import ReleasePolicy
from client.releases.watcher import ReleaseWatcher
from client.settings import SiteSettings
from common.database import open_database
from common.errors import ConfigurationError, InputRefused
from tests.client.rounds import make_site
from tests.client.serving import LONG, FakeReleases, release


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path / "site", patients=2, holdout=0)


def restored(site: SiteSettings, tmp_path: Path) -> SiteSettings:
    made = make_backup(site, tmp_path / "disk")
    restore_backup(Path(made.folder), tmp_path / "again", keys=site.keys)
    return SiteSettings.read(tmp_path / "again")


def desk_of(site: SiteSettings) -> ReleaseDesk:
    return ReleaseDesk(
        DecisionFile(site.releases), policy=lambda: ReleasePolicy(on_release="accept")
    )


@pytest.mark.parametrize("how", ["refused", "left"])
def test_what_the_hospital_refused_or_left_does_not_answer_at_a_restored_site(
    site: SiteSettings, tmp_path: Path, how: str
) -> None:
    releases = {version: release(tmp_path, version) for version in (1, 2, 3)}
    desk = desk_of(site)
    for version in (1, 2) if how == "left" else (1,):
        manifest = releases[version].manifest
        decision = desk.judge(manifest, beside=None, compare=lambda: None)
        desk.take(manifest, decision, instead_of=desk.state.serving)
    if how == "left":
        desk.roll_back(by="anna")
    else:
        desk.refuse(releases[2].manifest, by="anna")
    again = restored(site, tmp_path)
    coordinator, holder = FakeReleases(), ModelHolder()
    watcher = ReleaseWatcher(
        *(coordinator, holder),
        load=lambda local: InferenceEngine.load(local, device=torch.device("cpu")),
        poll_seconds=LONG,
        desk=desk_of(again),
    )
    watcher.serve_local()
    coordinator.published.append(releases[2])
    watcher.poll()
    assert holder.current is None
    coordinator.published.append(releases[3])
    watcher.poll()
    assert holder.current is not None, "of which nobody has said anything"
    assert holder.current.version == 3


def test_a_restored_site_knows_what_it_fetched_but_nothing_that_it_has_no_row_of(
    site: SiteSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = making.copy_rows

    def fetched(name: str) -> None:
        with PullCursor(site.data / "dicom" / "pulled.json", keep_days=7).open() as cursor:
            cursor.note(name, "stored")

    def copy_while_fetching(settings: SiteSettings, draft: Path) -> CopiedRows:
        rows = copy(settings, draft)
        fetched("after")  # its case is not in the copy: it is to be fetched again
        return rows

    (site.data / "dicom").mkdir()
    fetched("before")
    monkeypatch.setattr(making, "copy_rows", copy_while_fetching)
    again = restored(site, tmp_path)
    with PullCursor(again.data / "dicom" / "pulled.json", keep_days=7).open() as cursor:
        assert (cursor.knows("before"), cursor.knows("after")) == (True, False)


def signed_in(site: SiteSettings) -> str:
    """Sign somebody in and return the session's secret."""
    engine = open_database(site.database)
    people = People(engine)
    anna = people.add("anna", [Role.it], password="correct horse battery")
    secret = people.open_session(anna, life=timedelta(hours=12))
    engine.dispose()
    return secret


def is_signed_in(site: SiteSettings, secret: str) -> bool:
    engine = open_database(site.database)
    found = People(engine).caller(secret, idle=timedelta(hours=12))
    engine.dispose()
    return found is not None


def test_a_drill_leaves_the_living_sites_database_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    site = make_site(tmp_path / "site", patients=2, holdout=0, database_url=url)
    secret = signed_in(site)
    again = restored(site, tmp_path)
    assert is_signed_in(site, secret), "the living site's people go on"
    assert again.database == f"sqlite:///{tmp_path / 'again' / 'data' / 'cases.db'}"
    assert not is_signed_in(again, secret)
    assert (again.name, again.device) == (site.name, site.device)


def test_a_lost_disk_is_not_needed_to_restore_the_database_that_was_on_it(tmp_path: Path) -> None:
    (tmp_path / "lost").mkdir()
    url = f"sqlite:///{tmp_path / 'lost' / 'elsewhere.db'}"
    site = make_site(tmp_path / "site", patients=2, holdout=0, database_url=url)
    signed_in(site)
    made = make_backup(site, tmp_path / "disk")
    (tmp_path / "lost" / "elsewhere.db").unlink()
    restore_backup(Path(made.folder), tmp_path / "again", keys=site.keys)
    engine = open_database(SiteSettings.read(tmp_path / "again").database)
    assert [person.name for person in People(engine).all()] == ["anna"]
    engine.dispose()
    assert not (tmp_path / "lost" / "elsewhere.db").exists()


def test_a_database_that_the_environment_names_is_refused(
    site: SiteSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = tmp_path / "living.db"
    made = make_backup(site, tmp_path / "disk")
    monkeypatch.setenv("WARDROUND_SITE_DATABASE_URL", f"sqlite:///{living}")
    with pytest.raises(ConfigurationError) as caught:
        restore_backup(Path(made.folder), tmp_path / "again", keys=site.keys)
    assert caught.value.code == "database-elsewhere"
    assert not living.exists()
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("swap", ["another image", "one twice"])
def test_a_backup_with_other_images_than_its_rows_name_is_refused(
    site: SiteSettings, tmp_path: Path, swap: str
) -> None:
    folder = Path(make_backup(site, tmp_path / "disk").folder)
    swap_an_image(folder / "images", swap)
    with pytest.raises(InputRefused) as caught:
        restore_backup(folder, tmp_path / "again", keys=site.keys)
    assert caught.value.code == "backup-damaged"
    assert not (tmp_path / "again").exists()


def swap_an_image(images: Path, swap: str) -> None:
    """Put another file in the place of an image: as many as before, each under its own SHA-256."""
    victim, kept = sorted(path for path in images.rglob("*") if path.is_file())[:2]
    victim.unlink()
    if swap == "one twice":
        (images / "again").mkdir()
        shutil.copyfile(kept, images / "again" / kept.name)
    else:
        data = b"of somebody else"
        name = hashlib.sha256(data).hexdigest()
        (images / name[:2]).mkdir(exist_ok=True)
        (images / name[:2] / name).write_bytes(data)
