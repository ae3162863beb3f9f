"""A real coordinator over TLS, and a site with a release cache that asks it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.releases.cache import ReleaseCache
from client.settings import SiteSettings
from tests.releases import Coordinator, served


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Coordinator, int, Path]]:
    """One served coordinator for the module; its folder is restored after each test."""
    folder = tmp_path_factory.mktemp("federation")
    coordinator = Coordinator.create(folder / "coordinator")
    with served(coordinator) as port:
        backup = folder / "backup"
        shutil.copytree(coordinator.settings.folder, backup)
        yield coordinator, port, backup


@pytest.fixture
def coordinator(pristine: tuple[Coordinator, int, Path]) -> Iterator[Coordinator]:
    made, _, backup = pristine
    yield made
    for part in ("data/releases", "keys/tuf"):
        shutil.rmtree(made.settings.folder / part)
        shutil.copytree(backup / part, made.settings.folder / part)


@pytest.fixture
def port(pristine: tuple[Coordinator, int, Path]) -> int:
    return pristine[1]


@pytest.fixture
def site(coordinator: Coordinator, port: int, tmp_path: Path) -> SiteSettings:
    return coordinator.site(tmp_path / "site", port)


@pytest.fixture
def cache(site: SiteSettings) -> ReleaseCache:
    return ReleaseCache(site)
