"""What a restored site holds to, and what restoring one leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from client.backup import making
from client.backup.making import make_backup
from client.backup.restoring import restore_backup
from client.dicom.cursor import PullCursor
from client.inference.engine import InferenceEngine, ModelHolder
from client.releases.decision_file import DecisionFile
from client.releases.desk import ReleaseDesk
from client.releases.policy import ReleasePolicy
from client.releases.watcher import ReleaseWatcher
from client.settings import SiteSettings
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
    copy = making._copy_database

    def fetched(name: str) -> None:
        with PullCursor(site.data / "dicom" / "pulled.json", keep_days=7).open() as cursor:
            cursor.note(name, "stored")

    def copy_while_fetching(settings: SiteSettings, target: Path) -> str:
        kind = copy(settings, target)
        fetched("after")  # its case is not in the copy: it is to be fetched again
        return kind

    (site.data / "dicom").mkdir()
    fetched("before")
    monkeypatch.setattr(making, "_copy_database", copy_while_fetching)
    again = restored(site, tmp_path)
    with PullCursor(again.data / "dicom" / "pulled.json", keep_days=7).open() as cursor:
        assert (cursor.knows("before"), cursor.knows("after")) == (True, False)
