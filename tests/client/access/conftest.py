from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from client.access.roles import Role
from client.cases.store import CaseStore
from client.settings import SiteSettings
from tests.client.serving import FakeReleases, ServedSite, release, served_site, site_settings

PASSWORD = "correct horse battery"
OWN = {"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}


class TakesNothing:
    """Makes a database one that can be read and takes nothing while ``full``: a full disk."""

    def __init__(self, engine: Engine) -> None:
        self.full = True
        if engine.dialect.name == "sqlite":
            event.listen(engine, "checkout", self._checkout)
        else:
            event.listen(engine, "begin", self._begin)

    def _checkout(self, connection: DBAPIConnection, *_: object) -> None:
        connection.cursor().execute(f"PRAGMA query_only={'ON' if self.full else 'OFF'}")

    def _begin(self, connection: Connection) -> None:
        if self.full:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")


@pytest.fixture(autouse=True)
def accounts_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlike all other tests, these ask for accounts."""
    monkeypatch.setenv("WARDROUND_SITE_ACCESS", "accounts")


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty site folder to copy."""
    settings = site_settings(tmp_path_factory.mktemp("kit"), maximum_upload_bytes=100_000)
    CaseStore.open(settings).close()
    return settings.folder


@pytest.fixture
def settings(kit: Path, tmp_path: Path) -> SiteSettings:
    shutil.copytree(kit, tmp_path / "site")
    return SiteSettings.read(tmp_path / "site")


@dataclass(frozen=True)
class GuardedSite:
    """A site with one key for each role, and a person with all of them."""

    site: ServedSite
    keys: dict[Role, str]

    def call(self, method: str, path: str, role: Role | None, **options: Any) -> httpx.Response:
        headers = dict(options.pop("headers", {}))
        if role is not None:
            headers["authorization"] = f"Bearer {self.keys[role]}"
        return self.site.call(method, path, headers=headers, **options)

    def sign_in(self, name: str = "dr-house", password: str = PASSWORD) -> httpx.Response:
        form = {"name": name, "password": password, "next": "/model"}
        return self.site.call("POST", "/sign-in", data=form, headers=OWN)


@pytest.fixture(scope="session")
def first_release(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return release(tmp_path_factory.mktemp("releases"), 1, favours="mel")


@pytest.fixture
def guarded(settings: SiteSettings, first_release: Any) -> Iterator[GuardedSite]:
    with served_site(settings, FakeReleases(first_release)) as served:
        access = served.services.access
        keys = {role: access.keys.add(f"{role}-key", [role]) for role in Role}
        yield GuardedSite(served, keys)
