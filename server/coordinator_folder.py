"""Making the coordinator's folder: the layout that `server.settings` describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tomli_w

from common.folders import new_folder, write_private, write_public
from common.signing import SigningKey
from server.settings import CoordinatorSettings

FOLDERS = ("keys", "data", "data/models", "logs")


def create_coordinator_folder(
    folder: Path,
    *,
    settings: Mapping[str, object] | None = None,
    private_files: Mapping[str, bytes] | None = None,
    public_files: Mapping[str, bytes] | None = None,
    releases: bool = True,
) -> CoordinatorSettings:
    """Make a new coordinator folder with its plan key and its TUF keys, whole or not at all.

    Parameters
    ----------
    folder : Path
        Must not exist, or be empty.
    settings : mapping, optional
        Fields of `CoordinatorSettings`, such as ``port``.
    private_files, public_files : mapping of str to bytes, optional
        Further files under ``keys/``, by name: TLS keys (mode 0600) and certificates (0644).
    releases : bool, default True
        Whether to make the TUF keys and the first, empty repository.

    Raises
    ------
    ConfigurationError
        If the folder holds something already (code ``folder-exists``), or a setting is wrong.
    """
    with new_folder(folder) as draft:
        for part in FOLDERS:
            (draft / part).mkdir(mode=0o700)
        write_public(draft / "coordinator.toml", tomli_w.dumps(dict(settings or {})).encode())
        write_private(draft / "keys" / "plan.pem", SigningKey.generate().pem())
        for name, data in (private_files or {}).items():
            write_private(draft / "keys" / name, data)
        for name, data in (public_files or {}).items():
            write_public(draft / "keys" / name, data)
        drafted = CoordinatorSettings.read(draft)
        if releases:
            _initialise_releases(drafted)
    return CoordinatorSettings.read(folder)


def plan_public_key(settings: CoordinatorSettings) -> bytes:
    """Return the coordinator's public plan key (PEM), as a site's ``trust/plan-keys`` holds it."""
    return SigningKey.read(settings.keys / "plan.pem").verify_key.pem()


def _initialise_releases(settings: CoordinatorSettings) -> None:
    from server.publishing.publisher import (
        ReleasePublisher,  # python-tuf is not needed to run rounds
    )

    ReleasePublisher(settings).initialise()
