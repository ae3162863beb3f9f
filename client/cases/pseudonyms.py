"""Patient ids never reach the disk: a keyed HMAC of them does.

A plain hash would not do: a site's patient numbers can be tried one by one in seconds. The key
is the site's own secret and never leaves it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import unicodedata
from pathlib import Path

from common.errors import CaseRefused, ConfigurationError

MAXIMUM_PATIENT_ID_LENGTH = 256


class Pseudonyms:
    """HMAC-SHA256 (RFC 2104) under the site's secret key, with one domain for each use.

    Parameters
    ----------
    key : bytes
        32 secret bytes.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ConfigurationError("The pseudonym key must be 32 bytes.")
        self._key = key

    @classmethod
    def read(cls, path: Path) -> Pseudonyms:
        """Read ``keys/pseudonyms``: 64 hex digits.

        Raises
        ------
        ConfigurationError
            If the file is absent, malformed, or readable by every user of the machine.
        """
        try:
            text = path.read_text("ascii").strip()
            mode = path.stat().st_mode
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"The pseudonym key {path} cannot be read ({type(error).__name__}).",
                meaning="Without it the site cannot tell its patients apart.",
                action="Restore it from backup; a new key would split known patients anew.",
            ) from error
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            raise ConfigurationError(
                f"The pseudonym key {path} is open to every user of this machine.",
                action=f"Run: chmod 600 {path}",
            )
        if re.fullmatch(r"[0-9a-fA-F]{64}", text) is None:
            raise ConfigurationError(f"The pseudonym key {path} is not 64 hex digits.")
        return cls(bytes.fromhex(text))

    @classmethod
    def create(cls, path: Path) -> Pseudonyms:
        """Write a new random key, mode 0600; never over an old one.

        Raises
        ------
        ConfigurationError
            If there is a key already, or it cannot be written.
        """
        key = secrets.token_bytes(32)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(key.hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigurationError(
                f"The pseudonym key {path} cannot be made ({type(error).__name__})."
            ) from error
        return cls(key)

    def patient(self, patient_id: str) -> str:
        """Return the pseudonym (64 hex digits) of a patient id or accession number.

        Surrounding blanks do not count, nor does the Unicode form.

        Raises
        ------
        CaseRefused
            ``patient-id`` if it is empty or longer than 256 characters.
        """
        text = unicodedata.normalize("NFKC", patient_id).strip()
        if not text or len(text) > MAXIMUM_PATIENT_ID_LENGTH:
            raise CaseRefused(
                "The patient id is empty or too long.",
                action=f"Give 1 to {MAXIMUM_PATIENT_ID_LENGTH} characters, or none at all.",
                code="patient-id",
            )
        return self._hex("patient", text)

    def unnamed(self, pixels_digest: str) -> str:
        """Return the pseudonym of a patient that only an image stands for."""
        return self._hex("image", pixels_digest)

    def fraction(self, patient: str) -> float:
        """Return a number in [0, 1), uniform over patients and fixed for each."""
        return int(self._hex("split", patient)[:13], 16) / 2**52

    def subkey(self, purpose: str) -> bytes:
        """Return 32 secret bytes for another purpose; they do not show this key or each other."""
        return bytes.fromhex(self._hex("subkey", purpose))

    def key_check(self) -> str:
        """Return 64 hex digits by which the key is recognised, and that do not show it."""
        return self._hex("key-check", "")

    def _hex(self, domain: str, text: str) -> str:
        message = domain.encode() + b"\0" + text.encode("utf-8", "surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()
