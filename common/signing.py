"""Ed25519 signatures (RFC 8032) over exact bytes: those that were signed are those that travel.

Nothing is canonicalised at the receiving end: it verifies the payload as it came, then parses
it, so no two parsers can disagree about what was signed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.errors import ConfigurationError


@dataclass(frozen=True)
class Signature:
    """An Ed25519 signature (64 bytes) and the id of the key that made it."""

    key_id: str
    value: bytes


class SigningKey:
    """A private Ed25519 key, read from a PKCS#8 PEM file."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.verify_key = VerifyKey(key.public_key())

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key from the system's random source."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """Read a PEM file.

        Raises
        ------
        ConfigurationError
            If the file is absent or holds no Ed25519 private key.
        """
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"The signing key {path} cannot be read ({type(error).__name__}).",
                action="Restore it from backup, or provision the federation again.",
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(
                f"{path} holds no Ed25519 private key.",
                action="Put back the key of a backup, or provision anew.",
            )
        return cls(key)

    def pem(self) -> bytes:
        """Return the private key as unencrypted PKCS#8 PEM; keep it in a file of mode 0600."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, payload: bytes) -> Signature:
        """Sign exact bytes."""
        return Signature(self.verify_key.key_id, self._key.sign(payload))


class VerifyKey:
    """A public Ed25519 key; ``key_id`` is the first 16 hex digits of its SHA-256."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.key_id = hashlib.sha256(raw).hexdigest()[:16]

    @classmethod
    def read(cls, path: Path) -> VerifyKey:
        """Read a SubjectPublicKeyInfo PEM file.

        Raises
        ------
        ConfigurationError
            If the file is absent or holds no Ed25519 public key.
        """
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"The public key {path} cannot be read ({type(error).__name__}).",
                action="Copy it again from the start-up kit.",
            ) from error
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigurationError(
                f"{path} holds no Ed25519 public key.",
                action="Ask the coordinator for its public plan key.",
            )
        return cls(key)

    def pem(self) -> bytes:
        """Return the public key as SubjectPublicKeyInfo PEM."""
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def accepts(self, payload: bytes, signature: Signature) -> bool:
        """Tell whether this key signed exactly these bytes."""
        if signature.key_id != self.key_id:
            return False
        try:
            self._key.verify(signature.value, payload)
        except InvalidSignature:
            return False
        return True
