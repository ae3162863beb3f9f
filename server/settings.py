"""The coordinator's settings: one folder, one ``coordinator.toml``, environment on top.

The folder, as `wardround provision` makes it::

    coordinator.toml
    keys/     ca.key, ca.crt, server.key, server.crt, plan.pem, superexec.secret, tuf/*.pem
    data/     registry.db, models/<digest>.safetensors, releases/metadata, releases/targets,
              superlink.db
    pki/      issued/<site>/<serial>.crt, nodes/<site>.pub, revoked.json, crl.pem, plan-keys/
    gateway/  nginx.conf, sites.map (rendered; deploy.gateway)
    logs/
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from common.database import sqlite_url
from common.errors import ConfigurationError
from common.folder_settings import FolderSettings
from common.logs import LogFormat
from common.plan import Identifier
from server.accounts.provider_settings import ProviderSettings


class CoordinatorSettings(FolderSettings):
    """Settings of the coordinator. ``WARDROUND_COORDINATOR_<FIELD>`` overrides the file.

    ``port`` serves releases and the coordinator's page; ``superlink_port`` is Flower's.
    Both are on loopback; sites come in through the gateway, which listens on ``gateway_host``
    and ``gateway_port``. ``timestamp_seconds`` is the life of the TUF timestamp, re-signed at a
    third of it. ``canary_sites`` take a release first, before a person rolls it out to all.
    ``host_names`` are the names by which browsers may call the page, loopback and ``host`` apart.
    A session ends after ``session_idle_seconds`` without a request, and after
    ``session_seconds`` in any case. ``provider`` lets people sign in at an identity provider;
    with one, ``local_accounts`` may be off: then no password opens the page.
    """

    model_config = SettingsConfigDict(env_prefix="WARDROUND_COORDINATOR_")
    file_name = "coordinator.toml"

    database_url: str | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8444
    superlink_port: Annotated[int, Field(ge=0, le=65535)] = 8443
    gateway_host: str = "127.0.0.1"
    gateway_port: Annotated[int, Field(ge=1, le=65535)] = 8440
    log_format: LogFormat = "text"
    timestamp_seconds: Annotated[int, Field(ge=30)] = 86_400
    plan_seconds: Annotated[int, Field(ge=10)] = 7200
    canary_sites: tuple[Identifier, ...] = ()
    host_names: tuple[str, ...] = ()
    session_idle_seconds: Annotated[int, Field(ge=60)] = 1800
    session_seconds: Annotated[int, Field(ge=60)] = 43_200
    provider: ProviderSettings | None = None
    local_accounts: bool = True

    @classmethod
    def find(cls, folder: Path) -> Self:
        """Read the settings of a coordinator's own folder, or of the federation's that holds it.

        A folder that is a coordinator's itself goes before one in it.

        Raises
        ------
        ConfigurationError
            As `read`; for a demo's folder it names the federation in it.
        """
        nested = folder / "coordinator"
        own = (folder / cls.file_name).is_file() or not nested.is_dir()
        try:
            return cls.read(folder if own else nested)
        except ConfigurationError as error:
            of_a_demo = folder / "federation"
            if not (of_a_demo / "coordinator" / cls.file_name).is_file():
                raise
            where = f"Its federation is in {of_a_demo}: give that as --folder."
            raise ConfigurationError(error.what, action=where, code=error.code) from error

    @model_validator(mode="after")
    def _somebody_can_sign_in(self) -> CoordinatorSettings:
        if not self.local_accounts and self.provider is None:
            raise ValueError(
                "local_accounts = false needs a table [provider]: nobody could sign in"
            )
        return self

    @property
    def keys(self) -> Path:
        """Folder of the coordinator's secrets and certificates."""
        return self.folder / "keys"

    @property
    def pki(self) -> Path:
        """Folder of what was issued and revoked; nothing in it is secret."""
        return self.folder / "pki"

    @property
    def gateway(self) -> Path:
        """Folder of the gateway's rendered configuration."""
        return self.folder / "gateway"

    @property
    def data(self) -> Path:
        """Folder of all that the coordinator writes, logs excepted."""
        return self.folder / "data"

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the registry."""
        return self.database_url or sqlite_url(self.data / "registry.db")

    @property
    def models(self) -> Path:
        """Content-addressed model weights, ``<digest>.safetensors``."""
        return self.data / "models"

    @property
    def releases(self) -> Path:
        """The TUF repository: ``metadata/`` and ``targets/``."""
        return self.data / "releases"
