import pytest

from common.release import ReleaseManifest
from tests.client.serving import release


@pytest.fixture(scope="package")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> ReleaseManifest:
    """Release 1 of the tests' recipe."""
    return release(tmp_path_factory.mktemp("releases"), 1).manifest
