"""The four TUF role keys in ``keys/tuf``: root, targets, snapshot and timestamp.

The root key is needed only to make the repository; keep it off the machine afterwards. The
other three sign whenever a release is published.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, SSlibKey

from common.errors import ConfigurationError
from common.folders import refuse_readable_by_others, write_private
from common.signing import SigningKey

Role: TypeAlias = Literal["root", "targets", "snapshot", "timestamp"]
ROLES: tuple[Role, ...] = ("root", "targets", "snapshot", "timestamp")


class RoleKeys:
    """Reads the role keys on use, so that a running service holds only what it needs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, role: Role) -> Path:
        """Return the PEM file of a role."""
        return self._folder / f"{role}.pem"

    def make_missing(self) -> None:
        """Generate each key that is absent, mode 0600."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for role in ROLES:
            if not self.path(role).exists():
                write_private(self.path(role), SigningKey.generate().pem())

    def signer(self, role: Role) -> CryptoSigner:
        """Read a role's key.

        Raises
        ------
        ConfigurationError
            If the file is absent, no Ed25519 key, or readable by others.
        """
        path = self.path(role)
        try:
            refuse_readable_by_others(path)
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"The {role} key {path} cannot be read ({type(error).__name__}).",
                meaning="Releases cannot be signed.",
                action="Restore it from backup.",
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(f"{path} holds no Ed25519 private key.")
        return CryptoSigner(key, SSlibKey.from_crypto(key.public_key()))
