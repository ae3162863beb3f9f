"""As whom a command runs: never as root in a folder that belongs to a service's own account."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from common.errors import ConfigurationError

SETTINGS = ("site.toml", "coordinator.toml", "coordinator/coordinator.toml")


def own_folder(folder: Path) -> Path:
    """Return a site's or coordinator's folder, if this account may write there.

    What root writes is root's alone, mode 0600: the service, which runs under the account that
    owns the folder, could not read its own database or audit log any more.

    Raises
    ------
    ConfigurationError
        With code ``wrong-account``.
    """
    for name in SETTINGS:
        try:
            owner = (folder / name).stat().st_uid
        except OSError:
            continue
        if os.geteuid() == 0 != owner:
            raise _wrong_account(folder, _name(owner))
    return folder


def _name(owner: int) -> str:
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:
        return f"#{owner}"


def _wrong_account(folder: Path, name: str) -> ConfigurationError:
    return ConfigurationError(
        f"{folder} belongs to the account {name}, and this command runs as root.",
        meaning="The service could not read what root writes there, and would not start.",
        action=(
            f"Type `sudo -u '{name}' wardround …`; or give the whole folder to the account that "
            "shall run the service (chown -R)."
        ),
        code="wrong-account",
    )
