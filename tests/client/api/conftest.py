from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.serving import FakeReleases, ServedSite, release, served_site, site_settings


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ServedSite]:
    """A site that serves release 1, which answers melanoma to everything."""
    settings = site_settings(tmp_path, maximum_upload_bytes=100_000)
    with served_site(settings, FakeReleases(release(tmp_path, 1, favours="mel"))) as served:
        yield served


@pytest.fixture
def site_without_model(tmp_path: Path) -> Iterator[ServedSite]:
    with served_site(site_settings(tmp_path), FakeReleases()) as served:
        yield served
