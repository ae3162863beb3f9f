"""The coordinator's settings: one folder, one ``coordinator.toml``, environment on top.

The folder, as `wardround provision` makes it::

    coordinator.toml
    keys/     ca.key, ca.crt, server.key, server.crt, plan.pem, superexec.secret, tuf/*.pem
    data/     registry.db, models/<digest>.safetensors, releases/metadata, releases/targets,
              superlink.db
    logs/
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from common.database import sqlite_url
from common.errors import ConfigurationError


class CoordinatorSettings(BaseSettings):
    """Settings of the coordinator. ``WARDROUND_COORDINATOR_<FIELD>`` overrides the file.

    ``port`` serves releases and the coordinator's page; ``superlink_port`` is Flower's.
    ``timestamp_seconds`` is the life of the TUF timestamp, re-signed at a third of it.
    """

    model_config = SettingsConfigDict(
        env_prefix="WARDROUND_COORDINATOR_", extra="forbid", frozen=True
    )

    folder: Path
    database_url: str | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8444
    superlink_port: Annotated[int, Field(ge=0, le=65535)] = 8443
    timestamp_seconds: Annotated[int, Field(ge=30)] = 86_400
    plan_seconds: Annotated[int, Field(ge=10)] = 7200

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file (which arrives as init settings)."""
        return env_settings, init_settings

    @classmethod
    def read(cls, folder: Path) -> CoordinatorSettings:
        """Read ``coordinator.toml`` of a coordinator folder.

        Raises
        ------
        ConfigurationError
            If it is absent, no TOML, or a field is wrong.
        """
        path = folder / "coordinator.toml"
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"There is no {path}.",
                action="Name a coordinator folder, as `wardround provision` makes it.",
            ) from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}.") from error
        try:
            return cls(**{**data, "folder": folder.resolve()})
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()
            )
            raise ConfigurationError(f"{path} breaks a rule: {faults}.") from error

    @property
    def keys(self) -> Path:
        """Folder of the coordinator's secrets and certificates."""
        return self.folder / "keys"

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
