"""An image that cannot be deleted stops nobody else's withdrawal, no round and no start."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from client.cases.image_store import ImageStore
from client.cases.pseudonyms import Pseudonyms
from client.cases.store import CaseStore
from client.main import make_app
from client.round_handler import RoundHandler
from client.settings import SiteSettings
from client.withdrawal import withdraw_patient
from tests.client.rounds import base_tensors, make_plan, make_site, no_test, signed

PATIENTS = 4


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> SiteSettings:
    return make_site(tmp_path / "site", patients=PATIENTS, holdout=2, database_url=database_url)


def digests(site: SiteSettings) -> dict[str, str]:
    """Return the image of each patient in training, by the id that the hospital knows."""
    pseudonyms = Pseudonyms.read(site.keys / "pseudonyms")
    names = {pseudonyms.patient(f"train-{n}"): f"train-{n}" for n in range(PATIENTS)}
    with closing(CaseStore.open(site)) as store:
        return {names[case.patient]: case.digest for case in store.training_cases("toy")}


def keep_undeletable(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Refuse to delete some files, as an immutable flag or a foreign owner does."""
    unlink = Path.unlink

    def refuse(self: Path, missing_ok: bool = False) -> None:
        if self.name in names:
            raise PermissionError(1, "Operation not permitted")
        unlink(self, missing_ok=missing_ok)

    patch.setattr(Path, "unlink", refuse)


def on_disk(site: SiteSettings) -> set[str]:
    return {path.name for path in site.images.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stays", ["first", "last"])
def test_an_image_that_stays_holds_up_nobody_else(
    site: SiteSettings, caplog: pytest.LogCaptureFixture, stays: str
) -> None:
    """Be it first or last in the order in which images are deleted."""
    images = digests(site)
    patients = sorted(images, key=images.__getitem__, reverse=stays == "last")
    bad, other = patients[0], patients[-1]
    with pytest.MonkeyPatch.context() as patch:
        keep_undeletable(patch, images[bad])
        for patient in (bad, other):
            done = withdraw_patient(site, patient)
            assert done.cases == 1
            assert [text.partition(":")[0] for text in done.unfinished] == ["The images"]
        assert on_disk(site) & {images[bad], images[other]} == {images[bad]}
        base = base_tensors()
        plan = make_plan(base=base, purpose="evaluate")
        assert RoundHandler(site, self_test=no_test).handle(signed(plan), base).evaluation
        with TestClient(make_app(site)):  # its lanes end with it
            pass
    assert "images-not-cleared code=store" in caplog.text
    assert not any(name in caplog.text for name in (images[bad], bad))
    assert withdraw_patient(site, bad).unfinished == ()
    assert images[bad] not in on_disk(site)


def test_leftovers_beside_one_that_stays_are_cleared(site: SiteSettings) -> None:
    """One that no case names, older than an hour, and a temporary file of a dead writer."""
    store = ImageStore(site.images)
    left = sorted(store.put_many([b"one", b"two", b"three"]))
    temporary = site.images / left[0][:2] / ".writing-0123456789abcdef"
    temporary.write_bytes(b"half a picture")
    for path in (temporary, *(site.images / name[:2] / name for name in left)):
        os.utime(path, (1, 1))
    with pytest.MonkeyPatch.context() as patch:
        keep_undeletable(patch, left[0], temporary.name)
        CaseStore.open(site).close()
        assert on_disk(site) & {*left, temporary.name} == {left[0], temporary.name}
    CaseStore.open(site).close()
    assert not on_disk(site) & {*left, temporary.name}
