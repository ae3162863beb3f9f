"""Images of a backup: each is had from wherever it is still good, and the last good one stays."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from client.backup.images import copy_images
from client.backup.making import backups_in, make_backup
from client.settings import SiteSettings
from tests.client.rounds import make_site


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    return make_site(tmp_path / "site", patients=2, holdout=0)


def an_image(site: SiteSettings) -> Path:
    return min(path for path in site.images.rglob("*") if path.is_file())


def backed_up(site: SiteSettings, disk: Path) -> Path:
    """Return a backup that was made the year before."""
    return Path(make_backup(site, disk).folder).rename(disk / "north-20200101T000000Z")


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("no_links")
@pytest.mark.parametrize("how", ["rotten", "gone"])
def test_without_links_the_good_copy_of_a_bad_image_is_taken_along(
    site: SiteSettings, tmp_path: Path, how: str
) -> None:
    before = backed_up(site, tmp_path / "disk")
    victim = an_image(site)
    good = victim.read_bytes()
    if how == "gone":
        victim.unlink()
    else:
        victim.write_bytes(b"bits rotted")
    made = make_backup(site, tmp_path / "disk", keep=1)
    assert (made.images, made.missing) == (2, 0)
    assert made.removed == (before.name,)
    assert (Path(made.folder) / "images" / victim.name[:2] / victim.name).read_bytes() == good


def test_no_old_backup_is_removed_while_an_image_is_missing(
    site: SiteSettings, tmp_path: Path
) -> None:
    before = backed_up(site, tmp_path / "disk")
    victim = an_image(site)
    shutil.rmtree(before / "images" / victim.name[:2])
    victim.unlink()
    made = make_backup(site, tmp_path / "disk", keep=1)
    assert (made.missing, made.removed) == (1, ())
    assert [path.name for path in backups_in(tmp_path / "disk", "north")] == [
        before.name,
        Path(made.folder).name,
    ]


@pytest.mark.parametrize(("number", "stops"), [(errno.EIO, False), (errno.ENOSPC, True)])
def test_a_bad_sector_costs_one_image_and_a_full_disk_the_backup(
    site: SiteSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, stops: bool
) -> None:
    victim, copyfile = an_image(site), shutil.copyfile

    def copy(source: Path, target: Path) -> Path:
        if source == victim:
            target.write_bytes(b"half")
            raise OSError(number, os.strerror(number))
        return copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy)
    (tmp_path / "copies").mkdir()
    digests = sorted(path.name for path in site.images.rglob("*") if path.is_file())
    if stops:
        with pytest.raises(OSError, match="No space"):
            copy_images(digests, site.images, tmp_path / "copies", None)
    else:
        assert copy_images(digests, site.images, tmp_path / "copies", None) == (1, 1)
        assert not (tmp_path / "copies" / victim.name[:2] / victim.name).exists()
