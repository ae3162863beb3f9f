"""Settings that live in one folder: a TOML file there, environment variables on top."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import ClassVar, Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from common.errors import ConfigurationError


class FolderSettings(BaseSettings):
    """What the settings of a site and of the coordinator have in common.

    A subclass names its file and, in ``model_config``, its ``env_prefix``. Unknown fields are
    refused: a misspelt one would be a setting that silently does not hold.
    """

    model_config = SettingsConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    file_name: ClassVar[str]

    folder: Path

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
    def read(cls, folder: Path) -> Self:
        """Read a folder's settings.

        Parameters
        ----------
        folder : Path
            As `wardround provision` makes them. It is always this one: a ``…_FOLDER`` variable
            in the environment, which some commands take as their default, does not change it.

        Raises
        ------
        ConfigurationError
            If the file is absent, no TOML, or a field is wrong; the message names the field.
        """
        path = folder / cls.file_name
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"There is no {path}.",
                action="Name a folder that `wardround provision` made.",
            ) from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(
                f"{path} cannot be read: {error}.", action="Correct the file; it is TOML in UTF-8."
            ) from error
        try:
            settings = cls(**{**data, "folder": folder})
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()
            )
            raise ConfigurationError(
                f"{path} breaks a rule: {faults}.",
                action="Correct the field that is named; unknown ones are refused, too.",
            ) from error
        return settings.model_copy(update={"folder": folder.resolve()})
