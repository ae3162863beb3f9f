import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.cases.store import CaseStore
from client.releases.cache import LocalRelease
from client.settings import SiteSettings
from tests.client.serving import FakeReleases, ServedSite, release, served_site, site_settings


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty site folder to copy: migrating takes most of a test's time."""
    settings = site_settings(tmp_path_factory.mktemp("kit"), maximum_upload_bytes=100_000)
    CaseStore.open(settings).close()
    return settings.folder


@pytest.fixture(scope="session")
def melanoma(tmp_path_factory: pytest.TempPathFactory) -> LocalRelease:
    """Release 1, which answers melanoma to everything."""
    return release(tmp_path_factory.mktemp("releases"), 1, favours="mel")


@pytest.fixture
def settings(kit: Path, tmp_path: Path) -> SiteSettings:
    shutil.copytree(kit, tmp_path / "site")
    return SiteSettings.read(tmp_path / "site")


@pytest.fixture
def site(settings: SiteSettings, melanoma: LocalRelease) -> Iterator[ServedSite]:
    """A site that serves release 1."""
    with served_site(settings, FakeReleases(melanoma)) as served:
        yield served


@pytest.fixture
def site_without_model(settings: SiteSettings) -> Iterator[ServedSite]:
    with served_site(settings, FakeReleases()) as served:
        yield served
